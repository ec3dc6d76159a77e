"""The page of published studies and its pictures, out of `study-*.jsonl`."""

import re
from collections.abc import Sequence
from pathlib import Path

from studies.page import page_text
from studies.pictures import digest, draw_study, picture_names
from studies.records import read_published
from studies.results import Results, results_of

PAGE = "results.md"
IMAGES = "images"
_HEAD = "<!-- Made by `python -m benchmarks.tables` of benchmarks/results/study-*.jsonl: no figure is typed in. -->"


def studies(results: Path) -> list[Results]:
    """What the published studies came to, by name."""
    return [results_of(read_published(path)) for path in sorted(results.glob("study-*.jsonl"))]


def page(found: Sequence[Results]) -> str:
    """The page: one study after the other, a level below its title."""
    texts = [
        page_text(results, {name: f"{IMAGES}/{_prefix(results)}{name}.png" for name in picture_names(results)})
        for results in found
    ]
    names = [results.study.name for results in found]
    contents = ", ".join(f"[{name}](#study-{name})" for name in names)
    lowered = [re.sub("^#", "##", text, flags=re.MULTILINE) for text in texts]
    return "\n".join([f"{_HEAD}\n", f"# Studies\n\nStudies: {contents}.\n", *lowered])


def stale_pictures(found: Sequence[Results], docs: Path) -> list[tuple[Results, str]]:
    """Pictures that are missing or drawn from other records, by name; each carries a hash of its own."""
    from PIL import Image

    stale = []
    for results in found:
        expected = digest(results)
        for name in picture_names(results):
            path, carried = docs / IMAGES / f"{_prefix(results)}{name}.png", None
            if path.is_file():
                with Image.open(path) as picture:
                    carried = picture.info.get("Description")
            if carried != expected:
                stale.append((results, f"{IMAGES}/{path.name}"))
    return stale


def write_pictures(found: Sequence[Results], docs: Path) -> list[Path]:
    """Draws the pictures of the studies that have stale ones."""
    stale = {results.study.name: results for results, _ in stale_pictures(found, docs)}
    return [path for results in stale.values() for path in draw_study(results, docs / IMAGES, _prefix(results))]


def _prefix(results: Results) -> str:
    return f"study-{results.study.name}-"
