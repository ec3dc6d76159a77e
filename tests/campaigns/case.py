"""One thing that a campaign tries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """What was tried and what came of it.

    Args:
        kind: Row of the campaign's table, such as "fft, 2-D".
        name: Enough to repeat the case.
        fault: What is wrong, or None.
        worst: A measured number, if there is one; the table has the largest of each kind.
    """

    kind: str
    name: str
    fault: str | None = None
    worst: float | None = None
