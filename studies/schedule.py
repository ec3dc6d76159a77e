"""The cells of a study in the order in which they are trained, and the choice between tuning and final cells."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import Literal

from .cells import Cell, Finished, FinishedCell, Platform, Score, make_cell
from .config import Candidate, Layers, Start, StudyConfig

Sweep = Literal["kernel size", "kernel count", "start"]
Phase = Literal["tune", "final"] | Sweep
SWEEPS: tuple[Sweep, ...] = ("kernel size", "kernel count", "start")


@dataclass(frozen=True)
class ScheduleEntry:
    """A cell and what it is for. Two phases may have the same cell, which is trained once."""

    phase: Phase
    model: str
    method: Layers
    epochs: int
    cell: Cell | None  # the cell, or None for a final one whose settings are not chosen yet
    value: Start | None = None  # what a sweep goes over; None in other phases


@dataclass(frozen=True)
class Tuned:
    """What a candidate came to."""

    model: str
    method: Layers
    candidate: Candidate
    score: Score | None  # on the validation images, mean of the tuning's seeds; None before all are finished
    chosen: bool
    like_another: bool  # whether one before it came to the same accuracy and loss, as if it were the same model


@dataclass(frozen=True)
class Schedule:
    """All cells of a study, and how far it is."""

    # The cells in the order in which they are trained. Seeds are the outermost loop of each phase, so that what is
    # there after an interruption is paired.
    entries: Sequence[ScheduleEntry]
    tuned: Sequence[Tuned]  # the candidates of each model and method
    finished: Finished  # all finished cells by their ids, also those of other settings
    used: Sequence[FinishedCell]  # the finished ones among the entries, each once
    left: Sequence[ScheduleEntry]  # what is still to be trained, each cell once

    @property
    def choices(self) -> Mapping[tuple[str, Layers], Candidate]:
        """The chosen settings of each model and method for which they are chosen."""
        return {(row.model, row.method): row.candidate for row in self.tuned if row.chosen}

    def of(self, entry: ScheduleEntry) -> FinishedCell | None:
        """What an entry came to, or None before it is finished."""
        return None if entry.cell is None else self.finished.get(entry.cell.id)


def make_schedule(config: StudyConfig, platform: Platform, finished: Finished) -> Schedule:
    """The schedule of a study, given its finished cells by their ids: they choose the settings of the final ones."""
    pairs = list(product(config.models, config.methods))
    tuned = [row for pair in pairs for row in _tuned(config, platform, finished, *pair)]
    choices = {(row.model, row.method): row.candidate for row in tuned if row.chosen}
    entries = []
    for seed, (model, method) in product(config.tuning.seeds, pairs):
        candidates = config.candidates(method)
        # Where nothing else could be chosen there is nothing to find out.
        for candidate in candidates if len(candidates) > 1 else ():
            cell = make_cell(config, platform, model, method, candidate, seed, epochs=config.tuning.epochs)
            entries.append(ScheduleEntry("tune", model, method, cell.epochs, cell))
    for seed, (model, method) in product(config.seeds, pairs):
        final = None
        if (choice := choices.get((model, method))) is not None:
            final = make_cell(config, platform, model, method, choice, seed, test=True)
        entries.append(ScheduleEntry("final", model, method, config.epochs, final))
    for sweep in SWEEPS:
        entries += _sweep(config, platform, sweep)
    used, left, seen = [], [], set()
    for entry in entries:
        if entry.cell is None:
            left.append(entry)
        elif entry.cell.id not in seen:
            seen.add(entry.cell.id)
            if (done := finished.get(entry.cell.id)) is None:
                left.append(entry)
            else:
                used.append(done)
    return Schedule(entries, tuned, finished, used, left)


def swept(config: StudyConfig, sweep: Sweep) -> Sequence[Start]:
    """The values that a sweep goes over."""
    sweeps = config.sweeps
    return {"kernel size": sweeps.kernel_sizes, "kernel count": sweeps.kernel_counts, "start": sweeps.starts}[sweep]


def _tuned(config: StudyConfig, platform: Platform, finished: Finished, model: str, method: Layers) -> list[Tuned]:
    """The candidates of a model and method.

    Chosen is the one with the best mean accuracy on the validation images when all are finished; of equal ones that
    with the smaller loss, then the first. A candidate without others is chosen untrained.
    """
    candidates, scores = config.candidates(method), []
    for candidate in candidates:
        cells = [
            make_cell(config, platform, model, method, candidate, seed, epochs=config.tuning.epochs)
            for seed in config.tuning.seeds
        ]
        scores.append(_mean_score([finished.get(cell.id) for cell in cells]))
    known = [(score.accuracy, -score.loss, -number) for number, score in enumerate(scores) if score is not None]
    all_known = len(known) == len(candidates)
    best = 0 if len(candidates) == 1 else -max(known)[2] if all_known else None
    return [
        Tuned(model, method, candidate, score, number == best, any(_alike(score, other) for other in scores[:number]))
        for number, (candidate, score) in enumerate(zip(candidates, scores, strict=True))
    ]


def _mean_score(cells: Sequence[FinishedCell | None]) -> Score | None:
    # A run that diverged counts as 0 %.
    failed = Score(float("inf"), 0.0)
    scores = [cell.validation or failed for cell in cells if cell is not None]
    if len(scores) < len(cells):
        return None
    return Score(mean(score.loss for score in scores), mean(score.accuracy for score in scores))


def _alike(score: Score | None, other: Score | None) -> bool:
    # To three digits of the loss; of what diverged there is none.
    if score is None or other is None or not math.isfinite(score.loss):
        return False
    return score.accuracy == other.accuracy and math.isclose(score.loss, other.loss, rel_tol=1e-3)


def _sweep(config: StudyConfig, platform: Platform, sweep: Sweep) -> Iterator[ScheduleEntry]:
    sweeps = config.sweeps
    models = sweeps.models or config.models
    for seed, value, model, method in product(sweeps.seeds, swept(config, sweep), models, sweeps.methods):
        start = value if sweep == "start" else sweeps.start
        candidate = Candidate(
            float(config.lr),
            float(config.weight_decay),
            kernel_size=int(value) if sweep == "kernel size" else sweeps.kernel_size,
            start=start if start == "whole" else float(start),
        )
        count = int(value) if sweep == "kernel count" else None
        cell = make_cell(config, platform, model, method, candidate, seed, epochs=sweeps.epochs, kernel_count=count)
        yield ScheduleEntry(sweep, model, method, cell.epochs, cell, value)
