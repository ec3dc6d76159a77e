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


def write(found: Sequence[Results], docs: Path) -> list[Path]:
    """Writes page and pictures, those that are stale; nothing where no study is published."""
    written = []
    for results in found:
        if stale_pictures(results, docs):
            written += draw_study(results, docs / IMAGES, _prefix(results))
    if stale_page(found, docs):
        docs.mkdir(parents=True, exist_ok=True)
        written.append(docs / PAGE)
        written[-1].write_text(page(found), encoding="utf-8")
    return written


def stale(found: Sequence[Results], docs: Path) -> list[str]:
    """Names of the files that are not what the records give."""
    names = [PAGE] if stale_page(found, docs) else []
    return names + [f"{IMAGES}/{name}" for results in found for name in stale_pictures(results, docs)]


def stale_page(found: Sequence[Results], docs: Path) -> bool:
    """Whether the page differs from what the records give; without published studies nothing is said of it."""
    if not found:
        return False
    file = docs / PAGE
    return not file.is_file() or file.read_text(encoding="utf-8") != page(found)


def stale_pictures(results: Results, docs: Path) -> list[str]:
    """Names of the pictures that are missing or drawn from other records; each carries a hash of its own."""
    from PIL import Image

    names = []
    expected = digest(results)
    for name in (f"{_prefix(results)}{name}.png" for name in picture_names(results)):
        path = docs / IMAGES / name
        carried = None
        if path.is_file():
            with Image.open(path) as picture:
                carried = picture.info.get("Description")
        if carried != expected:
            names.append(name)
    return names


def _accuracy_picture(results: Results) -> str:
    if "accuracy" not in picture_names(results):
        return ""
    path = f"docs/{IMAGES}/{_prefix(results)}accuracy.png"
    return f"\n\n![Study {results.study.name}: test accuracy and paired differences]({path})"


def _prefix(results: Results) -> str:
    return f"study-{results.study.name}-"
