"""What comparisons, studies and campaigns have found, as pages and the README tell it from their records."""

import json
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
from torchdcls_results import markdown_table

Result = Mapping[str, Any]

_IMAGES = "images"
_STUDIES_HEAD = (
    "<!-- Made by `python -m benchmarks.tables` of benchmarks/results/study-*.jsonl: no figure is typed in. -->"
)
_CAMPAIGNS_HEAD = """\
# Campaigns

Random and forced cases, in numbers for which a test run has no time. Run them by hand and once a week:

    python -m tests.campaigns                          # all of them, full size
    python -m tests.campaigns values --cases 100       # a part of one
    python -m benchmarks.tables                        # this page from the newest full results

A fault is printed with all that is needed to repeat it, and the exit status is then 1.
"""

_EMBEDDED = "fashion-mnist-subset"
# The data of a comparison in words, what it is for, and how a reader gets them.
_ABOUT = {
    _EMBEDDED: ("6,000 images of Fashion-MNIST", "Gray images of clothes, which come with the package."),
    "cifar10-part": (
        "10,000 images of CIFAR-10",
        "Color images of animals and vehicles: does a larger kernel help more where images have more to see? The run "
        "read a folder with 10,000 training images of CIFAR-10, 1,000 of each class, and all its test images. "
        "`torchdcls compare images --data cifar10 --train-images 10000 --epochs 8 --seeds 6 --lr 0.02 --methods 7x7 "
        "bilinear gaussian` downloads CIFAR-10 and takes as many of each class. It trains on them in another order: "
        "expect accuracies that differ as those of another seed do.",
    ),
}
# How the learning rate of a comparison was chosen, if it was.
_TUNED = {
    "cifar10-part": "Of the learning rates 0.01, 0.02 and 0.04 it has the one that was best for 7x7 in a trial of two "
    "seeds",
}
PICTURES = {
    "accuracy.png": "Test accuracy by epoch",
    "positions.png": "Where elements started and where they ended",
    "kernels.png": "Some of the dense kernels after training",
}


def newest_comparisons(results: Path) -> list[Result]:
    """The newest finished comparison on each data set, with the older ones as "older"; the embedded images first."""
    found: dict[str, list[Result]] = {}
    for path in results.glob("comparison-*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["complete"]:
            found.setdefault(result["data"]["name"], []).append(result)
    newest: list[Result] = []
    for name in sorted(found, key=lambda name: (name != _EMBEDDED, name)):
        first, *older = sorted(found[name], key=lambda result: result["date"], reverse=True)
        newest.append({**first, "older": older})
    return newest


def picture(data: str, name: str) -> str:
    """What the page calls a picture of the comparison on some data."""
    return f"compare-{data}-{name}"


def comparison_section(result: Result, caption: str) -> str:
    """A comparison on images: what was asked, the conclusion, the table, the pictures."""
    data, table = result["data"]["name"], result["table"]
    title, about = _ABOUT.get(data, (data, ""))
    parts = [f"### On {title}", *([about] if about else [])]
    if conclusion := _conclusion(result):
        parts.append(f"**{conclusion}**")
        table = table.replace(f"- {conclusion}\n", "")
        parts.append(f"{_tuned(data)} ([limits](#limits-and-your-own-data)).")
    pictures = [f"![{title}](images/{picture(data, name)})" for name, title in PICTURES.items()]
    older = [_older(it) for it in result.get("older", [])]
    return "\n\n".join([*parts, table, *older, caption, *pictures])


def _older(result: Result) -> str:
    config = result["config"]
    return (
        f"An older run on these images ({result['date'][:10]}: {config['model']}, "
        f"{counted(config['epochs'], 'epoch')}, {counted(config['seeds'], 'seed')}, learning rate {config['lr']:g}) "
        f"differed from {BASELINE} by these "
        "points, with 95 % intervals that are not corrected for the number of comparisons: "
        f"{_differences(result, intervals=True)}."
    )


def evidence(positions: Result | None, comparisons: Sequence[Result], found: Sequence[Results]) -> str:
    """The README's list: how many taps elements find, and which gains over 7x7 layers were significant."""
    told = []
    if positions is not None:
        # The first points say the range for each input.
        ranges = " ".join(_points(positions)[: len(positions["config"]["inputs"])])
        told.append(f"**Elements look for known taps** (`torchdcls compare positions`). {ranges}")
    for result in comparisons:
        if conclusion := _conclusion(result):
            config, data = result["config"], result["data"]["name"]
            title, _ = _ABOUT.get(data, (data, ""))
            told.append(
                f"**Networks on {title}** (`torchdcls compare images`: {config['model']}, "
                f"{counted(config['epochs'], 'epoch')}, {config['seeds']} seeds). Against {BASELINE} at no more "
                f"parameters: {_differences(result)} points. {conclusion} {_tuned(data)}. Fixed "
                "positions were not compared."
            )
    return "\n".join(f"- {line}" for line in [*told, *map(_study, found)])


def _tuned(data: str) -> str:
    return _TUNED.get(data, "The learning rate was not tuned")


def _conclusion(result: Result) -> str:
    # Of several seeds, the first point says what can be concluded.
    points = _points(result)
    return points[0] if points and " significant" in points[0] else ""


def _differences(result: Result, intervals: bool = False) -> str:
    """The points of each method against the baseline."""
    pattern = r"(\S+): ([+-][\d.]+) points(?: against \S+, 95 % interval (\S+ to \S+))?"
    found = [it for point in _points(result) if (it := re.match(pattern, point))]
    return ", ".join(f"{it[1]} {it[2]}{f' ({it[3]})' if intervals else ''}" for it in found)


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


def studies(results: Path) -> list[Results]:
    """What the published studies came to, by name."""
    return [results_of(read_published(path)) for path in sorted(results.glob("study-*.jsonl"))]


def studies_page(found: Sequence[Results]) -> str:
    """The page: one study after the other, a level below its title."""
    texts = [
        page_text(results, {name: f"{_IMAGES}/{_prefix(results)}{name}.png" for name in picture_names(results)})
        for results in found
    ]
    names = [results.study.name for results in found]
    contents = ", ".join(f"[{name}](#study-{name})" for name in names)
    lowered = [re.sub("^#", "##", text, flags=re.MULTILINE) for text in texts]
    return "\n".join([f"{_STUDIES_HEAD}\n", f"# Studies\n\nStudies: {contents}.\n", *lowered])


def stale_pictures(found: Sequence[Results], docs: Path) -> list[tuple[Results, str]]:
    """Pictures that are missing or drawn from other records, by name; each carries a hash of its own."""
    from PIL import Image

    stale = []
    for results in found:
        expected = digest(results)
        for name in picture_names(results):
            path, carried = docs / _IMAGES / f"{_prefix(results)}{name}.png", None
            if path.is_file():
                with Image.open(path) as picture:
                    carried = picture.info.get("Description")
            if carried != expected:
                stale.append((results, f"{_IMAGES}/{path.name}"))
    return stale


def write_pictures(found: Sequence[Results], docs: Path) -> list[Path]:
    """Draws the pictures of the studies that have stale ones."""
    stale = {results.study.name: results for results, _ in stale_pictures(found, docs)}
    return [path for results in stale.values() for path in draw_study(results, docs / _IMAGES, _prefix(results))]


def _prefix(results: Results) -> str:
    return f"study-{results.study.name}-"


def campaigns_page(results: Sequence[tuple[Result, str]]) -> str:
    """The page of the newest result of each campaign, each with its caption."""
    return "\n".join([_CAMPAIGNS_HEAD, *(_campaign(result, caption) for result, caption in results)])


def _campaign(result: Result, caption: str) -> str:
    rows, worst = sorted(result["rows"], key=lambda row: row["kind"]), result["worst"]
    header = ["kind", "cases", "faults", *([worst] if worst else [])]
    table = [header]
    for row in rows:
        number = "-" if row["worst"] is None else f"{row['worst']:.3g}"
        table.append([row["kind"], f"{row['cases']:,}", str(row["faults"]), *([number] if worst else [])])
    cases, faults = (sum(row[name] for row in rows) for name in ("cases", "faults"))
    title = result["benchmark"].removeprefix("campaign-").capitalize()
    found = f"**{cases:,} cases, {faults} faults** in {result['seconds']:,} s."
    listed = "".join(f"- {fault}\n" for fault in result["faults"])
    parts = [f"## {title}", result["about"], found, listed.rstrip(), markdown_table(table), caption]
    return "\n\n".join(part for part in parts if part) + "\n"
