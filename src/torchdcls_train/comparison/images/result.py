"""The results of a comparison on images."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..config import CompareConfig, Layers
from ..result import Result


@dataclass(frozen=True)
class ImagesData:
    """The images that models are compared on; `image_size` is in pixels, of each side."""

    name: str
    train_images: int
    test_images: int
    image_size: int
    channels: int
    classes: list[str]
    skipped_images: int


@dataclass(frozen=True)
class ImagesEpoch:
    """An `Epoch` of a run that is watched by the test images."""

    epoch: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class ImagesRun:
    """A model: its layers and seed, its parameters, elements per kernel if it has such, and epochs so far."""

    method: Layers
    seed: int
    parameters: int
    kernel_count: int | None
    epochs: list[ImagesEpoch] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in percent."""
        return self.epochs[-1].test_accuracy


@dataclass(kw_only=True)
class ImagesResult(Result):
    """See `Result`; `device` is where models were trained, in words."""

    benchmark: ClassVar[str] = "comparison"
    subject: ClassVar[str] = "images"
    device: str
    config: CompareConfig
    data: ImagesData
    runs: list[ImagesRun] = field(default_factory=list)
