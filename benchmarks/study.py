"""The page of published studies, its pictures and the README's table, all of them out of `study-*.jsonl`."""

from collections.abc import Sequence
from pathlib import Path

from studies.page import page_text, summary_text
from studies.pictures import digest, draw_study, picture_names
from studies.records import Study, read_published

PAGE = "results.md"
IMAGES = "images"
_HEAD = "<!-- Made by `python -m benchmarks.tables` of benchmarks/results/study-*.jsonl: no figure is typed in. -->"


def studies(results: Path) -> list[Study]:
    """The published studies, by name."""
    return [read_published(path) for path in sorted(results.glob("study-*.jsonl"))]


def page(found: Sequence[Study]) -> str:
    """The page: one study after the other."""
    texts = [
        page_text(study, {name: f"{IMAGES}/{_prefix(study)}{name}.png" for name in picture_names(study)})
        for study in found
    ]
    contents = ", ".join(f"[{study.name}](#study-{study.name})" for study in found)
    return "\n".join([f"{_HEAD}\n", f"Studies: {contents}.\n", *texts])


def table(found: Sequence[Study]) -> str:
    """What stands in the README."""
    texts = "\n\n".join(f"{summary_text(study)}{_accuracy_picture(study)}" for study in found)
    return f"{texts}\n\nAll of it, with pictures, sweeps, tuning and limits: [docs/{PAGE}](docs/{PAGE})."


def write(found: Sequence[Study], docs: Path) -> list[Path]:
    """Writes page and pictures, those that are stale; nothing where no study is published."""
    written = []
    for study in found:
        if stale_pictures(study, docs):
            written += draw_study(study, docs / IMAGES, _prefix(study))
    if stale_page(found, docs):
        docs.mkdir(parents=True, exist_ok=True)
        written.append(docs / PAGE)
        written[-1].write_text(page(found), encoding="utf-8")
    return written


def stale(found: Sequence[Study], docs: Path) -> list[str]:
    """Names of the files that are not what the records give."""
    names = [PAGE] if stale_page(found, docs) else []
    return names + [f"{IMAGES}/{name}" for study in found for name in stale_pictures(study, docs)]


def stale_page(found: Sequence[Study], docs: Path) -> bool:
    """Whether the page differs from what the records give; without published studies nothing is said of it."""
    if not found:
        return False
    file = docs / PAGE
    return not file.is_file() or file.read_text(encoding="utf-8") != page(found)


def stale_pictures(study: Study, docs: Path) -> list[str]:
    """Names of the pictures that are missing or drawn from other records; each carries a hash of its own."""
    from PIL import Image

    names = []
    expected = digest(study)
    for name in (f"{_prefix(study)}{name}.png" for name in picture_names(study)):
        path = docs / IMAGES / name
        carried = None
        if path.is_file():
            with Image.open(path) as picture:
                carried = picture.info.get("Description")
        if carried != expected:
            names.append(name)
    return names


def _accuracy_picture(study: Study) -> str:
    if "accuracy" not in picture_names(study):
        return ""
    path = f"docs/{IMAGES}/{_prefix(study)}accuracy.png"
    return f"\n\n![Study {study.name}: test accuracy and paired differences]({path})"


def _prefix(study: Study) -> str:
    return f"study-{study.name}-"
