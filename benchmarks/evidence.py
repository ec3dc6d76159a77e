"""What comparisons and studies have found, as pages and the README tell it from their records."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.conclusions import counted
from studies.config import BASELINE, LEARNED
from studies.results import Results

Result = Mapping[str, Any]

_EMBEDDED = "fashion-mnist-subset"
# What a comparison on some data is for, and how a reader gets these.
_ASKED = {
    _EMBEDDED: "Gray images of clothes, which come with the package.",
    "cifar10-part": (
        "Color images of animals and vehicles: does a larger kernel help more where images have more to see? The run "
        "read a folder with 10,000 training images of CIFAR-10, 1,000 of each class, and all its test images. "
        "`torchdcls compare images --data cifar10 --train-images 10000 --epochs 8 --seeds 6 --methods 7x7 bilinear "
        "gaussian` downloads CIFAR-10 and takes as many of each class. It trains on them in another order: expect "
        "accuracies that differ as those of another seed do."
    ),
}
PICTURES = {
    "accuracy.png": "Test accuracy by epoch",
    "positions.png": "Where elements started and where they ended",
    "kernels.png": "Some of the dense kernels after training",
}


def newest_comparisons(results: Path) -> list[Result]:
    """The newest finished comparison on each data set, which is known by its name; the embedded images first."""
    found: dict[str, Result] = {}
    for path in results.glob("comparison-*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        name = result["data"]["name"]
        if result["complete"] and (name not in found or result["date"] > found[name]["date"]):
            found[name] = result
    return sorted(found.values(), key=lambda result: (result["data"]["name"] != _EMBEDDED, result["data"]["name"]))


def picture(data: str, name: str) -> str:
    """What the page calls a picture of the comparison on some data."""
    return f"compare-{data}-{name}"


def comparison_section(result: Result, caption: str) -> str:
    """A comparison on images: what was asked, the conclusion, the table, the pictures."""
    data, table = result["data"]["name"], result["table"]
    parts = [f"### On {data}", *([_ASKED[data]] if data in _ASKED else [])]
    if conclusion := _conclusion(result):
        parts.append(f"**{conclusion}**")
        table = table.replace(f"- {conclusion}\n", "")
    pictures = [f"![{title}](images/{picture(data, name)})" for name, title in PICTURES.items()]
    return "\n\n".join([*parts, table, caption, *pictures])


def evidence(positions: Result | None, comparisons: Sequence[Result], found: Sequence[Results]) -> str:
    """The README's list: how many taps elements find, and which gains over 7x7 layers were significant.

    Args:
        positions: The newest comparison of positions, if there is one.
        comparisons: The newest ones on images.
        found: The studies.
    """
    told = []
    if positions is not None:
        # The first points say the range for each input.
        ranges = " ".join(_points(positions)[: len(positions["config"]["inputs"])])
        told.append(f"**Elements look for known taps** (`torchdcls compare positions`). {ranges}")
    for result in comparisons:
        if conclusion := _conclusion(result):
            config, data = result["config"], result["data"]
            told.append(
                f"**Networks on {data['name']}** (`torchdcls compare images`, {config['model']}, "
                f"{data['train_images']:,} training images, {counted(config['epochs'], 'epoch')}, {config['seeds']} "
                f"seeds). {conclusion}"
            )
    return "\n".join(f"- {line}" for line in [*told, *map(_study, found)])


def _conclusion(result: Result) -> str:
    # Of several seeds, the first point says what can be concluded.
    points = _points(result)
    return points[0] if points and " significant" in points[0] else ""


def _points(result: Result) -> list[str]:
    return [line[2:] for line in result["table"].splitlines() if line.startswith("- ")]


def _study(results: Results) -> str:
    config, data = results.study.config, results.study.data
    gains = [
        it.difference
        for it in results.comparisons
        if it.method in LEARNED and it.other == BASELINE and it.difference is not None
    ]
    pairs = [it.pairs for it in gains]
    seeds = " to ".join(map(str, dict.fromkeys((min(pairs), max(pairs))))) if pairs else "fewer than 2"
    done, left = len(results.schedule.used), len(results.schedule.left)
    setting = (
        f"**Study {results.study.name}** ({data.name}, {data.training_images:,} training images, "
        f"{counted(config.epochs, 'epoch')}, {seeds} seeds"
        f"{f'; {done} of {done + left} runs, not complete' if left else ''})"
    )
    if not gains:
        return f"{setting}. No difference is known yet."
    better, worse = (sum(it.verdict == verdict for it in gains) for verdict in ("better", "worse"))
    means = [it.mean for it in gains]
    limits = [(it.corrected[1] - it.corrected[0]) / 2 for it in gains]
    return (
        f"{setting}. DCLS differs from {BASELINE} by {min(means):+.2f} to {max(means):+.2f} points: {better or 'no'} "
        f"significant {'gain' if better < 2 else 'gains'} and {worse or 'no'} {'loss' if worse < 2 else 'losses'} in "
        f"{counted(len(gains), 'difference')}. Those below {min(limits):.1f} to {max(limits):.1f} points are below its "
        "resolution."
    )
