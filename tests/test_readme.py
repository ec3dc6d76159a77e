"""The README's examples run, its tables are those of the result files, and its pictures are there."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS
from benchmarks.tables import update

README = Path(__file__).parents[1] / "README.md"


def test_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, as a reader would."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "kernel (1, 8, 17, 17), Dcls2d(8, 1, kernel_count=16" in printed
    assert "18 layers replaced, 4 convolutions skipped, 26 elements per kernel" in printed
    assert "28,589,128 before, 28,586,536 after" in printed


def test_the_first_example_has_twelve_lines_and_learns() -> None:
    (block, *_) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 12
    names: dict[str, Any] = {}
    exec(compile(block, README.name, "exec"), names)
    assert names["loss"].item() < 0.6


def test_tables_are_fresh() -> None:
    assert update(README.read_text(encoding="utf-8"), RESULTS)[1] == []


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) == 7
    assert all((README.parent / picture).is_file() for picture in pictures)
