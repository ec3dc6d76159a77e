"""The records of the study: JSON lines, of which some say where the results that follow come from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchdcls_results import whole_lines

from .plan import Cell, NetworkCell, TapsCell

RECORDS = "settings.jsonl"


@dataclass(frozen=True)
class TapsOutcome:
    """What a run of the recovery task led to, kernel by kernel."""

    found: list[int]  # taps found of each kernel
    taps: int  # taps of a kernel
    loss: list[float]  # of each kernel, over the teacher's power


@dataclass(frozen=True)
class NetworkOutcome:
    """Accuracy on the validation images after the last epoch (percent), and elements per kernel."""

    accuracy: float
    elements: int | None


Outcome = TapsOutcome | NetworkOutcome


@dataclass(frozen=True)
class Records:
    """What is done of the study."""

    outcomes: Mapping[str, Outcome]  # by the cell's id
    origins: list[Mapping[str, Any]]  # where they come from (`torchdcls_results`), in the order of the file


def line_of(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """The line of a result."""
    return {"id": cell.id, "cell": asdict(cell), **asdict(outcome)}


def read_records(path: Path) -> Records:
    """The records in a file, none where there is no file.

    Raises:
        ValueError: A line is something else.
    """
    outcomes: dict[str, Outcome] = {}
    origins: list[Mapping[str, Any]] = []
    for number, line in enumerate(whole_lines(path), 1):
        try:
            row = json.loads(line)
            if "origin" in row:
                origins.append(row["origin"])
            elif "found" in row:
                outcomes[TapsCell(**row["cell"]).id] = TapsOutcome(row["found"], row["taps"], row["loss"])
            else:
                outcomes[NetworkCell(**row["cell"]).id] = NetworkOutcome(row["accuracy"], row["elements"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}: expected a result in line {number}, got something else; delete the line to have it "
                "measured again"
            ) from None
    return Records(outcomes, origins)
