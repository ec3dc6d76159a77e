"""The construction benchmark from its command to its file, on kernels small enough to be quick."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import torchdcls_results
from benchmarks import construction
from benchmarks.construction import ConstructionProblem
from benchmarks.run import main
from benchmarks.timing import ParityError

pytest.importorskip("DCLS")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"one": ConstructionProblem(2, (5, 5), 3, layers=2), "two": ConstructionProblem(4, (7, 7), 3, layers=1)}
    monkeypatch.setattr(construction, "PROBLEMS", stages)


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main(["construction", "--turns", "1", "--out", str(folder), *arguments]) == 0
    (path,) = folder.glob("construction-*.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def test_writes_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path)
    assert [problem["name"] for problem in result["problems"]] == ["one", "two"]
    assert result["complete"] is True
    assert result["settings"] == {"turns": 1, "threads": torch.get_num_threads()}
    assert result["versions"]["DCLS"] == "0.1.1"
    for problem in result["problems"]:
        assert problem["candidate_ms"] > 0
        assert problem["ratio"] == pytest.approx(problem["baseline_ms"] / problem["candidate_ms"])
    printed = capsys.readouterr().out
    assert "one" in printed
    assert "all 3 layers" in printed


def test_totals_count_every_layer(tmp_path: Path) -> None:
    result = run(tmp_path)
    one, two = result["problems"]
    assert result["total"]["layers"] == 3
    for key in ("candidate_saved_bytes", "baseline_saved_bytes", "candidate_ms", "baseline_ms"):
        assert result["total"][key] == pytest.approx(2 * one[key] + two[key])


def test_saved_bytes_of_dcls_grow_with_kernel_times_elements(tmp_path: Path) -> None:
    one, two = run(tmp_path)["problems"]
    assert one["baseline_saved_bytes"] >= 2 * 4 * 2 * 5 * 5 * 3
    assert two["baseline_saved_bytes"] >= 2 * 4 * 4 * 7 * 7 * 3
    assert two["candidate_saved_bytes"] < two["baseline_saved_bytes"]


def test_part_of_the_problems_is_not_complete(tmp_path: Path) -> None:
    result = run(tmp_path, "--problem", "two")
    assert [problem["name"] for problem in result["problems"]] == ["two"]
    assert result["complete"] is False


def test_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert run(tmp_path, "--threads", "1")["settings"]["threads"] == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("load", "warned"), [(0.1, False), (2.5, True), (None, False)])
def test_a_busy_machine_is_recorded_and_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    load: float | None,
    warned: bool,
) -> None:
    monkeypatch.setattr(torchdcls_results, "load", lambda: load)
    assert run(tmp_path, "--problem", "one")["load"] == load
    assert ("The machine is busy" in capsys.readouterr().out) is warned


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["construction", "--list", "--out", str(tmp_path)]) == 0
    assert "two: 4 channels, 7x7, 3 elements, layers: 1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--turns", "0"], ["--problem", "three"], ["--turn", "3"]])
def test_bad_arguments(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["construction", "--out", str(tmp_path), *arguments])
    assert error.value.code == 2


def test_different_kernels_are_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = construction.construct_kernel
    monkeypatch.setattr(construction, "construct_kernel", lambda *arguments: right(*arguments) * (1 + 1e-9))
    assert main(["construction", "--turns", "1", "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
    assert "one: kernel of torchdcls and of DCLS differs" in capsys.readouterr().err


@pytest.mark.parametrize("index", [0, 1, 2])
def test_different_gradients_are_found(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    class Bent(torch.autograd.Function):
        """Changes nothing on the way forward, the gradient a little."""

        @staticmethod
        def forward(ctx: Any, input: torch.Tensor) -> torch.Tensor:
            return input.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * (1 + 1e-9)

    right = construction.construct_kernel

    def wrong(*arguments: Any) -> torch.Tensor:
        elements = list(arguments)
        elements[index] = Bent.apply(elements[index])
        return right(*elements)

    monkeypatch.setattr(construction, "construct_kernel", wrong)
    with pytest.raises(ParityError, match=f"gradient of {('weight', 'position', 'sigma')[index]}"):
        construction.verify(["one"])


def test_swapped_axes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = construction.construct_kernel

    def wrong(weight: torch.Tensor, position: torch.Tensor, *rest: Any) -> torch.Tensor:
        return right(weight, position.flip(0), *rest)

    monkeypatch.setattr(construction, "construct_kernel", wrong)
    with pytest.raises(ParityError, match="kernel"):
        construction.verify(["one"])


def test_nan_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = construction.construct_kernel
    monkeypatch.setattr(construction, "construct_kernel", lambda *arguments: right(*arguments) * float("nan"))
    with pytest.raises(ParityError):
        construction.verify(["one"])


def test_problems_are_the_stages_of_convnext_t(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    stages = list(construction.PROBLEMS.values())
    assert [(stage.channels, stage.layers) for stage in stages] == [(96, 3), (192, 3), (384, 9), (768, 3)]
    assert {(stage.dilated_kernel_size, stage.kernel_count) for stage in stages} == {((23, 23), 26)}
