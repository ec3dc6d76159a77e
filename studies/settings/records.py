"""The records of the study: JSON lines, of which some say where the results that follow come from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchdcls_train.run_files import RunWriter, whole_lines

from .plan import Cell, NetworkCell, TapsCell

RECORDS = "settings.jsonl"


@dataclass(frozen=True)
class TapsOutcome:
    """What a run of the recovery task led to, kernel by kernel.

    Args:
        found: Taps found of each kernel.
        taps: Taps of a kernel.
        loss: Of each kernel, over the teacher's power.
    """

    found: list[int]
    taps: int
    loss: list[float]


@dataclass(frozen=True)
class NetworkOutcome:
    """Accuracy on the validation images after the last epoch (percent), and elements per kernel."""

    accuracy: float
    elements: int | None


Outcome = TapsOutcome | NetworkOutcome


@dataclass(frozen=True)
class Records:
    """What is done of the study.

    Args:
        outcomes: By the cell's id.
        origins: Where they come from (`torchdcls._environment`), in the order of the file.
    """

    outcomes: Mapping[str, Outcome]
    origins: list[Mapping[str, Any]]


class Recorder:
    """The file of a run folder, to which more is added. A line is on the disk when `add` returns.

    Args:
        folder: Made if it is missing. One process at a time may have it.
        origin: Where new results come from.

    Raises:
        ValueError: Another process has the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self._writer = RunWriter(folder, "settings.json", RECORDS)
        self._origin = origin
        self._new = True
        self.done = set(read_records(folder / RECORDS).outcomes)

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """One more result."""
        if self._new:
            self._writer.add({"origin": self._origin})
            self._new = False
        self._writer.add({"id": cell.id, "cell": asdict(cell), **asdict(outcome)})
        self.done.add(cell.id)

    def close(self) -> None:
        """Frees the folder."""
        self._writer.close()


def read_records(path: Path) -> Records:
    """The records in a file, none where there is no file.

    Raises:
        ValueError: A line is something else.
    """
    return _records(path, whole_lines(path))


def _records(path: Path, lines: Iterable[str]) -> Records:
    outcomes: dict[str, Outcome] = {}
    origins: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, 1):
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
