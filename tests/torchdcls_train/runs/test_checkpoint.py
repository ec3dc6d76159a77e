"""Checkpoints: what comes back, what is refused, and what a write that fails leaves."""

import resource
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from torch import nn

from torchdcls import Dcls2d, param_groups
from torchdcls_train.recipes import load_recipe, recipe_names
from torchdcls_train.runs.checkpoint import load_checkpoint, save_checkpoint, weights


def make_model(channels: int = 4) -> nn.Module:
    """Two layers that share their positions, a norm with buffers, one of integers, and a convolution of many axes."""
    layers = [Dcls2d(channels, channels, 3, dilated_kernel_size=5, padding=2, groups=channels) for _ in range(2)]
    layers[1].position, layers[1].sigma = layers[0].position, layers[0].sigma
    return nn.Sequential(layers[0], nn.BatchNorm2d(channels), layers[1], nn.Conv2d(channels, 9, 3, padding=1))


def make_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    return create_optimizer_v2(param_groups(model, 1e-2, 0.05), name, lr=1e-2)


def do_updates(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for step in range(count):
        torch.manual_seed(step)
        loss = model(torch.randn(2, 4, 6, 6)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Those of the recipes, and such as keep memory formats, tuples, lists or dtypes in their state.
OPTIMIZERS = [
    *sorted({load_recipe(name)["optimizer"] for name in recipe_names()}),
    *("sgd", "momentum", "adafactor", "cadafactor", "cadafactorbv", "madgradw", "novograd", "muon", "lion"),
]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_is_the_same_as_not_stopping(tmp_path: Path, name: str, memory_format: torch.memory_format) -> None:
    """To the last bit: the memory format decides on the order in which a norm sums."""
    model = make_model().to(memory_format=memory_format)
    optimizer = make_optimizer(model, name)
    do_updates(model, optimizer, 3)
    ema = deepcopy(model)
    save_checkpoint(tmp_path / "last.safetensors", {"epoch": 1}, model=model, ema=ema, optimizer=optimizer)
    formats = strides(optimizer.state_dict())
    expected = do_updates(model, optimizer, 6)

    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    other = make_model().to(memory_format=memory_format)
    other_optimizer = make_optimizer(other, name)
    checkpoint.load_weights(other)
    checkpoint.load_optimizer(other_optimizer)
    assert checkpoint.about["epoch"] == 1
    assert strides(other_optimizer.state_dict()) == formats
    assert do_updates(other, other_optimizer, 6) == expected
    assert all(torch.equal(one, two) for one, two in zip(weights(model).values(), weights(other).values(), strict=True))


def strides(tree: Any) -> Any:
    """The strides of a state's tensors, in their places, and whatever else there is as it is."""
    if isinstance(tree, torch.Tensor):
        return tree.stride()
    if isinstance(tree, dict):
        return {key: strides(value) for key, value in tree.items()}
    return type(tree)(map(strides, tree)) if isinstance(tree, list | tuple) else tree


def test_parts_in_any_memory_format_come_back_in_it(tmp_path: Path) -> None:
    model = make_model().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "a.safetensors", {}, model=model, ema=deepcopy(model))
    tensors = load_checkpoint(tmp_path / "a.safetensors").tensors
    for name, tensor in weights(model).items():
        assert tensors[f"model.{name}"].stride() == tensors[f"ema.{name}"].stride() == tensor.stride()
        assert torch.equal(tensors[f"model.{name}"], tensor)


def test_shared_parameters_are_stored_once(tmp_path: Path) -> None:
    model = make_model()
    save_checkpoint(tmp_path / "a.safetensors", {}, model=model)
    names = load_checkpoint(tmp_path / "a.safetensors").tensors
    assert [name for name in names if name.endswith("position")] == ["model.0.position"]
    assert "model.1.num_batches_tracked" in names


def test_weights_alone_cannot_go_on(tmp_path: Path) -> None:
    model = make_model()
    save_checkpoint(tmp_path / "best.safetensors", {}, model=model)
    with pytest.raises(ValueError, match="holds weights alone"):
        load_checkpoint(tmp_path / "best.safetensors").load_optimizer(make_optimizer(model, "adamw"))


def test_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", {"config": {"model": "one"}}, model=make_model())
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    wider, other = make_model(8), nn.Linear(2, 2)
    before = wider[0].weight.clone()
    with pytest.raises(ValueError, match=r"of another model \(shapes differ for 0.bias, .*made with model 'one'"):
        checkpoint.load_weights(wider)
    assert torch.equal(wider[0].weight, before)
    with pytest.raises(ValueError, match=r"it lacks bias, weight; it also has 0.bias, 0.position, 0.sigma and 10 more"):
        checkpoint.load_weights(other)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "cut short", "noise", "pickled", "foreign", "header"])
def test_broken_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {}, model=make_model())
    content = path.read_bytes()
    messages = {"missing": "does not exist", "folder": "is a folder", "foreign": "with 1 tensors and format None"}
    if kind in ("missing", "folder"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "pickled":
        torch.save({"model": {}}, path)
    else:
        broken = {"empty": b"", "cut short": content[:-40], "noise": b"\xff" * 400, "header": content[:20]}
        path.write_bytes(broken[kind])
    with pytest.raises(ValueError, match=messages.get(kind, "cannot be read")) as raised:
        load_checkpoint(path)
    assert str(path) in str(raised.value)


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Every byte of a file once: it is refused with its name and what to take instead, or says what it said."""
    path, whole = tmp_path / "last.safetensors", nn.Linear(2, 2)
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    (tmp_path / "previous.safetensors").touch()
    save_checkpoint(path, {"epoch": 3}, model=whole, optimizer=optimizer)
    content, stored = path.read_bytes(), load_checkpoint(path)
    unnoticed = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            loaded = load_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        unnoticed += 1
        assert loaded.about == stored.about
        assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in stored.tensors.items())
    assert unnoticed < 12  # the key "checksum" itself, and no other
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"is damaged \(its checksum is another\); take .*previous.safetensors'"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "about", [{"about": "{"}, {}, {"about": "{}", "strides": '{"w": [9, 1]}'}, {"about": "{}", "strides": '{"v": [1]}'}]
)
def test_text_that_does_not_fit_is_refused(tmp_path: Path, about: dict[str, str]) -> None:
    """Whoever wrote it; strides with gaps could ask for any amount of memory."""
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(2, 3)}, path, {"format": "torchdcls checkpoint 1", **about})
    with pytest.raises(ValueError, match=r"a.safetensors' is damaged \("):
        load_checkpoint(path)


def test_the_file_before_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    for epoch in range(3):
        save_checkpoint(last, {"epoch": epoch}, model=nn.Linear(2, 2), previous=previous)
        assert load_checkpoint(last).about == {"epoch": epoch}
        assert previous.exists() == (epoch > 0)
    assert load_checkpoint(previous).about == {"epoch": 1}


def test_whoever_may_read_other_files_may_read_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", {}, model=make_model())
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process that may write files of 100 kB at most."""
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"epoch": 3}, model=make_model())
    program = f"""
import resource, signal
from copy import deepcopy
from pathlib import Path
from torch import nn
from torchdcls_train.runs.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path({str(path)!r}), {{"epoch": 4}}, model=nn.Linear(1000, 1000))
except OSError as error:
    print("refused:", error)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "refused: " in done.stdout, done.stderr
    assert "cannot be written" in done.stdout
    assert load_checkpoint(path).about == {"epoch": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
