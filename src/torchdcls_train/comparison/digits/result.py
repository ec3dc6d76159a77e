"""The results of a comparison of delays."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..config import Delays, DigitsConfig
from ..result import Result

# Speaker, method, seed and learning rate of a run.
Key = tuple[str, Delays, int, float]


@dataclass(frozen=True)
class DigitsData:
    """The recordings, and constants of the task.

    Args:
        validation_recordings: Recordings of each speaker and digit to choose by.
        hidden: Neurons of a hidden layer; `dense_hidden` of one with dense kernels.
    """

    name: str
    recordings: int
    speakers: int
    fingerprint: str
    validation_recordings: int
    hidden: int
    dense_hidden: int
    position_lr_scale: float


@dataclass(frozen=True)
class DigitsRun:
    """A trained network. Accuracies are percent.

    Args:
        speaker: The speaker who was left out, and whose recordings are the test.
        validation: Accuracy on other recordings of the speakers that the network was trained on.
        validation_loss: Cross-entropy there.
        test_rounded: Accuracy with whole delays; None without delays to round.
    """

    speaker: str
    method: Delays
    seed: int
    lr: float
    parameters: int
    validation: float
    validation_loss: float
    test: float
    test_rounded: float | None
    seconds: float

    @property
    def key(self) -> Key:
        """Settings that tell the run from others."""
        return self.speaker, self.method, self.seed, self.lr


@dataclass(kw_only=True)
class DigitsResult(Result):
    """See `Result`."""

    benchmark: ClassVar[str] = "digits"
    subject: ClassVar[str] = "digits"
    incomplete_notice: ClassVar[str] = "only speakers with results of all methods count"
    config: DigitsConfig
    data: DigitsData
    runs: list[DigitsRun] = field(default_factory=list)
