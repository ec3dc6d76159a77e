"""The pages that people read, and the code in them."""

import re
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(page: Path) -> str:
    """How a test calls a page."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, all or those of a language, which is the first word behind the fence."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for words, text in found if language is None or words.split(" ")[0] == language]


def languages(page: Path) -> set[str]:
    """The languages of the blocks of a page, "" where a fence names none."""
    return set(re.findall(r"^```([^\n]*)\n.*?^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def run_blocks(code: list[str], folder: Path) -> dict[str, Any]:
    """Runs blocks one after the other, as a reader does who has pasted them into a new file; returns their names."""
    file = folder / "blocks.py"
    file.write_text("\n".join(code), encoding="utf-8")
    return runpy.run_path(str(file))
