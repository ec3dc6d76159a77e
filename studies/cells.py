"""A cell of a study: one training run, as a record of all that decides its result, and what it came to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from .config import Candidate, Layers, Precision, Start, StudyConfig

# To be raised when a change of the code changes what the same settings come to: older results are not taken then.
_VERSION = 1


@dataclass(frozen=True)
class Platform:
    """Where cells are trained, and by which code."""

    device: str  # its type, such as "cuda"
    threads: int | None  # CPU threads, or None where a GPU does the work
    version: int = _VERSION  # of the code, as far as results depend on it


@dataclass(frozen=True)
class Cell:
    """One training run and what it is scored on: equal cells have equal results, to the noise of their machine."""

    model: str  # a name for `comparison_model`
    method: Layers  # what stands in the place of its depthwise layers
    seed: int  # of weights, positions, order and augmentation
    kernel_size: int | None  # extent of the kernels; None for those of the model itself
    # Elements per kernel, None for the most with which the model has no more parameters than with 7x7.
    kernel_count: int | None
    start: Start | None  # where positions start; None for kernels without
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    label_smoothing: float
    warmup_epochs: float
    test: bool  # whether the test images are scored at the end; the validation images always are, after each epoch
    data: str
    image_size: int  # pixels a side
    train_images: int | None  # how many training images of the data are used, None for all
    validation_images: int  # how many of these are set apart
    precision: Precision
    device: str
    threads: int | None
    version: int

    @cached_property
    def id(self) -> str:
        """A hash of the record: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy on images. Unit of the accuracy: percent."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class FinishedCell:
    """A cell that was trained and scored: a line of a study's records."""

    id: str
    cell: Cell
    parameters: int
    kernel_count: int | None  # elements or taps per kernel; None for those of the model itself
    epochs: Sequence[Mapping[str, float]]  # the curve: what the training loop says of each epoch
    validation: Score | None  # on the validation images after the last epoch; None where the run diverged
    test: Score | None  # on the test images, of a final cell that did not diverge
    failure: str | None  # why the run diverged, or None
    images_per_second: float | None  # median of the epochs, or None without any
    seconds: float  # of all this
    date: str  # with the following, where the numbers come from (`torchdcls_results`)
    commit: str | None
    dirty: bool | None
    command: str
    machine: Mapping[str, Any]
    load: float | None
    versions: Mapping[str, str]

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "FinishedCell":
        """Of a line of a file.

        Raises:
            KeyError, TypeError: It is no finished cell.
        """
        entries = {field.name: line[field.name] for field in fields(cls)}
        scores = {name: None if line[name] is None else Score(**line[name]) for name in ("validation", "test")}
        return cls(**{**entries, **scores, "cell": Cell(**line["cell"])})


# By id.
Finished = Mapping[str, FinishedCell]


def make_cell(
    config: StudyConfig,
    platform: Platform,
    model: str,
    method: Layers,
    candidate: Candidate,
    seed: int,
    *,
    epochs: int | None = None,
    test: bool = False,
    kernel_count: int | None = None,
) -> Cell:
    """A cell of a study; what is not given is as in the study's settings."""
    return Cell(
        model=model,
        method=method,
        seed=int(seed),
        kernel_count=kernel_count,
        epochs=config.epochs if epochs is None else epochs,
        batch_size=config.batch_size,
        label_smoothing=float(config.label_smoothing),
        warmup_epochs=float(config.warmup_epochs),
        test=test,
        data=config.data,
        image_size=config.side,
        train_images=config.train_images,
        validation_images=config.validation_images,
        precision=config.precision,
        **asdict(candidate),
        **asdict(platform),
    )
