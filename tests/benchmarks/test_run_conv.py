"""The benchmarks of layers and of the model, from their command to their file, on sizes small enough to be quick."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases import CPU_METHODS

from benchmarks import conv, model, pictures
from benchmarks.conv import Layer, auto_summary
from benchmarks.run import main
from benchmarks.shapes import Shape
from benchmarks.timing import ParityError

pytest.importorskip("DCLS")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {
        "stage": Layer(2, 6, 5, 1),
        "inference": Layer(2, 6, 5, 1, training=False, channels_last=False),
        "larger kernel": Layer(2, 6, 7, 1, against=5, by_torch=False),
        "sound": Shape(1, 2, 2, 2, (40,), (9,), False),
    }
    monkeypatch.setattr(conv, "PROBLEMS", {**layers, "auto": "random shapes", "kernel sizes": "sizes"})
    monkeypatch.setattr(conv, "draw_shapes", lambda *_: [Shape(1, 2, 2, 2, (9,), (5,), False)])
    monkeypatch.setattr(conv, "SIZES", (3, 5))
    monkeypatch.setattr(model, "PIXELS", 32)
    monkeypatch.setattr(model, "PROBLEMS", {"training": model.ModelProblem("training step", 2, "DCLS")})


def run(benchmark: str, folder: Path) -> dict[str, Any]:
    assert main([benchmark, "--turns", "1", "--out", str(folder)]) == 0
    (path,) = folder.glob(f"{benchmark}-*.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def test_layers(tmp_path: Path) -> None:
    result = run("conv", tmp_path)
    assert [entry["name"] for entry in result["comparisons"]] == ["stage", "inference", "larger kernel", "sound"]
    assert all(entry["candidate_ms"] > 0 for entry in result["comparisons"])
    (entry,) = result["auto"]
    methods = {"torch", *CPU_METHODS}
    assert set(entry["ms"]) == methods
    assert [set(entry["ms"]) >= methods for entry in result["sizes"]] == [True, True]
    assert len(conv.rows(result)) == 5
    assert "On 1 random shapes" in conv.note(result)
    pictures.draw_speed(result, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = conv.large_kernel_conv
    monkeypatch.setattr(conv, "large_kernel_conv", lambda *args, **options: right(*args, **options) * 1.001)
    with pytest.raises(ParityError, match="output differs"):
        conv.verify([])
    assert main(["conv", "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())


def test_wrong_delays_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DCLS's triangles are no Gaussians."""
    from DCLS.construct.modules import Dcls1d

    conv.verify(["delays"])
    ours, _ = conv._delay_layers(4)
    triangles = Dcls1d(4, 4, 1, dilated_kernel_size=31, bias=False, version="max")
    monkeypatch.setattr(conv, "_delay_layers", lambda _: (ours, triangles))
    with pytest.raises(ParityError, match="delays: output differs"):
        conv.verify(["delays"])


def test_auto_is_held_against_the_best_of_each_shape() -> None:
    entries = [
        {"ms": {"torch": [4.0, 4.0, 9.0], "direct": [3.0], "fft": [2.0], "auto": [3.0]}},
        {"ms": {"torch": [1.0], "direct": [1.0], "fft": [2.0], "auto": [1.1]}},
    ]
    summary = auto_summary(entries)
    assert summary["within"] == 0.5
    assert summary["worst"] == 1.5
    assert summary["worst_against_torch"] == 1.1
    assert summary["slower_than_torch"] == 1


def test_models_agree_and_are_timed(tmp_path: Path) -> None:
    result = run("model", tmp_path)
    (entry,) = result["problems"]
    assert entry["problem"] == "training step, batch 2, against DCLS"
    assert entry["ratio"] == pytest.approx(entry["baseline_ms"] / entry["candidate_ms"])
    assert len(model.rows(result)) == 2
