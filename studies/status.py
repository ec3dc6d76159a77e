"""What of a study is done, what remains, and how long that will take."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from rich.table import Table

from .schedule import Schedule, ScheduleEntry

HEADER = ("phase", "model", "method", "done", "remaining", "time left")


def status_rows(schedule: Schedule) -> list[list[str]]:
    """A row for each phase, model and method, and one for all.

    A cell that two phases have counts in the rows of both, but once in the last one and in the times.
    """
    pace = _Pace(schedule)
    groups: dict[tuple[str, str, str], list[ScheduleEntry]] = defaultdict(list)
    for entry in schedule.entries:
        groups[entry.phase, entry.model, entry.method].append(entry)
    rows = []
    for key, entries in groups.items():
        left = [entry for entry in entries if schedule.of(entry) is None]
        words = pace.words([entry for entry in schedule.left if entry in left])
        rows.append([*key, str(len(entries) - len(left)), str(len(left)), words])
    rows.append(["all", "", "", str(len(schedule.used)), str(len(schedule.left)), pace.words(schedule.left)])
    return rows


def status_table(name: str, schedule: Schedule) -> Table:
    """The same for a terminal."""
    table = Table(*HEADER, title=f"Study {name}")
    for row in status_rows(schedule):
        table.add_row(*row)
    return table


class _Pace:
    """Seconds an epoch, from finished cells: of the same model and method if there are any, else of all."""

    def __init__(self, schedule: Schedule) -> None:
        self._of: dict[tuple[str, str] | None, list[float]] = defaultdict(list)
        for finished in schedule.finished.values():
            if finished.epochs:
                for key in ((finished.cell.model, finished.cell.method), None):
                    self._of[key].append(finished.seconds / len(finished.epochs))

    def words(self, entries: Sequence[ScheduleEntry]) -> str:
        """The time that these will take, in words."""
        if not entries:
            return "-"
        if not self._of:
            return "unknown yet"
        minutes = sum(e.epochs * median(self._of.get((e.model, e.method), self._of[None])) for e in entries) / 60
        return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
