"""The benchmark of kernel sizes from its command to its table."""

import json
from pathlib import Path

import pytest

from benchmarks import sizes
from benchmarks.run import main
from benchmarks.tables import TABLES
from benchmarks.timing import ParityError
from torchdcls.ops.conv import api
from torchdcls_train.comparison import small as comparison


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_DEPTHS", (2, 2, 2, 2))
    monkeypatch.setattr(sizes, "BATCH", 2)
    monkeypatch.setattr(sizes, "PIXELS", 12)
    monkeypatch.setattr(
        sizes, "PROBLEMS", {"g": sizes.SizeProblem("gaussian", 12), "b": sizes.SizeProblem("bilinear", 5)}
    )


def test_writes_a_result_and_its_table(tmp_path: Path) -> None:
    assert main(["sizes", "--turns", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("sizes-*.json")
    result = json.loads(path.read_text())
    assert [entry["name"] for entry in result["problems"]] == ["g", "b"] and result["complete"]
    for entry in result["problems"]:
        assert entry["ratio"] == pytest.approx(entry["baseline_ms"] / entry["candidate_ms"], rel=0.5)
    table = TABLES["sizes"](result)
    assert "| gaussian, 12x12, the whole map |" in table and "| bilinear, 5x5 |" in table
    assert "median of 2 turns" in table
    assert "benchmarks.run sizes --turns 2`" in table


def test_nothing_is_measured_where_methods_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = api._run
    monkeypatch.setattr(api, "_run", lambda *args: run(*args) * (1 if args[-1] == api.Plan.of_one("direct") else 2))
    monkeypatch.setattr(api.select, "choose", lambda *args: api.Plan.of_one("fft"))
    assert main(["sizes", "--turns", "1", "--out", str(tmp_path)]) == 1
    with pytest.raises(ParityError, match="gaussian, 12x12"):
        sizes.verify(["g"])
    assert not list(tmp_path.iterdir())
