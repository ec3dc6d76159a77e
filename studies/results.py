"""The numbers of a study's page and pictures, out of its records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from .cells import make_cell
from .config import BASELINE, LEARNED, Candidate, Method, Start, Sweeps
from .differences import Difference, paired_difference
from .plan import Planned, Sweep, choose, plan, remaining, swept, tuning_score
from .records import Study

Line = Mapping[str, Any]
# The method that the papers found best, and what a reader asks of it beyond 7x7: the interpolation before it, and the
# controls.
LEADER: Method = "gaussian"
RIVALS: tuple[Method, ...] = ("bilinear", "dense", "dilated", "frozen")


@dataclass(frozen=True)
class Final:
    """What the final cells of one model and method came to.

    Args:
        model: The model.
        method: The method.
        choice: Its settings, by the validation images; None while they are not chosen.
        lines: Its finished cells by seed, also those that broke off.
    """

    model: str
    method: Method
    choice: Candidate | None
    lines: Mapping[int, Line]

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by seed. Unit: percent."""
        return {seed: line["test"]["accuracy"] for seed, line in self.lines.items() if line["failure"] is None}

    @property
    def whole(self) -> Line | None:
        """One of the lines; what it says of the model is the same in all."""
        return next(iter(self.lines.values()), None)

    @property
    def images_per_second(self) -> float | None:
        """Median of the cells' medians."""
        speeds = [line["images_per_second"] for line in self.lines.values() if line["images_per_second"] is not None]
        return median(speeds) if speeds else None

    @property
    def late_gain(self) -> float | None:
        """How much the validation accuracy rose over the last of the epochs, `late_epochs` of them, on average."""
        gains = []
        for line in self.lines.values():
            curve = [epoch["accuracy"] for epoch in line["epochs"]]
            if line["failure"] is None and (late := late_epochs(len(curve))):
                gains.append(curve[-1] - curve[-1 - late])
        return mean(gains) if gains else None


@dataclass(frozen=True)
class Comparison:
    """One method against another with the same model; `difference` is None before two seeds have both."""

    model: str
    method: Method
    other: Method
    difference: Difference | None


@dataclass(frozen=True)
class SweepPoint:
    """What the cells at one value of a sweep came to.

    Args:
        model: The model.
        method: The method.
        value: Where on the sweep.
        accuracies: On the validation images, by seed. Unit: percent.
        parameters: Of the model.
        kernel_count: Elements per kernel.
        ms_per_image: Time of training, median of the seeds.
    """

    model: str
    method: Method
    value: Start
    accuracies: Sequence[float]
    parameters: int
    kernel_count: int
    ms_per_image: float


@dataclass(frozen=True)
class Tuned:
    """What a candidate came to.

    Args:
        model: The model.
        method: The method.
        candidate: Its settings.
        accuracy: On the validation images, mean of the tuning's seeds; None before all are finished. Unit: percent.
        chosen: Whether it was chosen.
        like_another: Whether one before it came to the same accuracy and loss, as if it were the same model.
    """

    model: str
    method: Method
    candidate: Candidate
    accuracy: float | None
    chosen: bool
    like_another: bool


def late_epochs(epochs: int) -> int:
    """How many epochs are the last quarter."""
    return epochs // 4


def finals(study: Study) -> list[Final]:
    """All models and methods in the order of the settings, also those without a finished cell."""
    cells: dict[tuple[str, Method], list[Planned]] = {}
    for entry in plan(study.config, study.place, study.lines):
        if entry.phase == "final":
            cells.setdefault((entry.model, entry.method), []).append(entry)
    return [
        Final(
            model,
            method,
            choose(study.config, study.place, study.lines, model, method),
            {
                entry.cell.seed: study.lines[entry.cell.id]
                for entry in entries
                if entry.cell is not None and entry.cell.id in study.lines
            },
        )
        for (model, method), entries in cells.items()
    ]


def comparisons(study: Study) -> list[Comparison]:
    """Every method against the baseline, then the leader against its rivals, for each model.

    What the intervals are corrected for is their number in the whole study, finished or not.
    """
    accuracies = {(final.model, final.method): final.accuracies for final in finals(study)}
    methods = study.config.methods
    pairs = [(method, BASELINE) for method in methods if method != BASELINE]
    if LEADER in methods:
        pairs += [(LEADER, rival) for rival in RIVALS if rival in methods]
    asked = [(model, method, other) for model in study.config.models for method, other in pairs]
    return [
        Comparison(
            model,
            method,
            other,
            paired_difference(accuracies[model, method], accuracies[model, other], len(asked)),
        )
        for model, method, other in asked
    ]


def tuned(study: Study) -> list[Tuned]:
    """Each candidate of each model and method."""
    rows = []
    for final in finals(study):
        scores = [
            (candidate, tuning_score(study.config, study.place, study.lines, final.model, final.method, candidate))
            for candidate in study.config.candidates(final.method)
        ]
        for number, (candidate, score) in enumerate(scores):
            like = any(_alike(score, other) for _, other in scores[:number])
            accuracy = None if score is None else score[0]
            rows.append(Tuned(final.model, final.method, candidate, accuracy, candidate == final.choice, like))
    return rows


def sweep_points(study: Study, sweep: Sweep) -> list[SweepPoint]:
    """The points of a sweep, in the order of the settings; none before each of them has a finished cell."""
    sweeps = study.config.sweeps
    # By cell, for two sweeps may plan the same one.
    found: dict[tuple[str, Method, Start], dict[str, Line]] = {}
    for entry in plan(study.config, study.place, study.lines):
        line = None if entry.cell is None else study.lines.get(entry.cell.id)
        if line is not None and line["failure"] is None:
            value = _value_on(sweep, entry, line, sweeps)
            if value is not None:
                found.setdefault((entry.model, entry.method, value), {})[line["id"]] = line
    values = swept(study.config, sweep)
    lines_drawn = len(sweeps.models or study.config.models) * len(sweeps.methods)
    if not values or sum(value in values for _, _, value in found) < lines_drawn * len(values):
        return []
    order = {
        (model, method): number
        for number, (model, method) in enumerate((m, n) for m in study.config.models for n in study.config.methods)
    }
    points = [
        SweepPoint(
            model,
            method,
            value,
            [line["validation"]["accuracy"] for line in lines],
            lines[0]["parameters"],
            lines[0]["kernel_count"],
            1000 / median(line["images_per_second"] for line in lines),
        )
        for (model, method, value), lines in ((key, list(lines.values())) for key, lines in found.items())
    ]
    # Seeds come first in the plan; a point's place in it is that of its first seed. Counts come from several sweeps.
    return sorted(
        points,
        key=lambda point: (
            order.get((point.model, point.method), len(order)),
            float(point.value) if sweep == "kernel count" else 0.0,
        ),
    )


def _value_on(sweep: Sweep, entry: Planned, line: Line, sweeps: Sweeps) -> Start | None:
    # What the other sweeps keep, as many elements as 7x7's parameters allow, lies on the sweep over their number.
    if entry.phase == sweep:
        return entry.value
    kept: dict[str, Start] = {"kernel size": sweeps.kernel_size, "start": sweeps.start}
    if sweep == "kernel count" and entry.phase in kept and entry.value == kept[entry.phase]:
        return int(line["kernel_count"])
    return None


def sweep_baseline(study: Study, model: str) -> Line | None:
    """The baseline's training with a seed of the sweeps and all else as in them, or None where there is none."""
    config = study.config
    settings = Candidate(float(config.lr), float(config.weight_decay), None, None)
    for seed in config.sweeps.seeds:
        cell = make_cell(
            config,
            study.place,
            model=model,
            method=BASELINE,
            candidate=settings,
            seed=seed,
            epochs=config.sweeps.epochs,
        )
        line = study.lines.get(cell.id)
        if line is not None and line["failure"] is None:
            return line
    return None


def _alike(score: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    # To three digits of the loss; of what broke off there is none.
    if score is None or other is None or not math.isfinite(score[1]):
        return False
    return score[0] == other[0] and math.isclose(score[1], other[1], rel_tol=1e-3)


def standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy, by the number of images that it was measured on. Unit: percentage points."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def used_ids(study: Study) -> list[str]:
    """The finished cells that belong to the study, in the order of the plan, each once."""
    planned = plan(study.config, study.place, study.lines)
    ids = {entry.cell.id: None for entry in planned if entry.cell is not None and entry.cell.id in study.lines}
    return list(ids)


def progress(study: Study) -> tuple[int, int]:
    """Planned cells that are finished, and all, each counted once."""
    done = len(used_ids(study))
    return done, done + len(remaining(plan(study.config, study.place, study.lines), study.lines))


def shown(comparison: Comparison) -> str:
    """A sentence: what was shown of this comparison, and what was not."""
    method, other, found = comparison.method, comparison.other, comparison.difference
    if found is None:
        return f"{method} against {other}: not finished, nothing is shown."
    low, high = found.interval
    numbers = (
        f"{method} against {other}: {found.mean:+.2f} points over {found.pairs} seeds "
        f"(95 % interval {low:+.2f} to {high:+.2f}, corrected {found.corrected[0]:+.2f} to {found.corrected[1]:+.2f})"
    )
    words = {
        "better": "it is better, shown after correction for all comparisons.",
        "worse": "it is worse, shown after correction for all comparisons.",
        "hinted better": "taken by itself it would be better; after correction for all comparisons that is not shown.",
        "hinted worse": "taken by itself it would be worse; after correction for all comparisons that is not shown.",
        "no difference shown": "no difference is shown; by the corrected interval a gain of more than "
        f"{max(found.corrected[1], 0):.2f} points and a loss of more than {max(-found.corrected[0], 0):.2f} are "
        "unlikely.",
        "no conclusion": "all seeds differ by the same, which gives no interval and no conclusion.",
    }
    return f"{numbers}: {words[found.verdict]}"


__all__ = [
    "BASELINE",
    "LEADER",
    "LEARNED",
    "RIVALS",
    "Comparison",
    "Final",
    "SweepPoint",
    "Tuned",
    "comparisons",
    "finals",
    "late_epochs",
    "progress",
    "shown",
    "standard_error",
    "sweep_baseline",
    "sweep_points",
    "tuned",
    "used_ids",
]
