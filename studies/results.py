"""The numbers of a study's page and pictures, computed once out of its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean, median

from .cells import FinishedCell, make_cell
from .config import BASELINE, Candidate, Layers, Start, StudyConfig
from .differences import Difference, Verdict, paired_difference
from .records import Study
from .schedule import SWEEPS, Schedule, ScheduleEntry, Sweep, make_schedule, swept

# The method that the papers found best, and what a reader asks of it beyond 7x7: the interpolation before it, and the
# controls.
LEADER: Layers = "gaussian"
RIVALS: tuple[Layers, ...] = ("bilinear", "dense", "dilated", "frozen")
# How far above the number of cores a load average is before training runs are taken to have waited for each other.
_CROWDED = 0.5


@dataclass(frozen=True)
class Final:
    """What the final cells of one model and method came to."""

    model: str
    method: Layers
    choice: Candidate | None  # its settings, by the validation images; None while they are not chosen
    cells: Mapping[int, FinishedCell]  # its finished cells by seed, also those that diverged

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by seed. Unit: percent."""
        return {seed: cell.test.accuracy for seed, cell in self.cells.items() if cell.test is not None}

    @property
    def one(self) -> FinishedCell | None:
        """One of the cells; what it says of the model is the same in all."""
        return next(iter(self.cells.values()), None)

    @property
    def images_per_second(self) -> float | None:
        """Median of the cells' medians."""
        speeds = [cell.images_per_second for cell in self.cells.values() if cell.images_per_second is not None]
        return median(speeds) if speeds else None

    @property
    def late_gain(self) -> float | None:
        """How much the validation accuracy rose over the last of the epochs, `late_epochs` of them, on average."""
        gains = []
        for cell in self.cells.values():
            curve = [epoch["accuracy"] for epoch in cell.epochs]
            if cell.failure is None and (late := late_epochs(len(curve))):
                gains.append(curve[-1] - curve[-1 - late])
        return mean(gains) if gains else None


@dataclass(frozen=True)
class Comparison:
    """One method against another with the same model; `difference` is None before two seeds have both."""

    model: str
    method: Layers
    other: Layers
    difference: Difference | None

    @property
    def verdict(self) -> Verdict | None:
        """What the difference shows, if there is one."""
        return None if self.difference is None else self.difference.verdict


@dataclass(frozen=True)
class SweepPoint:
    """What the cells at one value of a sweep came to, or the baseline's beside it."""

    model: str
    method: Layers
    value: Start | None  # where on the sweep; None for the baseline
    accuracies: Sequence[float]  # on the validation images, by seed. Unit: percent
    parameters: int
    kernel_count: int  # elements or taps per kernel
    ms_per_image: float  # time of training, median of the seeds


@dataclass(frozen=True)
class Results:
    """What a study came to."""

    study: Study
    schedule: Schedule  # its cells, and the choice of settings
    finals: Sequence[Final]  # all models and methods in the order of the settings, also those without a finished cell
    # Every method against the baseline, then the leader against its rivals, for each model. What the intervals are
    # corrected for is their number in the whole study, finished or not.
    comparisons: Sequence[Comparison]
    # The points of each sweep, in the order of the settings; none before each of them has a finished cell.
    sweeps: Mapping[Sweep, Sequence[SweepPoint]]
    # By model the baseline with a seed of the sweeps and all else as in them, where it was trained.
    baselines: Mapping[str, SweepPoint]

    @property
    def speeds_compare(self) -> bool:
        """Whether the study's runs had their cores for themselves."""
        return not crowded_loads(self.schedule.used)


def results_of(study: Study) -> Results:
    """Computes all that is told of a study."""
    schedule = make_schedule(study.config, study.platform, study.finished)
    finals = _finals(study.config, schedule)
    return Results(
        study,
        schedule,
        finals,
        _comparisons(study.config, finals),
        {sweep: _sweep_points(study.config, schedule, sweep) for sweep in SWEEPS},
        {model: point for model in study.config.models if (point := _sweep_baseline(study, model)) is not None},
    )


def late_epochs(epochs: int) -> int:
    """How many epochs are the last quarter."""
    return epochs // 4


def crowded_loads(cells: Sequence[FinishedCell]) -> list[float]:
    """The load averages of training runs that had to share cores."""
    return [cell.load for cell in cells if cell.load is not None and cell.load > cell.machine["cores"] + _CROWDED]


def _finals(config: StudyConfig, schedule: Schedule) -> list[Final]:
    cells: dict[tuple[str, Layers], dict[int, FinishedCell]] = {
        pair: {} for pair in product(config.models, config.methods)
    }
    for entry in schedule.entries:
        if entry.phase == "final" and (cell := schedule.of(entry)) is not None:
            cells[entry.model, entry.method][cell.cell.seed] = cell
    return [Final(*pair, schedule.choices.get(pair), mine) for pair, mine in cells.items()]


def _comparisons(config: StudyConfig, finals: Sequence[Final]) -> list[Comparison]:
    accuracies = {(final.model, final.method): final.accuracies for final in finals}
    pairs = [(method, BASELINE) for method in config.methods if method != BASELINE]
    if LEADER in config.methods:
        pairs += [(LEADER, rival) for rival in RIVALS if rival in config.methods]
    number = len(config.models) * len(pairs)
    return [
        Comparison(model, method, other, paired_difference(accuracies[model, method], accuracies[model, other], number))
        for model, (method, other) in product(config.models, pairs)
    ]


def _sweep_points(config: StudyConfig, schedule: Schedule, sweep: Sweep) -> list[SweepPoint]:
    # By cell, for two sweeps may have the same one.
    found: dict[tuple[str, Layers, Start], dict[str, FinishedCell]] = {}
    for entry in schedule.entries:
        cell = schedule.of(entry)
        if cell is not None and cell.failure is None:
            value = _value_on(sweep, entry, cell, config)
            if value is not None:
                found.setdefault((entry.model, entry.method, value), {})[cell.id] = cell
    values, sweeps = swept(config, sweep), config.sweeps
    lines_drawn = len(sweeps.models or config.models) * len(sweeps.methods)
    if not values or sum(value in values for _, _, value in found) < lines_drawn * len(values):
        return []
    points = [_sweep_point(*key, list(cells.values())) for key, cells in found.items()]
    # Seeds come first in the schedule; a point's place is that of its first seed. Counts come from several sweeps.
    order = {pair: number for number, pair in enumerate(product(config.models, config.methods))}
    return sorted(
        points,
        key=lambda point: (
            order.get((point.model, point.method), len(order)),
            float(point.value or 0) if sweep == "kernel count" else 0.0,
        ),
    )


def _sweep_point(model: str, method: Layers, value: Start | None, cells: Sequence[FinishedCell]) -> SweepPoint:
    accuracies = [cell.validation.accuracy for cell in cells if cell.validation is not None]
    speed = median(cell.images_per_second for cell in cells if cell.images_per_second is not None)
    count = 49 if cells[0].kernel_count is None else cells[0].kernel_count
    return SweepPoint(model, method, value, accuracies, cells[0].parameters, count, 1000 / speed)


def _value_on(sweep: Sweep, entry: ScheduleEntry, cell: FinishedCell, config: StudyConfig) -> Start | None:
    # What the other sweeps keep, as many elements as 7x7's parameters allow, lies on the sweep over their number.
    if entry.phase == sweep:
        return entry.value
    kept: dict[str, Start] = {"kernel size": config.sweeps.kernel_size, "start": config.sweeps.start}
    if sweep == "kernel count" and entry.phase in kept and entry.value == kept[entry.phase]:
        return cell.kernel_count
    return None


def _sweep_baseline(study: Study, model: str) -> SweepPoint | None:
    config = study.config
    candidate = Candidate(float(config.lr), float(config.weight_decay), None, None)
    for seed in config.sweeps.seeds:
        made = make_cell(config, study.platform, model, BASELINE, candidate, seed, epochs=config.sweeps.epochs)
        cell = study.finished.get(made.id)
        if cell is not None and cell.failure is None:
            return _sweep_point(model, BASELINE, None, [cell])
    return None
