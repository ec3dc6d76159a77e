"""A cell of a study: one training, as a record of all that decides its result."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from torchdcls_train.settings import Precision

from .config import Candidate, Method, Start, StudyConfig

# To be raised when a change of the code changes what the same settings come to: older results are not taken then.
_VERSION = 1


@dataclass(frozen=True)
class Place:
    """Where cells are trained, and by which code.

    Args:
        device: Its type, such as "cuda".
        threads: CPU threads, or None where a GPU does the work.
        version: Of the code, as far as results depend on it.
    """

    device: str
    threads: int | None
    version: int = _VERSION


@dataclass(frozen=True)
class Cell:
    """One training and what it is scored on: equal cells have equal results, to the noise of their machine.

    Args:
        model: A name for `comparison_model`.
        method: What stands in the place of its depthwise layers.
        seed: Of weights, positions, order and augmentation.
        kernel_size: Extent of the kernels; None for those of the model itself.
        kernel_count: Elements per kernel, None for the most with which the model has no more parameters than with 7x7.
        start: Where positions start; None for kernels without.
        test: Whether the test images are scored at the end; the validation images always are, after each epoch.
        data: Name of the data.
        image_size: Pixels a side.
        train_images: How many training images of the data are used, None for all.
        validation_images: How many of these are set apart.
    """

    model: str
    method: Method
    seed: int
    kernel_size: int | None
    kernel_count: int | None
    start: Start | None
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    label_smoothing: float
    warmup_epochs: float
    test: bool
    data: str
    image_size: int
    train_images: int | None
    validation_images: int
    precision: Precision
    device: str
    threads: int | None
    version: int

    @property
    def id(self) -> str:
        """A hash of the record: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:16]

    def content(self) -> dict[str, Any]:
        """The record for a file."""
        return asdict(self)


def make_cell(
    config: StudyConfig,
    place: Place,
    *,
    model: str,
    method: Method,
    candidate: Candidate,
    seed: int,
    epochs: int | None = None,
    test: bool = False,
    kernel_count: int | None = None,
) -> Cell:
    """A cell of a study; what is not given is as in the study's settings."""
    return Cell(
        model=model,
        method=method,
        seed=int(seed),
        kernel_size=candidate.kernel_size,
        kernel_count=kernel_count,
        start=candidate.start,
        lr=candidate.lr,
        weight_decay=candidate.weight_decay,
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
        device=place.device,
        threads=place.threads,
        version=place.version,
    )
