"""What a comparison of delays has come to."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..config import Delays, DigitsConfig
from ..result import Result

# Speaker, method, seed and learning rate of a run.
Key = tuple[str, Delays, int, float]


@dataclass(frozen=True)
class DigitsData:
    """The recordings, and what of the task is no setting.

    Args:
        fingerprint: Of the recordings.
        validation_recordings: Of each speaker and digit, to choose by.
        hidden: Neurons of a hidden layer.
        dense_hidden: Likewise with dense kernels.
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
    """A network. `validation`, `test` and `test_rounded` (with whole delays, if it has any) are accuracies in percent.

    Args:
        speaker: Who was left out, and speaks the test.
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
        """What tells it from others."""
        return self.speaker, self.method, self.seed, self.lr


@dataclass(frozen=True)
class Resumption:
    """Where a comparison was resumed."""

    date: str
    commit: str | None
    dirty: bool | None
    command: str


@dataclass(kw_only=True)
class DigitsResult(Result):
    """See `Result`. Files of comparisons that were never interrupted have no `resumed`."""

    benchmark: ClassVar[str] = "digits"
    counts: ClassVar[str] = "only speakers with whom all methods are done count"
    config: DigitsConfig
    data: DigitsData
    runs: list[DigitsRun] = field(default_factory=list)
    resumed: list[Resumption] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """What the file holds."""
        row = super().json()
        return row if self.resumed else {name: row[name] for name in row if name != "resumed"}
