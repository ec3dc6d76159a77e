"""What a comparison of interpolations has found: its table, and sentences in plain words."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from torchdcls._tables import half_interval, markdown_table

from ..report import Part
from .task import FOUND

Quantity = Literal["found", "loss", "distance", "start_found"]
# Inputs and start, and a student there.
Place = tuple[str, str]
Cell = tuple[str, str, str]

BASELINE = "bilinear"
INPUTS = {"edges": "edges of images", "images": "images"}
_HEADER = ("student", "found (%)", f"against {BASELINE}", "loss", "distance left")


def per_kernel(result: Mapping[str, Any], cell: Cell, quantity: Quantity) -> dict[tuple[int, int], float]:
    """A quantity after training for each kernel, (seed, number), of all seeds that are done.

    Args:
        result: The record.
        cell: Inputs, start, student.
        quantity: "found", the share of taps found (percent), "start_found", the same before training, "loss", or
            "distance", the mean distance of taps from their elements (grid cells).
    """
    values: dict[tuple[int, int], float] = {}
    for run in result["runs"]:
        if cell_of(run) != cell:
            continue
        rows = run["distance" if quantity == "found" else quantity]
        for number, row in enumerate(rows):
            match quantity:
                case "found":
                    value = 100 * statistics.mean(float(distance < FOUND) for distance in row)
                case "distance":
                    value = statistics.mean(row)
                case "start_found":
                    value = 100 * row
                case "loss":
                    value = row
            values[run["seed"], number] = value
    return values


def differences(result: Mapping[str, Any], cell: Cell, other: Cell) -> list[float]:
    """How many more taps were found in `cell` than in `other`, kernel by kernel. Unit: points of percent."""
    mine, theirs = per_kernel(result, cell, "found"), per_kernel(result, other, "found")
    return [mine[kernel] - theirs[kernel] for kernel in mine if kernel in theirs]


def cell_of(run: Mapping[str, Any]) -> Cell:
    """Inputs, start and student of a run."""
    return run["inputs"], run["start"], run["student"]


def places(result: Mapping[str, Any]) -> dict[Place, list[str]]:
    """Inputs and start of all runs that finished, and their students, in the order of the settings."""
    done, config = {cell_of(run) for run in result["runs"]}, result["config"]
    found: dict[Place, list[str]] = {}
    for inputs, start, student in product(config["inputs"], config["starts"], config["students"]):
        if (inputs, start, student) in done:
            found.setdefault((inputs, start), []).append(student)
    return found


def typical_kernel(result: Mapping[str, Any], place: Place, students: Sequence[str]) -> int:
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


def position_rows(result: Mapping[str, Any], place: Place) -> list[list[str]]:
    """The table of one of `places`, header first: a row for each student."""
    rows = [list(_HEADER)]
    for student in places(result)[place]:
        cell = (*place, student)
        against = [] if student == BASELINE else differences(result, cell, (*place, BASELINE))
        found, loss, distance = (
            list(per_kernel(result, cell, quantity).values()) for quantity in ("found", "loss", "distance")
        )
        rows.append(
            [
                student,
                with_interval(found, ".0f"),
                with_interval(against, "+z.0f") if against else "-",
                with_interval(loss, ".3f"),
                with_interval(distance, ".2f"),
            ]
        )
    return rows


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What was found, how sure, and what limits it."""
    config, done = result["config"], places(result)
    cells: list[Cell] = [(*place, student) for place, students in done.items() for student in students]
    compared = [cell for cell in cells if cell[2] != BASELINE and BASELINE in done[cell[:2]]]
    said = []
    for place, students in done.items():
        shares = {
            student: statistics.mean(per_kernel(result, (*place, student), "found").values()) for student in students
        }
        order = sorted(shares, key=lambda student: -shares[student])
        found = ", ".join(f"{student} {shares[student]:.0f} %" for student in order)
        said.append(f"{place_title(place)}: taps found, most first: {found}.")
        verdicts: dict[str, list[str]] = {"more": [], "fewer": [], "not significant": []}
        for cell in compared:
            if cell[:2] == place:
                verdicts[_verdict(result, cell, len(compared))].append(cell[2])
        listed = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts.items() if names)
        if listed:
            said.append(f"  Against {BASELINE}: {listed}.")
    for inputs in config["inputs"]:
        gained = _gained_by_spread(result, inputs)
        if len(gained) > 1:
            said.append(
                f"{INPUTS[inputs].capitalize()}: a spread start against a narrow one: {with_interval(gained, '+z.0f')} "
                "points of taps found, mean over students."
            )
    kernels = config["kernels"] * len({run["seed"] for run in result["runs"]})
    by_chance = [statistics.mean(per_kernel(result, cell, "start_found").values()) for cell in cells]
    alike = " and ".join(
        f"{result['data']['correlated_cells'][inputs]} cells ({INPUTS[inputs]})" for inputs in config["inputs"]
    )
    said += [
        "Triangle and gaussian start at the papers' sigma, those with a number at that sigma in cells; "
        "gaussian-annealed does not learn sigma, which falls from 3 to 0.",
        f"A tap is found by an element of its sign less than a cell away; before training, {_span(by_chance)} are. "
        "Loss is the squared error over the teacher's squared response, on test images.",
        f"Values correlate above 0.5 with others {alike} away. Where inputs are smooth, an element responds to a tap "
        "that is farther away than its interpolation reaches.",
        f"± is the 95 % interval of the mean over {kernels} independent kernels (Student's t). 'More' and 'fewer' are "
        f"significant at 5 % after Bonferroni correction over {len(compared)} comparisons, paired by kernel.",
        "The animation shows the kernel of seed 0 for which the shares found are nearest to these means.",
        f"Limits: one set of learning rates and {config['updates']} updates for all students; teachers that have as "
        "many taps as students have elements. Accuracy of networks is another question: torchdcls compare images.",
    ]
    return said


def notice(result: Mapping[str, Any]) -> str:
    """What a reader of the table must know first, or nothing."""
    if result["status"] != "finished":
        return f"The comparison is not complete ({result['status']}): only runs that finished are shown."
    return "A quick run, with few updates: elements had less time than by default." if result["config"]["quick"] else ""


def markdown(result: Mapping[str, Any]) -> str:
    """The table and the sentences as Markdown."""
    said = "\n".join(f"{'  ' * line.startswith('  ')}- {line.strip()}" for line in sentences(result))
    first = notice(result)
    tables = [f"**{place_title(place)}**\n\n{markdown_table(position_rows(result, place))}" for place in places(result)]
    return "\n\n".join(filter(None, [f"**{first}**" if first else "", *tables, said]))


def positions_part(result: Mapping[str, Any], folder: Path) -> Part:
    """What a report says; the pictures are those of the run folder."""
    config = result["config"]
    return Part(
        "Can elements find where they belong?",
        f"A teacher kernel has {config['taps']} taps at cells within {config['reach']:g} of its center. Students have "
        "as many elements, and learn to respond to images as the teacher does. Do their elements move to the taps?",
        notice(result),
        sentences(result),
        {place_title(place): position_rows(result, place) for place in places(result)},
        {
            folder / "travel.gif": "Elements on their way to the taps (rings) of one kernel",
            folder / "found.png": "Share of taps found, by their distance from the center of the kernel",
            folder / "curves.png": "Share of taps found and loss, by update",
        },
        result,
    )


def with_interval(values: Sequence[float], form: str) -> str:
    """The mean of values and half its 95 % interval, which a single one has not."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) < 2 else f"{mean} ± {half_interval(values):{form.lstrip('+z')}}"


def _verdict(result: Mapping[str, Any], cell: Cell, comparisons: int) -> str:
    values = differences(result, cell, (*cell[:2], BASELINE))
    if len(values) < 2:
        return "not significant"
    mean, half = statistics.mean(values), half_interval(values, 1 - 0.05 / comparisons)
    return "not significant" if abs(mean) <= half else ("more" if mean > 0 else "fewer")


def _gained_by_spread(result: Mapping[str, Any], inputs: str) -> list[float]:
    """For each kernel by how many points a spread start finds more taps than a narrow one, mean over students."""
    done = places(result)
    students = [student for student in done.get((inputs, "narrow"), []) if student in done.get((inputs, "spread"), [])]
    columns = [differences(result, (inputs, "spread", student), (inputs, "narrow", student)) for student in students]
    return [statistics.mean(row) for row in zip(*columns, strict=False)]


def _span(shares: Sequence[float]) -> str:
    least, most = f"{min(shares):.0f}", f"{max(shares):.0f}"
    return f"{least} %" if least == most else f"{least} to {most} %"
