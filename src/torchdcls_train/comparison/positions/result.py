"""The results of a comparison of interpolations."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..config import Inputs, PositionsConfig, Start, StudentName
from ..result import Result

# Inputs and start, and a student there.
Place = tuple[Inputs, Start]
Cell = tuple[Inputs, Start, StudentName]


@dataclass(frozen=True)
class PositionsData:
    """The images that kernels see; of each kind of inputs, how many cells away values are alike."""

    name: str
    train_images: int
    test_images: int
    correlated_cells: dict[Inputs, int]


@dataclass(frozen=True)
class Taps:
    """The taps of a seed's kernels; see `Teacher`."""

    seed: int
    position: list[list[list[float]]]
    weight: list[list[float]]


@dataclass(frozen=True)
class Moment:
    """Means over the kernels of a run after some updates; `found` is a share of taps."""

    update: int
    loss: float
    found: float


@dataclass(frozen=True)
class PositionsRun:
    """A student on the kernels of a seed.

    Args:
        loss: Of each kernel after training, over the teacher's power.
        distance: Of each kernel's taps from their elements after training. Unit: grid cells.
        start_found: Share of each kernel's taps found before training.
        curve: Before, during and after training.
    """

    seed: int
    inputs: Inputs
    start: Start
    student: StudentName
    loss: list[float]
    distance: list[list[float]]
    start_found: list[float]
    curve: list[Moment]

    @property
    def cell(self) -> Cell:
        """Inputs, start and student."""
        return self.inputs, self.start, self.student


@dataclass(frozen=True)
class Travel:
    """The paths of one kernel's elements in the first seed, for the animation.

    Args:
        updates: Numbers of the updates after which elements are shown.
        paths: Of each student, (updates, row and column and weight, elements). Unit of places: grid cells.
    """

    inputs: Inputs
    start: Start
    kernel: int
    updates: list[int]
    paths: dict[StudentName, list[list[list[float]]]]

    @property
    def place(self) -> Place:
        """Its inputs and start."""
        return self.inputs, self.start


@dataclass(kw_only=True)
class PositionsResult(Result):
    """See `Result`. Files of comparisons that ended before their first run have no `travel`."""

    benchmark: ClassVar[str] = "positions"
    subject: ClassVar[str] = "positions"
    quick_notice: ClassVar[str] = "A quick run, with fewer updates: elements had less time to move than by default."
    config: PositionsConfig
    data: PositionsData
    teachers: list[Taps] = field(default_factory=list)
    runs: list[PositionsRun] = field(default_factory=list)
    travel: Travel | None = None
