"""The README is short, its first example has twelve lines and learns, and its pictures and links are there."""

import re
from pathlib import Path

from pages import ROOT, blocks, run_blocks

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_has_at_most_150_lines() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_the_first_example_has_twelve_lines_and_learns(tmp_path: Path) -> None:
    first = blocks(README, "python")[:1]
    assert len([line for line in first[0].splitlines() if line]) == 12
    assert run_blocks(first, tmp_path)["loss"].item() < 0.6


def test_pictures_and_links_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT)
    local = [target for target in targets if not target.startswith("https://")]
    assert len(local) > 20
    assert [target for target in local if not (ROOT / target).is_file()] == []
