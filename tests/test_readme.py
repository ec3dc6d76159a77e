"""The README's examples run, its tables are those of the result files, and its pictures are there."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS
from benchmarks.tables import update

README = Path(__file__).parents[1] / "README.md"


BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
# What some of them print.
PRINTED = {
    0: "kernel (1, 8, 17, 17), Dcls2d(8, 1, kernel_count=16",
    1: "torch.Size([1, 8, 55, 56])",
    2: "28,589,128 before, 28,586,536 after",
}


def run_alone(number: int, folder: Path) -> dict[str, Any]:
    """Runs a block as a reader does who has pasted it into a new file; returns its names."""
    file = folder / f"block_{number}.py"
    file.write_text(BLOCKS[number], encoding="utf-8")
    return runpy.run_path(str(file))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_example_runs_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_alone(number, tmp_path)
    assert PRINTED.get(number, "") in capsys.readouterr().out


def test_the_first_example_has_twelve_lines_and_learns(tmp_path: Path) -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line]) == 12
    assert run_alone(0, tmp_path)["loss"].item() < 0.6


def test_examples_are_found() -> None:
    assert len(BLOCKS) == 7


def test_tables_are_fresh() -> None:
    assert update(README.read_text(encoding="utf-8"), RESULTS)[1] == []


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) == 7
    assert all((README.parent / picture).is_file() for picture in pictures)
