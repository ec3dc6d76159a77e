"""What a comparison of interpolations has found: its table, and sentences in plain words."""

import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Literal

from torchdcls_results import INPUTS, half_interval, mean_and_interval

from ..config import Inputs, StudentName
from ..report import Section
from .result import Cell, Place, PositionsResult
from .task import FOUND

Quantity = Literal["found", "loss", "distance", "start_found"]

BASELINE: StudentName = "bilinear"
_FORMS: dict[Quantity, str] = {"found": ".0f", "loss": ".3f", "distance": ".2f"}
_MORE, _FEWER = f"Significantly more than {BASELINE}", f"Significantly fewer than {BASELINE}"
_NEITHER = f"Not significantly different from {BASELINE}"


def per_kernel(result: PositionsResult, cell: Cell, quantity: Quantity) -> dict[tuple[int, int], float]:
    """A quantity after training for each kernel, (seed, number), of all seeds that are done.

    It is "found", the share of taps found (percent), "start_found", the same before training, "loss", or "distance",
    the mean distance of taps from their elements (grid cells).
    """
    values: dict[tuple[int, int], float] = {}
    for run in result.runs:
        if run.cell != cell:
            continue
        match quantity:
            case "found":
                of_kernels = [100 * statistics.mean(float(away < FOUND) for away in row) for row in run.distance]
            case "distance":
                of_kernels = [statistics.mean(row) for row in run.distance]
            case "start_found":
                of_kernels = [100 * share for share in run.start_found]
            case "loss":
                of_kernels = run.loss
        values |= {(run.seed, number): value for number, value in enumerate(of_kernels)}
    return values


def differences(result: PositionsResult, cell: Cell, other: Cell) -> list[float]:
    """How many more taps were found in `cell` than in `other`, kernel by kernel. Unit: points of percent."""
    mine, theirs = per_kernel(result, cell, "found"), per_kernel(result, other, "found")
    return [mine[kernel] - theirs[kernel] for kernel in mine if kernel in theirs]


def places(result: PositionsResult) -> dict[Place, list[StudentName]]:
    """Inputs and start of all runs that finished, and their students, in the order of the settings."""
    done, config = {run.cell for run in result.runs}, result.config
    found: dict[Place, list[StudentName]] = {}
    for inputs, start, student in product(config.inputs, config.starts, config.students):
        if (inputs, start, student) in done:
            found.setdefault((inputs, start), []).append(student)
    return found


def typical_kernel(result: PositionsResult, place: Place, students: Sequence[StudentName]) -> int:
    """The kernel of seed 0 for which students find shares of the taps nearest to their means over all kernels."""
    away: dict[int, float] = {}
    for student in students:
        found = per_kernel(result, (*place, student), "found")
        mean = statistics.mean(found.values())
        for (seed, kernel), share in found.items():
            if seed == 0:
                away[kernel] = away.get(kernel, 0.0) + abs(share - mean)
    return min(away, key=lambda kernel: away[kernel])


def place_title(place: Place) -> str:
    """What a reader calls inputs and a start."""
    inputs, start = place
    return f"{INPUTS[inputs].capitalize()}, {start} start"


def position_rows(result: PositionsResult, place: Place) -> list[list[str]]:
    """The table of one of `places`, header first: a row for each student."""
    rows = [["student", "found (%)", f"against {BASELINE}", "loss", "distance (cells)"]]
    for student in places(result)[place]:
        cell = (*place, student)
        against = [] if student == BASELINE else differences(result, cell, (*place, BASELINE))
        found, loss, distance = (
            mean_and_interval(list(per_kernel(result, cell, quantity).values()), form)
            for quantity, form in _FORMS.items()
        )
        rows.append([student, found, mean_and_interval(against, "+z.0f") if against else "-", loss, distance])
    return rows


def findings(result: PositionsResult) -> list[str]:
    """What was found, a sentence or two to each point, and what is significant of it."""
    done = places(result)
    compared = len(_compared(result))
    said = []
    for inputs in dict.fromkeys(inputs for inputs, _ in done):
        shares = {cell: mean_found(result, cell) for cell in _cells(result) if cell[0] == inputs}
        (_, low, worst), (_, high, best) = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
        said.append(
            f"{INPUTS[inputs].capitalize()}: elements find {min(shares.values()):.0f} % ({worst}, {low} start) to "
            f"{max(shares.values()):.0f} % ({best}, {high} start) of the taps."
        )
    for place, students in done.items():
        shares_here = {student: mean_found(result, (*place, student)) for student in students}
        order = sorted(shares_here, key=lambda student: -shares_here[student])
        found = ", ".join(f"{student} {shares_here[student]:.0f} %" for student in order)
        verdicts: dict[str, list[str]] = {_MORE: [], _FEWER: [], _NEITHER: []}
        for cell in _compared(result):
            if cell[:2] == place:
                verdicts[_verdict(result, cell, compared)].append(cell[2])
        listed = [f"{verdict}: {', '.join(names)}." for verdict, names in verdicts.items() if names]
        said.append(" ".join([f"{place_title(place)}, share of taps found: {found}.", *listed]))
    for inputs in result.config.inputs:
        gained = _gained_by_spread(result, inputs)
        if len(gained) > 1:
            said.append(
                f"{INPUTS[inputs].capitalize()}: {mean_and_interval(gained, '+z.0f')} points of taps found with a "
                "spread start against a narrow start, mean over students."
            )
    return said


def explanations(result: PositionsResult) -> list[str]:
    """What the names and numbers mean, how sure they are, and what they do not say."""
    config, cells = result.config, _cells(result)
    kernels = max(len(per_kernel(result, cell, "found")) for cell in cells)
    by_chance = [statistics.mean(per_kernel(result, cell, "start_found").values()) for cell in cells]
    least, most = f"{min(by_chance):.0f}", f"{max(by_chance):.0f}"
    alike = " and ".join(f"{result.data.correlated_cells[inputs]} cells ({INPUTS[inputs]})" for inputs in config.inputs)
    return [
        "Triangle and gaussian start at the papers' sigma, names with a number at that sigma in cells. "
        "Gaussian-annealed does not learn sigma: a schedule lowers it from 3 to 0.",
        "A tap is found if an element of the same sign is less than a cell away. Before training, "
        f"{least if least == most else f'{least} to {most}'} % of the taps are found. "
        "Loss is the squared error over the teacher's squared response, on test images.",
        f"Input values up to {alike} apart have a correlation above 0.5. On smooth inputs, a narrow interpolation too "
        "has a gradient toward taps that are farther away.",
        f"± is the 95 % interval of the mean over {'at most ' if result.status != 'finished' else ''}{kernels} "
        "independent kernels (Student's t). 'Significantly' is at 5 % after Bonferroni correction over "
        f"{len(_compared(result))} comparisons, paired by kernel.",
        "The animation shows the kernel of seed 0 whose shares of taps found are nearest to these means.",
        f"Limits: all students have the same learning rates and {config.updates} updates. Teachers have as many taps "
        "as students have elements. The accuracy of networks is not tested here, but by torchdcls compare images.",
    ]


def positions_section(result: PositionsResult, folder: Path) -> Section:
    """What a report says, with the pictures of the run folder."""
    config = result.config
    return Section(
        "Can elements find where they belong?",
        f"A teacher kernel has {config.taps} taps, cells that are not zero, up to {config.reach:g} cells from its "
        "center. A student has as many elements, each with a learned weight and position. It learns to respond "
        "to images as the teacher does. Do its elements move to the taps?",
        findings(result),
        explanations(result),
        {place_title(place): position_rows(result, place) for place in places(result)},
        {
            folder / "travel.gif": "Elements moving to the taps (rings) of one kernel",
            folder / "found.png": "Share of taps found, by their distance from the center of the kernel",
            folder / "curves.png": "Share of taps found and loss, by update",
        },
        result,
    )


def mean_found(result: PositionsResult, cell: Cell) -> float:
    """Share of taps found, mean over kernels, in percent."""
    return statistics.mean(per_kernel(result, cell, "found").values())


def _cells(result: PositionsResult) -> list[Cell]:
    return [(*place, student) for place, students in places(result).items() for student in students]


def _compared(result: PositionsResult) -> list[Cell]:
    """Those beside which there is the baseline."""
    done = places(result)
    return [cell for cell in _cells(result) if cell[2] != BASELINE and BASELINE in done[cell[:2]]]


def _verdict(result: PositionsResult, cell: Cell, comparisons: int) -> str:
    values = differences(result, cell, (*cell[:2], BASELINE))
    if len(values) < 2:
        return _NEITHER
    mean, half = statistics.mean(values), half_interval(values, 1 - 0.05 / comparisons)
    return _NEITHER if abs(mean) <= half else (_MORE if mean > 0 else _FEWER)


def _gained_by_spread(result: PositionsResult, inputs: Inputs) -> list[float]:
    """For each kernel by how many points a spread start finds more taps than a narrow one, mean over students."""
    done = places(result)
    students = [student for student in done.get((inputs, "narrow"), []) if student in done.get((inputs, "spread"), [])]
    columns = [differences(result, (inputs, "spread", student), (inputs, "narrow", student)) for student in students]
    return [statistics.mean(row) for row in zip(*columns, strict=False)]
