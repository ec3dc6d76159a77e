"""The session on a GPU, part by part, played on a CPU with sizes small enough."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from benchmarks import gpu_session, tables
from benchmarks.conv import Layer, ours
from benchmarks.gpu import clock, convnext, crossover, layers, model, parity, profile
from benchmarks.model import ModelProblem

SMALL = Layer(4, 6, 5, 2)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that passes for a GPU."""
    monkeypatch.setattr(clock, "DEVICE", "cpu")
    monkeypatch.setattr(clock, "cuda_clock", time.perf_counter)
    monkeypatch.setattr(clock, "captured", lambda run, calls: lambda: [run() for _ in range(calls)][-1])
    monkeypatch.setattr(gpu_session, "gpu", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)


def _part(monkeypatch: pytest.MonkeyPatch, problems: dict[str, Callable[[], dict[str, Any]]]) -> None:
    rows = lambda result: [["name", "value"], *([e["name"], str(e.get("value"))] for e in result["entries"])]  # noqa: E731
    made = SimpleNamespace(SUMMARY="a toy", SECONDS=30, problems=lambda: problems, rows=rows)
    monkeypatch.setattr(gpu_session, "part", lambda name: made)


def _result(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.glob(f"gpu-{name}-nvidia-h200-*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.usefixtures("played")
def test_what_fails_is_recorded_and_the_next_problem_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("an illegal memory access\nand more")

    _part(monkeypatch, {"one": fails, "two": lambda: {"right": False, "errors": {}}, "three": lambda: {"value": 3}})
    assert gpu_session.run_part("parity", 60, tmp_path) == 0
    result = _result(tmp_path, "parity")
    assert result["complete"] is True
    assert result["machine"]["gpu"] == "NVIDIA H200"
    assert result["entries"][0] == {"name": "one", "error": "RuntimeError: an illegal memory access"}
    assert result["entries"][2] == {"name": "three", "value": 3}
    shown = capsys.readouterr().out
    assert "parity: one: {'error'" in shown and "parity: two:" in shown and "three" not in shown


@pytest.mark.usefixtures("played")
def test_a_stop_loses_only_what_comes_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stops() -> dict[str, Any]:
        raise KeyboardInterrupt

    _part(monkeypatch, {"one": lambda: {"value": 1}, "two": stops})
    with pytest.raises(KeyboardInterrupt):
        gpu_session.run_part("layers", 60, tmp_path)
    result = _result(tmp_path, "layers")
    assert [entry["name"] for entry in result["entries"]] == ["one"]
    assert result["complete"] is False
    assert "| one | 1 |" in gpu_session.tables(["layers"], tmp_path)


@pytest.mark.usefixtures("played")
def test_no_problem_begins_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(gpu_session, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow() -> dict[str, Any]:
        now[0] += 20
        return {"value": 1}

    _part(monkeypatch, {"one": slow, "two": slow, "three": slow})
    assert gpu_session.run_part("layers", 10, tmp_path) == 2
    assert [entry["name"] for entry in _result(tmp_path, "layers")["entries"]] == ["one"]
    assert "layers: no time for 2 of 3" in capsys.readouterr().out


@pytest.mark.usefixtures("played")
def test_each_part_gets_its_share_of_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seconds = float(command[command.index("--seconds") + 1])
        assert options["timeout"] == seconds + gpu_session.GRACE
        asked.append((command[command.index("--part") + 1], round(seconds)))
        if asked[-1][0] == "model":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert gpu_session.main(["--out", str(tmp_path)]) == 2
    assert [name for name, _ in asked] == list(gpu_session.PARTS)
    all_of_it = sum(gpu_session.part(name).SECONDS for name in gpu_session.PARTS)
    assert all_of_it <= 480
    assert asked[0][1] == round(480 * parity.SECONDS / all_of_it)
    assert asked[-1][1] == 480  # nothing was spent before


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_session.main(["--out", str(tmp_path)]) == 1
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_session_needs_torch_alone() -> None:
    """As on a machine that has nothing else: imports of all else fail."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['timm', 'rich', 'DCLS', 'scipy', 'torchvision', 'matplotlib']));"
        "from benchmarks import gpu_session as s; [s.part(name).problems() for name in s.PARTS]; print('fine')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "fine\n"


@pytest.mark.usefixtures("played")
def test_layers() -> None:
    entry = layers._compare(SMALL, lambda layer: layers._torchs_sides(layer, 3))
    assert entry["other"] in ("contiguous_format", "channels_last")
    assert len(entry["ratio_by_turn"]) == clock.TURNS
    table = layers.rows({"entries": [{"name": "small", **entry}, {"name": "broken", "error": "no"}]})
    assert [row[0] for row in table[1:]] == ["small"]


def test_all_layers_are_there() -> None:
    names = list(layers.problems())
    assert names[0] == "stage 1, bfloat16, against F.conv2d 7x7"
    assert len(names) >= 16


@pytest.mark.parametrize(("side", "taps"), [(56, 23), (7, 23), (14, 5), (6, 6)])
def test_the_fused_convolution_is_asked_for_the_same(side: int, taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contract in torch: a convolution by spectra of tiles, cut from the middle of the tile on."""

    def contract(x: torch.Tensor, weight: torch.Tensor, fft_size: int) -> torch.Tensor:
        assert fft_size in (8, 16, 32, 64, 128) and max(x.shape[2:]) <= fft_size // 2
        assert weight.shape[1:] == (fft_size, fft_size)
        tile, half = (fft_size, fft_size), fft_size // 2
        whole = torch.fft.irfft2(torch.fft.rfft2(x, s=tile) * torch.fft.rfft2(weight, s=tile), s=tile)
        return whole[..., half:, half:][..., : x.shape[2], : x.shape[3]]

    package, module = ModuleType("subquadratic_ops_torch"), ModuleType("subquadratic_ops_torch.fused_fft_conv2d")
    module.fused_fft_conv2d = contract  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    input, weight = torch.randn(2, 3, side, side).double(), torch.randn(3, 1, taps, taps).double()
    torch.testing.assert_close(layers.fused(input, weight), ours(input, weight)[..., :side, :side])


@pytest.mark.usefixtures("played")
def test_crossover() -> None:
    entry = crossover._times(SMALL)
    assert {"direct", "fft"} <= set(entry["ms"])
    assert all(ms > 0 for ms in entry["ms"].values())
    header, row = crossover.rows({"entries": [{"name": "small", **entry}]})
    assert len(header) == len(row) == 1 + len(entry["ms"])
    assert next(iter(crossover.problems())).startswith("23x23 on (55, 96, 56, 56), bfloat16")


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("shape", "kernel"), [((2, 4, 6, 5), (5, 3)), ((2, 3, 20), (7,))])
def test_parity_of_convolutions(dtype: torch.dtype, shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    found = parity._convolutions(shape, kernel, dtype, torch.contiguous_format, "fft")
    assert found["right"] is True
    assert set(found["errors"]) == {"output", "input", "weight", "bias"}


@pytest.mark.usefixtures("played")
def test_parity_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = parity.large_kernel_conv
    monkeypatch.setattr(parity, "large_kernel_conv", lambda *args, **options: right(*args, **options) * 1.01)
    found = parity._convolutions((2, 3, 6, 6), (3, 3), torch.float32, torch.contiguous_format, "auto")
    assert found["right"] is False and found["errors"]["output"] > 1e-3
    _, summary, row = parity.rows({"entries": [{"name": "small", **found}]})
    assert summary[-1] == "1 wrong" and "output off by" in row[-1]
    nan = parity._judged(["output"], [torch.tensor([float("nan")])], [torch.ones(1)], torch.float32)
    assert nan["right"] is False


@pytest.mark.usefixtures("played")
def test_parity_of_kernels_and_of_compiled_layers() -> None:
    assert parity._kernels("gaussian")["errors"].keys() == {"kernel", "weight", "position", "sigma"}
    assert parity._kernels("bilinear")["right"] is True
    compiled = parity._compiled(torch.float32)
    assert compiled["right"] is True and "position" in compiled["errors"]


def test_the_model_is_timms() -> None:
    model, known = convnext.ConvNeXt().eval(), timm.create_model("convnext_tiny").eval()
    with torch.no_grad():
        for name, parameter in known.named_parameters():
            if name.endswith("gamma"):
                parameter.normal_()  # beginning near 0, it would hide the blocks
        model.load_state_dict(known.state_dict())
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(model(images), known(images))


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("doing", ["training step", "inference"])
def test_models(doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PIXELS", 32)
    peaks = iter([3 * 2**30, 2 * 2**30])
    monkeypatch.setattr(model, "_allocated", lambda: 0)
    monkeypatch.setattr(model, "_forget_peak", lambda: None)
    monkeypatch.setattr(model, "_peak", lambda: next(peaks))
    monkeypatch.setattr(clock, "TURNS", 1)
    entry = model._compare(ModelProblem(doing, 2, "7x7"))
    _, times, memory = model.rows({"entries": [{"name": doing, **entry}]})
    assert times[0] == doing and times[1].endswith(" ms")
    assert memory[1:] == ["3.00 GiB", "2.00 GiB", "1.50 times the memory"]


@pytest.mark.parametrize(("seconds", "calls"), [(1e-4, 10), (4e-3, 5), (0.5, 1), (0.0, 10)])
def test_what_takes_long_is_called_less_often(seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "cuda_clock", lambda: now[0])

    def run() -> None:
        now[0] += seconds

    assert clock.calls_together(run) == calls


def test_products_along_an_axis_are_those_with_the_map() -> None:
    """Counted one by one, and by a convolution of ones."""
    for side, taps in ((5, 3), (4, 7), (6, 1)):
        ones = F.conv1d(torch.ones(1, 1, side), torch.ones(1, 1, taps), padding=taps // 2)
        assert profile.products_along(side, taps) == ones.sum().item()


def test_a_profile_says_what_bounds_a_layer() -> None:
    entry = {"name": "stage 1", "kernels_ms": {"banded": 2.0, "bands": 0.5}, "bytes_ms": 0.4, "products_ms": 1.0}
    table = profile.rows({"entries": [entry]})
    assert table[1] == ["stage 1: in all", "2.500", "1.000", "products"]
    assert table[2][:2] == ["  banded", "2.000"]


def test_a_table_that_awaits_its_machine_says_so(tmp_path: Path) -> None:
    place = "<!-- table:gpu-layers -->\n<!-- /table:gpu-layers -->"
    text, stale = tables.update(place, tmp_path)
    assert stale == ["gpu-layers"]
    assert "`python -m benchmarks.gpu_session`" in text
