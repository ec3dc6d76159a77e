"""A finished comparison goes into the repository whole; anything else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evidence
from benchmarks.publish import PICTURES, publish


def pictures(benchmark: str, data: str) -> dict[str, str]:
    if benchmark != "comparison":
        return PICTURES[benchmark]
    return {name: evidence.picture(data, name) for name in evidence.PICTURES}


def make_run(folder: Path, status: str, benchmark: str = "comparison", data: str = "mine") -> dict[str, Any]:
    folder.mkdir()
    machine = {"cpu": "AMD EPYC", "cores": 2}
    result = {"benchmark": benchmark, "commit": "0123456789ab", "dirty": False, "machine": machine, "status": status}
    result["data"] = {"name": data}
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "table.md").write_text("| method |\n\n- words.\n")
    for name in pictures(benchmark, data):
        (folder / name).write_bytes(name.encode())
    return result | {"table": "| method |\n\n- words."}


@pytest.mark.parametrize("benchmark", ["comparison", "digits"])
def test_finished_run(tmp_path: Path, benchmark: str) -> None:
    result = make_run(tmp_path / "run", "finished", benchmark)
    path = publish(tmp_path / "run", tmp_path / "results", tmp_path / "images")
    name = "comparison-mine" if benchmark == "comparison" else benchmark
    assert path.name == f"{name}-amd-epyc-2-cores-0123456789.json"
    assert json.loads(path.read_text()) == result
    assert {file.name: file.read_bytes() for file in (tmp_path / "images").iterdir()} == {
        published: name.encode() for name, published in pictures(benchmark, "mine").items()
    }


def test_a_comparison_on_other_data_replaces_nothing(tmp_path: Path) -> None:
    for data in ("mine", "cifar10"):
        make_run(tmp_path / data, "finished", data=data)
        publish(tmp_path / data, tmp_path / "results", tmp_path / "images")
    assert len(list((tmp_path / "results").iterdir())) == 2
    assert len(list((tmp_path / "images").iterdir())) == 2 * len(evidence.PICTURES)


def test_no_picture_takes_the_place_of_another_comparisons() -> None:
    names = [published for made in PICTURES.values() for published in made.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("status", ["interrupted", "running", None])
def test_unfinished_run(tmp_path: Path, status: str | None) -> None:
    if status is not None:
        make_run(tmp_path / "run", status)
    with pytest.raises(ValueError, match=f"expected the folder of a finished comparison, got '.*run' .{status}"):
        publish(tmp_path / "run", tmp_path / "results", tmp_path / "images")
    assert not (tmp_path / "images").exists()
