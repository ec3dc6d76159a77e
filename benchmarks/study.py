"""The page of published studies, its pictures and the README's table, all of them out of `study-*.jsonl`."""

from collections.abc import Sequence
from pathlib import Path

from studies.page import page_text, summary_text
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
    """The page: one study after the other."""
    texts = [
        page_text(results, {name: f"{IMAGES}/{_prefix(results)}{name}.png" for name in picture_names(results)})
        for results in found
    ]
    names = [results.study.name for results in found]
    contents = ", ".join(f"[{name}](#study-{name})" for name in names)
    return "\n".join([f"{_HEAD}\n", f"Studies: {contents}.\n", *texts])


def table(found: Sequence[Results]) -> str:
    """What stands in the README."""
    texts = "\n\n".join(f"{summary_text(results)}{_accuracy_picture(results)}" for results in found)
    return f"{texts}\n\nAll of it, with pictures, sweeps, tuning and limits: [docs/{PAGE}](docs/{PAGE})."


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


def _accuracy_picture(results: Results) -> str:
    if "accuracy" not in picture_names(results):
        return ""
    path = f"docs/{IMAGES}/{_prefix(results)}accuracy.png"
    return f"\n\n![Study {results.study.name}: test accuracy and paired differences]({path})"


def _prefix(results: Results) -> str:
    return f"study-{results.study.name}-"
