"""Weights that a run begins with: from every kind of file, with another classifier, and what is refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from tests.torchdcls_train import made_runs as runs
from torchdcls_train.evaluate import load_model
from torchdcls_train.export import export_checkpoint
from torchdcls_train.runs import initial_weights
from torchdcls_train.runs.checkpoint import load_checkpoint, weights
from torchdcls_train.runs.initial_weights import load_initial_
from torchdcls_train.settings import ExportConfig, TrainConfig
from torchdcls_train.train import train
from torchdcls_train.trainer import build_model

HEAD = ("head.fc.weight", "head.fc.bias")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    quietly(runs.config(images, out, epochs=1, warmup_epochs=0))
    return out


def quietly(config: TrainConfig) -> str:
    console = Console(file=io.StringIO(), width=200)
    train(config, argv=["train"], console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def new_model(num_classes: int = 2, **changes: Any) -> nn.Module:
    return build_model(TrainConfig(**{**runs.SETTINGS, "seed": 1, **changes}), num_classes)


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def exported(run: Path, folder: Path) -> Path:
    out = folder / "model.safetensors"
    export_checkpoint(last(run), ExportConfig(to="safetensors", out=out), Console(quiet=True))
    return out


def plain(run: Path, folder: Path) -> Path:
    out = folder / "plain.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in load_model(last(run)).state_dict().items()}, out)
    return out


def pickled(run: Path, folder: Path) -> Path:
    """As other trainers write it, from several processes."""
    state = {f"module.{name}": tensor for name, tensor in load_model(last(run)).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "plain.pth")
    return folder / "plain.pth"


@pytest.mark.parametrize("kind", [lambda run, folder: last(run), exported, plain, pickled])
def test_every_kind_of_file(run: Path, tmp_path: Path, kind: Callable[[Path, Path], Path]) -> None:
    model, expected = new_model(), load_model(last(run)).state_dict()
    text = load_initial_(model, str(kind(run, tmp_path)), reset_head=False, classes=None)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    count = len(weights(model))
    assert f": {count} of the model's {count} tensors are loaded" in text


def test_files_of_the_authors_are_read_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_official` itself has tests of its own."""
    path, theirs = tmp_path / "theirs.pth", new_model(seed=2)
    torch.save({"model_ema": {"layer.weight": torch.zeros(2, 1, 3), "layer.P": torch.zeros(2, 2, 1, 3)}}, path)
    monkeypatch.setattr(initial_weights, "load_official", {path: theirs}.__getitem__)
    model = new_model()
    assert "(a model of the package DCLS)" in load_initial_(model, str(path), reset_head=False, classes=None)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_another_number_of_classes(run: Path, tmp_path: Path) -> None:
    model, expected = new_model(5), load_model(last(run)).state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = str(last(run))
    with pytest.raises(ValueError, match=r"initial_checkpoint: expected as many classes .*; --reset-head draws a new"):
        load_initial_(model, source, reset_head=False, classes=None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    text = load_initial_(model, source, reset_head=True, classes=None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if name in HEAD else expected)[name])
    count = len(weights(model))
    assert text.endswith(f"{count - 2} of the model's {count} tensors are loaded, new are {', '.join(HEAD)}")


def test_a_new_classifier_of_as_many_classes(run: Path) -> None:
    model = new_model()
    before = {name: model.state_dict()[name].clone() for name in HEAD}
    load_initial_(model, str(last(run)), reset_head=True, classes=None)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in HEAD)


def test_classes_of_other_names_are_noted(run: Path) -> None:
    for classes, noted in ((("bright", "dark"), False), (("dark", "bright"), True)):
        text = load_initial_(new_model(), str(last(run)), reset_head=False, classes=classes)
        assert ("note: the classes have other names than in that run" in text) == noted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}}, "it also has stages.2.blocks.1"),
        ({"model_args": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 24]}}, "shapes differ for"),
        ({"model": "convnext_tiny_dcls_gaussian"}, "which is of convnext_tiny_dcls_bilinear.*give the --model"),
    ],
)
def test_another_model(run: Path, change: dict[str, Any], message: str) -> None:
    model = new_model(**change)
    with pytest.raises(ValueError, match=f"initial_checkpoint: expected weights of this model, got .*{message}"):
        load_initial_(model, str(last(run)), reset_head=True, classes=None)


def test_files_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "last.safetensors"
    content = bytearray(last(run).read_bytes())
    content[-9] ^= 1
    broken.write_bytes(content)
    nothing = tmp_path / "nothing.pth"
    torch.save({"epoch": 3}, nothing)
    for path, message in (
        (tmp_path / "nowhere.pth", "expected a file or an address, got '.*', which does not exist"),
        (broken, "is damaged"),
        (nothing, "expected a file with a state dict"),
    ):
        with pytest.raises(ValueError, match=f"^initial_checkpoint: .*{message}"):
            load_initial_(new_model(), str(path), reset_head=False, classes=None)


def test_a_run_with_other_epochs_and_rate_begins_with_the_weights(images: Path, run: Path, tmp_path: Path) -> None:
    """The first update has a rate of 0, so that its checkpoint holds what the run began with."""
    settings = {"epochs": 3, "lr": 2e-3, "warmup_epochs": 1.0, "checkpoint_every": 1}
    config = runs.config(images, tmp_path / "new", initial_checkpoint=str(last(run)), **settings)
    expected = load_checkpoint(last(run))
    printed = quietly(config)
    assert f"weights of '{last(run)}' (" in printed
    first = runs.rows(tmp_path / "new")[0]
    without = quietly(runs.config(images, tmp_path / "other", **settings))
    assert "weights of" not in without
    assert first["loss"] != runs.rows(tmp_path / "other")[0]["loss"]
    stored = load_checkpoint(last(tmp_path / "new")).about["config"]
    assert (stored["initial_checkpoint"], stored["reset_head"]) == (str(last(run)), False)
    assert expected.about["config"]["initial_checkpoint"] is None


def test_a_resumed_run_does_not_begin_again(images: Path, run: Path, tmp_path: Path) -> None:
    """Bit for bit the same as without a stop, also where the file of its first weights is gone."""
    source = tmp_path / "first.safetensors"
    source.write_bytes(last(run).read_bytes())
    settings = {"initial_checkpoint": str(source), "checkpoint_every": 1, "epochs": 2}
    quietly(runs.config(images, tmp_path / "whole", **settings))
    quietly(runs.config(images, tmp_path / "half", **settings))
    source.unlink()
    previous = tmp_path / "half" / "checkpoints" / "previous.safetensors"
    printed = quietly(runs.config(images, tmp_path / "half", resume=str(previous), **settings))
    assert "resuming at epoch 2, update 3" in printed
    assert "weights of" not in printed
    runs.assert_same_run(tmp_path / "whole", tmp_path / "half")


def test_the_classifier_alone_cannot_be_reset() -> None:
    with pytest.raises(ValueError, match="reset_head: expected false without an initial_checkpoint"):
        TrainConfig(**runs.SETTINGS, reset_head=True)
