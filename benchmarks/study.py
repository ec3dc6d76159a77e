"""The page of published studies, its pictures and the README's paragraph, all of them out of `study-*.jsonl`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.conclusions import counted
from studies.config import BASELINE, LEARNED
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


def evidence(
    positions: Mapping[str, Any] | None, comparison: Mapping[str, Any] | None, found: Sequence[Results]
) -> str:
    """What the README says: how many taps elements find, and which gains over 7x7 layers were significant.

    Args:
        positions: The newest comparison of positions, if there is one.
        comparison: The newest one of images, if there is one.
        found: The studies.
    """
    told = []
    if positions is not None:
        told += _points(positions)[: len(positions["config"]["inputs"])]  # the first ones say the range for each input
    if comparison is not None:
        config = comparison["config"]
        setting = f"`torchdcls compare images` ({config['model']}, {config['epochs']} epochs, {config['seeds']} seeds)"
        # Of several seeds, the first says what can be concluded.
        told += [f"{setting}: {point}" for point in _points(comparison)[:1] if " significant" in point]
    return " ".join([*told, *map(_evidence, found)])


def _points(result: Mapping[str, Any]) -> list[str]:
    return [line[2:] for line in result["table"].splitlines() if line.startswith("- ")]


def _evidence(results: Results) -> str:
    config, data = results.study.config, results.study.data
    setting = (
        f"Study {results.study.name} ({data.name}, {data.training_images:,} training images, "
        f"{counted(config.epochs, 'epoch')}, {len(config.seeds)} seeds)"
    )
    gains = [
        it.difference
        for it in results.comparisons
        if it.method in LEARNED and it.other == BASELINE and it.difference is not None
    ]
    if not gains:
        return f"{setting}: not finished."
    better, worse = (sum(it.verdict == verdict for it in gains) for verdict in ("better", "worse"))
    means = [it.mean for it in gains]
    limits = [(it.corrected[1] - it.corrected[0]) / 2 for it in gains]
    compared = counted(len(results.comparisons), "comparison")
    gained = f"{better or 'No'} {'gains were' if better > 1 else 'gain was'}"
    lost = f"{worse or 'no'} {'losses were' if worse > 1 else 'loss was'}"
    return (
        f"{setting}: DCLS layers differ from {BASELINE} layers by {min(means):+.2f} to {max(means):+.2f} points. "
        f"{gained} significant at 5 % after Bonferroni correction over {compared}, and {lost}. "
        f"Effects below {min(limits):.1f} to {max(limits):.1f} points are below its resolution."
    )


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
