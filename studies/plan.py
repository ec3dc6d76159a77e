"""The cells of a study in the order in which they are trained, and the choice between tuning and final cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from .cells import Cell, Place, make_cell
from .config import PLACED, Candidate, Method, Start, StudyConfig

Phase = Literal["tune", "final", "kernel size", "kernel count", "start"]
Sweep = Literal["kernel size", "kernel count", "start"]
SWEEPS: tuple[Sweep, ...] = ("kernel size", "kernel count", "start")
Lines = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Planned:
    """A cell and what it is for. Two phases may plan the same cell, which is trained once.

    Args:
        phase: What it is for.
        model: Its model.
        method: Its method.
        epochs: Its epochs.
        cell: The cell, or None for a final one whose settings are not chosen yet.
        value: What a sweep goes over; None in other phases.
    """

    phase: Phase
    model: str
    method: Method
    epochs: int
    cell: Cell | None
    value: Start | None = None


def plan(config: StudyConfig, place: Place, lines: Lines) -> list[Planned]:
    """All cells, in the order in which they are trained.

    Seeds are the outermost loop of each phase, so that what is there after an interruption is paired.

    Args:
        config: Settings.
        place: Where cells are trained.
        lines: Finished cells by their ids.
    """
    planned = []
    for seed in config.tuning.seeds:
        for model in config.models:
            for method in config.methods:
                candidates = config.candidates(method)
                # Where nothing else could be chosen there is nothing to find out.
                for candidate in candidates if len(candidates) > 1 else ():
                    cell = _tuning_cell(config, place, model, method, candidate, seed)
                    planned.append(Planned("tune", model, method, cell.epochs, cell))
    choices = {
        (model, method): choose(config, place, lines, model, method)
        for model in config.models
        for method in config.methods
    }
    for seed in config.seeds:
        for (model, method), choice in choices.items():
            final = None
            if choice is not None:
                final = make_cell(config, place, model=model, method=method, candidate=choice, seed=seed, test=True)
            planned.append(Planned("final", model, method, config.epochs, final))
    return planned + _sweeps(config, place)


def choose(config: StudyConfig, place: Place, lines: Lines, model: str, method: Method) -> Candidate | None:
    """The candidate with the best mean accuracy on the validation images, or None while some are not finished.

    Of equal ones that with the smaller loss, then the first. A training that failed counts as 0 %. A candidate without
    others is chosen untrained.
    """
    scores = []
    candidates = config.candidates(method)
    if len(candidates) == 1:
        return candidates[0]
    for candidate in candidates:
        score = tuning_score(config, place, lines, model, method, candidate)
        if score is None:
            return None
        scores.append((score, candidate))
    # max takes the first of equals.
    return max(scores, key=lambda scored: (scored[0][0], -scored[0][1]))[1]


def tuning_score(
    config: StudyConfig, place: Place, lines: Lines, model: str, method: Method, candidate: Candidate
) -> tuple[float, float] | None:
    """Mean accuracy and loss of a candidate over the tuning seeds, or None while some are not finished."""
    scores = []
    for seed in config.tuning.seeds:
        line = lines.get(_tuning_cell(config, place, model, method, candidate, seed).id)
        if line is None:
            return None
        failed = line["failure"] is not None
        scores.append((0.0, float("inf")) if failed else (line["validation"]["accuracy"], line["validation"]["loss"]))
    return mean(score[0] for score in scores), mean(score[1] for score in scores)


def remaining(planned: list[Planned], lines: Lines) -> list[Planned]:
    """What is still to be trained, each cell once."""
    seen: set[str] = set()
    left = []
    for entry in planned:
        if entry.cell is None:
            left.append(entry)
        elif entry.cell.id not in lines and entry.cell.id not in seen:
            seen.add(entry.cell.id)
            left.append(entry)
    return left


def swept(config: StudyConfig, sweep: Sweep) -> tuple[Start, ...]:
    """The values that a sweep goes over."""
    sweeps = config.sweeps
    values: dict[Sweep, tuple[Start, ...]] = {
        "kernel size": tuple(sweeps.kernel_sizes),
        "kernel count": tuple(sweeps.kernel_counts),
        "start": tuple(sweeps.starts),
    }
    return values[sweep]


def _tuning_cell(
    config: StudyConfig, place: Place, model: str, method: Method, candidate: Candidate, seed: int
) -> Cell:
    epochs = config.tuning.epochs
    return make_cell(config, place, model=model, method=method, candidate=candidate, seed=seed, epochs=epochs)


def _sweeps(config: StudyConfig, place: Place) -> list[Planned]:
    sweeps, planned = config.sweeps, []
    for sweep in SWEEPS:
        for seed in sweeps.seeds:
            for value in swept(config, sweep):
                for model in sweeps.models or config.models:
                    for method in sweeps.methods:
                        assert method in PLACED
                        size = int(value) if sweep == "kernel size" else sweeps.kernel_size
                        start = value if sweep == "start" else sweeps.start
                        cell = make_cell(
                            config,
                            place,
                            model=model,
                            method=method,
                            candidate=Candidate(
                                float(config.lr),
                                float(config.weight_decay),
                                size,
                                start if start == "whole" else float(start),
                            ),
                            seed=seed,
                            epochs=sweeps.epochs,
                            kernel_count=int(value) if sweep == "kernel count" else None,
                        )
                        planned.append(Planned(sweep, model, method, cell.epochs, cell, value))
    return planned
