"""Weights come back exactly, shared ones shared, and no file is trusted."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_model as load_with_safetensors
from safetensors.torch import save_file
from torch import nn

import torchdcls.models
from torchdcls import Dcls1d, Dcls2d, convert
from torchdcls.deployment import Configuration, ExportError, export, load
from torchdcls_train.runs.checkpoint import save_checkpoint

ARGUMENTS: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16], "num_classes": 3}
NAME = "convnext_tiny_dcls_gaussian"


def tiny() -> nn.Module:
    """Layers of its third stage share positions and sigmas; its memory format is another."""
    model: nn.Module = timm.create_model(NAME, **ARGUMENTS)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def own(spread: float = 3.0) -> nn.Module:
    """A model that is none of timm's, with shared parameters, several dtypes, and buffers."""
    model = nn.Sequential(
        nn.Conv1d(4, 4, 7, groups=4, padding=3), nn.BatchNorm1d(4), nn.Conv1d(4, 4, 7, padding=3, groups=4)
    )
    convert(
        model,
        dilated_kernel_size=9,
        kernel_count=3,
        share=lambda name, module: "all",
        position_init=("uniform", spread),
    )
    model.append(nn.Linear(5, 2).bfloat16())
    return model


def assert_same(one: nn.Module, other: nn.Module) -> None:
    found, expected = one.state_dict(), other.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_a_model_of_timm_comes_back(tmp_path: Path) -> None:
    model, path = tiny().train(), tmp_path / "model.safetensors"
    configuration = Configuration(model=NAME, arguments=ARGUMENTS, classes=["a", "b", "c"], image_size=32)
    report = export(model, path, to="safetensors", configuration=configuration, example=torch.randn(1, 3, 32, 32))
    assert model.training
    assert len(report.checks) == 2
    state = torch.get_rng_state()
    loaded = load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert_same(loaded, model)
    blocks: Any = loaded.stages[2].blocks  # type: ignore[index, union-attr]
    assert blocks[0].conv_dw.position is blocks[1].conv_dw.position
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    # It trains on.
    loaded.train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert blocks[0].conv_dw.position.grad is not None
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    assert (about["classes"], about["image_size"], about["model"]) == (["a", "b", "c"], 32, NAME)
    assert about["versions"]["torchdcls"] == torchdcls.__version__


def test_safetensors_own_loader_takes_the_file(tmp_path: Path) -> None:
    model, other = tiny(), timm.create_model(NAME, **ARGUMENTS)  # it takes no other memory format
    export(model, tmp_path / "model.safetensors", to="safetensors")
    assert load_with_safetensors(other, tmp_path / "model.safetensors") == (set(), [])
    assert_same(other, model)


def test_another_model_is_loaded_into(tmp_path: Path) -> None:
    model, other, path = own(), own().train(), tmp_path / "model.safetensors"
    with torch.no_grad():
        model[1].num_batches_tracked += 3
        model[1].running_var.fill_(2.0)
    report = export(model, path, to="safetensors")
    assert report.checks == ()
    assert str(report).startswith(f"{path}: weights, ")
    assert load(path, other) is other
    assert other.training
    assert_same(other, model)
    assert other[0].position is other[2].position
    # dtypes are the file's
    assert_same(load(path, own().double()), model)
    with pytest.raises(ValueError, match=r"^model: expected a model to load into, as .* does not say how to make one"):
        load(path)


def test_a_file_is_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    export(own(), tmp_path / "model.safetensors", to="safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({**ARGUMENTS, "num_classes": 4}, "shapes differ for head.fc.weight, head.fc.bias"),
        ({**ARGUMENTS, "depths": [1, 1, 1, 1]}, "it also has stages.2.blocks.1"),
        ({**ARGUMENTS, "width": 3}, "does not take"),
    ],
)
def test_a_configuration_of_another_model(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ExportError, match=r"^configuration: expected the name and arguments") as raised:
        export(
            tiny(),
            tmp_path / "model.safetensors",
            to="safetensors",
            configuration=Configuration(model=NAME, arguments=arguments),
        )
    assert words in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_timm_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"did you mean 'convnext_tiny_dcls_gaussian'\?"):
        export(
            tiny(),
            tmp_path / "model.safetensors",
            to="safetensors",
            configuration=Configuration(model="convnext_tiny_dcls_gausian"),
        )


def test_weights_that_do_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def save_another(tensors: dict[str, torch.Tensor], *rest: Any) -> None:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, *rest)

    monkeypatch.setattr(safetensors.torch, "save_file", save_another)
    with pytest.raises(ExportError, match=r"^model: expected the file to give the weights back, got others"):
        export(own(), tmp_path / "model.safetensors", to="safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_no_tensor(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None: ...

    with pytest.raises(ExportError, match=r"^model: expected tensors alone in its state_dict, got '_extra_state'"):
        export(Extra(2, 2), tmp_path / "model.safetensors", to="safetensors")


def refusal(path: Path, model: nn.Module | None = None) -> str:
    with pytest.raises(ValueError) as raised:
        load(path, model)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.safetensors").endswith("none.safetensors', which does not exist")
    assert refusal(tmp_path).endswith("which is a folder")
    path = tmp_path / "model.safetensors"
    export(own(), path, to="safetensors")
    whole = path.read_bytes()
    for count in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:count])
        assert "cannot be read" in refusal(path, own())
    path.write_bytes(pickle.dumps({"weight": [1, 2]}) * 50)
    assert "pickled files of torch are not read" in refusal(path, own())


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got 'net'"):
        load(tmp_path / "model.safetensors", "net")  # type: ignore[arg-type]


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    assert "expected a file that torchdcls has exported" in refusal(path)
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    assert "with format 'pt'" in refusal(path)
    save_file({"weight": torch.ones(2)}, path, {"format": "torchdcls model 2"})
    assert "a newer torchdcls reads it" in refusal(path)
    for text in ("[]", "{", "3", '{"model": 3}', '{"arguments": []}'):
        save_file({"weight": torch.ones(2)}, path, {"format": "torchdcls model 1", "about": text, "shared": "{}"})
        assert str(path) in refusal(path)
    for shared in ("[]", "{", '{"bias": "nothing"}'):
        save_file({"weight": torch.ones(2)}, path, {"format": "torchdcls model 1", "about": "{}", "shared": shared})
        assert f"path: '{path}' cannot be read, its text" in refusal(path, nn.Linear(2, 1))
    save_file({"weight": torch.ones(2)}, path, {"format": "torchdcls model 1"})
    assert "cannot be read" in refusal(path)
    save_checkpoint(path, {"config": {}}, model=nn.Linear(2, 2))
    assert "torchdcls export CHECKPOINT --to safetensors" in refusal(path)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", own()
    export(model, path, to="safetensors")
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) - 40, whole.index(b"axes (0,)")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place:][1:])
        assert refusal(path, own()).endswith("its checksum does not match its content; copy or export it again")
    path.write_bytes(whole)
    assert_same(load(path, own()), model)


def test_numbers_of_another_kind(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", nn.Linear(2, 1, bias=False)
    metadata = {"format": "torchdcls model 1", "about": "{}", "shared": "{}"}
    for stored in (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.complex64)):
        save_file({"weight": stored}, path, metadata)
        assert refusal(path, model).endswith("does not fit this Linear (kinds of numbers differ for weight)")
    save_file({"weight": torch.ones(1, 2, dtype=torch.bfloat16)}, path, metadata)
    load(path, model)
    assert model.weight.dtype == torch.bfloat16


def test_weights_of_another_model(tmp_path: Path) -> None:
    path, other = tmp_path / "model.safetensors", nn.Sequential(nn.Linear(2, 2))
    before = other[0].weight.clone()
    export(nn.Sequential(Dcls1d(2, 2, 2, dilated_kernel_size=3)), path, to="safetensors")
    message = refusal(path, other)
    assert message.startswith(f"path: '{path}' does not fit this Sequential (it also has 0.position, 0.sigma;")
    assert torch.equal(other[0].weight, before)
    assert "it lacks 1.weight" in refusal(path, nn.Sequential(Dcls2d(2, 2, 2, dilated_kernel_size=3), nn.Linear(2, 2)))


@pytest.mark.parametrize(
    "changes", [{"interpolation": "triangle"}, {"dilated_kernel_size": (5, 9)}, {"learned_dims": (1,)}]
)
def test_layers_that_make_other_kernels(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = {"dilated_kernel_size": (9, 9), "interpolation": "gaussian", "learned_dims": (0,)}
    path, other = tmp_path / "model.safetensors", nn.Sequential(Dcls2d(2, 2, 2, **settings | changes))
    before = other[0].weight.clone()
    export(nn.Sequential(Dcls2d(2, 2, 2, **settings)), path, to="safetensors")
    message = refusal(path, other)
    assert message.startswith(f"model: expected the layer 0 of '{path}' (9x9 gaussian, axes (0,)), got another (")
    assert torch.equal(other[0].weight, before)


def test_files_from_before_kernels_were_written(tmp_path: Path) -> None:
    model, path = own(), tmp_path / "model.safetensors"
    export(model, path, to="safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["kernels"], metadata["checksum"]
    save_file(tensors, path, metadata)
    assert_same(load(path, own()), model)


def test_without_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    export(tiny(), path, to="safetensors", configuration=Configuration(model=NAME, arguments=ARGUMENTS))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"of timm needs the packages of the train extra \(timm is missing\): pip install"
    ):
        load(path)
