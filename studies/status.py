"""What of a study is done, what remains, and how long that will take."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.table import Table

from .plan import Planned, plan, remaining
from .records import Study

HEADER = ("phase", "model", "method", "done", "remaining", "time left")


def status_rows(study: Study) -> list[list[str]]:
    """A row for each phase, model and method, and one for all.

    A cell that two phases plan counts in the rows of both, but once in the last one and in the times.
    """
    planned = plan(study.config, study.place, study.lines)
    first = remaining(planned, study.lines)
    pace = _Pace(study)
    groups: dict[tuple[str, str, str], list[Planned]] = defaultdict(list)
    for entry in planned:
        groups[entry.phase, entry.model, entry.method].append(entry)
    rows = []
    for key, entries in groups.items():
        left = [entry for entry in entries if entry.cell is None or entry.cell.id not in study.lines]
        rows.append([*key, str(len(entries) - len(left)), str(len(left)), pace.words([e for e in first if e in left])])
    done = {entry.cell.id for entry in planned if entry.cell is not None} & set(study.lines)
    rows.append(["all", "", "", str(len(done)), str(len(first)), pace.words(first)])
    return rows


def status_table(study: Study) -> Table:
    """The same for a terminal."""
    table = Table(*HEADER, title=f"Study {study.name}")
    for row in status_rows(study):
        table.add_row(*row)
    return table


class _Pace:
    """Seconds an epoch, from finished cells: of the same model and method if there are any, else of all."""

    def __init__(self, study: Study) -> None:
        self._of: dict[tuple[str, str] | None, list[float]] = defaultdict(list)
        for line in study.lines.values():
            if (pace := _seconds_per_epoch(line)) is not None:
                self._of[line["cell"]["model"], line["cell"]["method"]].append(pace)
                self._of[None].append(pace)

    def words(self, entries: list[Planned]) -> str:
        """The time that these will take, in words."""
        if not entries:
            return "-"
        if not self._of:
            return "unknown yet"
        minutes = sum(e.epochs * median(self._of.get((e.model, e.method), self._of[None])) for e in entries) / 60
        return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _seconds_per_epoch(line: Mapping[str, Any]) -> float | None:
    return line["seconds"] / len(line["epochs"]) if line["epochs"] else None
