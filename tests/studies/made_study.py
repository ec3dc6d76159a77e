"""A study at toy size, and records of one that was never trained."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from studies.cells import Cell, FinishedCell, Platform, Score
from studies.config import StudyConfig
from studies.files import study_from
from studies.records import Data, Study
from studies.schedule import make_schedule
from torchdcls_train.comparison.training import Epoch

TOY: Mapping[str, Any] = {
    "models": ["convnext"],
    "data": "embedded",
    "image_size": 9,
    "train_images": 60,
    "validation_images": 20,
    "methods": ["7x7", "gaussian"],
    "seeds": [0, 1],
    "epochs": 1,
    "batch_size": 20,
    "device": "cpu",
    "threads": 1,
    "tuning": {"seeds": [100], "candidates": {"7x7": {"lr": [2e-3, 4e-3]}, "gaussian": {"kernel_size": [5, 7]}}},
    "sweeps": {
        "models": ["convnext"],
        "methods": ["gaussian"],
        "seeds": [100],
        "kernel_size": 7,
        "start": 1,
        "kernel_sizes": [3, 7],
        "kernel_counts": [4],
        "starts": [0, "whole"],
    },
}
PLATFORM = Platform("cpu", 1)
DATA = Data("made", training_images=40, validation_images=20, test_images=1000, classes=10)
ENVIRONMENT: Mapping[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef",
    "dirty": False,
    "command": "python -m studies.run made.yaml",
    "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 8.0, "os": "Debian"},
    "load": 0.0,
    "versions": {"Python": "3.11", "torch": "2.15"},
}


def toy(**changes: Any) -> StudyConfig:
    """The toy study with other settings."""
    return study_from({**TOY, **changes})


def made_accuracy(cell: Cell) -> float:
    """A number from 80 to 90 that depends on the cell alone."""
    return 80 + int(hashlib.sha256(cell.id.encode()).hexdigest()[:4], 16) % 1000 / 100


def made_study(
    config: StudyConfig, accuracy: Callable[[Cell], float] = made_accuracy, cells: int | None = None
) -> Study:
    """A study whose cells came to made accuracies; the first ones alone if a number is given."""
    finished: dict[str, FinishedCell] = {}
    while (todo := make_schedule(config, PLATFORM, finished).left) and len(finished) != cells:
        cell = todo[0].cell
        assert cell is not None
        finished[cell.id] = made_cell(cell, accuracy(cell))
    return Study("made", config, PLATFORM, DATA, finished)


def made_cell(cell: Cell, accuracy: float) -> FinishedCell:
    """A cell that came to an accuracy."""
    score = Score(1 - accuracy / 100, accuracy)
    return FinishedCell(
        id=cell.id,
        cell=cell,
        parameters=1200 if cell.method == "dense" else 1000,
        kernel_count=None if cell.method == "7x7" else 26,
        epochs=[asdict(Epoch(1, 1.0, score.loss, accuracy, 2.0, 250.0))],
        validation=score,
        test=score if cell.test else None,
        failure=None,
        images_per_second=250.0,
        seconds=2.5,
        **ENVIRONMENT,
    )


def with_cells(study: Study, finished: Mapping[str, FinishedCell]) -> Study:
    """The same study with other records."""
    return replace(study, finished=finished)
