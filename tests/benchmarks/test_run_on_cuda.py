"""The benchmarks of a GPU, from their command to their file and table, played on a CPU with sizes small enough."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import conv, cuda_conv, cuda_model, model, run, tables
from benchmarks.cuda_conv import Floor, GpuLayer
from benchmarks.parity import ParityError
from benchmarks.run import main


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that passes for a GPU."""
    for module in (cuda_conv, cuda_model):
        monkeypatch.setattr(module, "DEVICE", "cpu")
        monkeypatch.setattr(module, "cuda_clock", time.perf_counter)
    small = GpuLayer(4, 6, 5, 2, 5)
    problems = {"stage": small, "7x7": GpuLayer(4, 6, 5, 2, 3), "floor": Floor(small)}
    monkeypatch.setattr(cuda_conv, "PROBLEMS", problems)
    monkeypatch.setattr(cuda_conv, "captured", lambda run, calls: lambda: [run() for _ in range(calls)][-1])
    monkeypatch.setattr(cuda_conv, "SQUARE", 64)
    peaks = {"torchdcls": 3 * 2**29, "7x7": 2**30}
    monkeypatch.setattr(model, "in_a_process", lambda module, function, side, batch: peaks[side])
    monkeypatch.setattr(cuda_model, "PIXELS", 32)
    fewer = {name: replace(problem, batch=2) for name, problem in cuda_model.PROBLEMS.items()}
    monkeypatch.setattr(cuda_model, "PROBLEMS", fewer)
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(run, "gpu", lambda: "NVIDIA H200")


@pytest.mark.usefixtures("played")
def test_layers(tmp_path: Path) -> None:
    assert main(["conv", "--device", "cuda", "--turns", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("cuda-conv-nvidia-h200-*.json")
    result = json.loads(path.read_text())
    assert result["machine"]["gpu"] == "NVIDIA H200"
    assert result["command"] == "python -m benchmarks.run conv --device cuda --turns 2"
    assert [entry["name"] for entry in result["comparisons"]] == ["stage", "7x7", "floor"]
    for entry in result["comparisons"]:
        assert entry["ratio_by_turn"] == [
            pytest.approx(baseline / candidate)
            for candidate, baseline in zip(entry["candidate_ms_by_turn"], entry["baseline_ms_by_turn"], strict=True)
        ]
    table = tables.TABLES["cuda-conv"](result)
    assert "stage: 5x5 on (2, 4, 6, 6), bfloat16, against F.conv2d 5x5" in table
    assert "NVIDIA H200; " in table


@pytest.mark.usefixtures("played")
def test_models(tmp_path: Path) -> None:
    assert main(["model", "--device", "cuda", "--turns", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("cuda-model-nvidia-h200-*.json")
    result = json.loads(path.read_text())
    training, inference, memory = result["problems"]
    assert training["candidate_ms"] > inference["candidate_ms"] > 0
    assert memory["ratio"] == 1.5
    assert "1.50 GiB" in tables.TABLES["cuda-model"](result)


@pytest.mark.usefixtures("played")
def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = conv.large_kernel_conv2d
    monkeypatch.setattr(conv, "large_kernel_conv2d", lambda *args: right(*args) * 1.05)
    with pytest.raises(ParityError, match="output differs"):
        cuda_conv.verify(["floor"])
    assert main(["conv", "--device", "cuda", "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("played")
def test_what_is_timed_is_what_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer's own batch, map, kernel and dtype: programs of other sizes are other programs."""
    checked: list[tuple[object, ...]] = []
    right = conv.large_kernel_conv2d

    def noted(input: torch.Tensor, weight: torch.Tensor, *args: object) -> torch.Tensor:
        checked.append((tuple(input.shape), tuple(weight.shape[2:]), input.dtype))
        return right(input, weight, *args)

    monkeypatch.setattr(conv, "large_kernel_conv2d", noted)
    precise = GpuLayer(32, 4, 3, 3, 3, torch.float32)
    monkeypatch.setattr(cuda_conv, "PROBLEMS", {**cuda_conv.PROBLEMS, "precise": precise})
    cuda_conv.verify(["stage", "floor", "precise"])
    assert checked == [((2, 4, 6, 6), (5, 5), torch.bfloat16), ((3, 16, 4, 4), (3, 3), torch.float32)]


@pytest.mark.parametrize(("seconds", "calls"), [(1e-4, 10), (4e-3, 5), (0.5, 1), (0.0, 10)])
def test_what_takes_long_is_called_less_often(seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(cuda_conv, "cuda_clock", lambda: now[0])

    def run() -> None:
        now[0] += seconds

    assert cuda_conv._calls(run) == calls


def test_products_along_an_axis_are_those_with_the_map() -> None:
    """Counted one by one."""
    for side, taps in ((5, 3), (4, 7), (6, 1)):
        taps_seen = [cell + tap - taps // 2 for cell in range(side) for tap in range(taps)]
        assert cuda_conv._products_along(side, taps) == sum(0 <= at < side for at in taps_seen)


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "gpu", lambda: None)
    assert main(["conv", "--device", "cuda", "--out", str(tmp_path)]) == 1
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["construction", "--device", "cuda"], "invalid choice: 'cuda'"),
        (["conv", "--problem", "floor"], "'floor' is none of stage 1,"),
        (["conv", "--device", "cuda", "--problem", "delays"], "'delays' is none of stage 1,"),
    ],
)
def test_problems_belong_to_a_device(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_table_that_awaits_its_machine_says_so(tmp_path: Path) -> None:
    place = "<!-- table:cuda-conv -->\n<!-- /table:cuda-conv -->"
    text, stale = tables.update(place, tmp_path)
    assert stale == ["cuda-conv"]
    assert text.count("not measured") == 3 * len(cuda_conv.PROBLEMS)
    assert "`python -m benchmarks.run conv --device cuda`" in text
