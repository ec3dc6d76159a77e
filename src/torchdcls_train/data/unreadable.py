"""How many images of an epoch could not be read, and when that is too many."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .source_types import DataError

# Bad luck in few images is no bad data: the share is one of this many at least, or of an epoch where that is smaller.
_FEWEST = 1000
_NAMES_SHOWN = 3


@dataclass
class Unreadable:
    """Counts the unreadable images of one epoch, so that one that goes wrong late is not excused by those before.

    A run stops where their share is above the allowed one, of an epoch with so many images in all processes.
    """

    allowed: float
    images: int
    seen: int = field(default=0, init=False)
    count: int = field(default=0, init=False)
    failures: tuple[str, ...] = field(default=(), init=False)

    def add(self, seen: int, unreadable: int, failures: Sequence[str]) -> None:
        """Counts further images of all processes; `failures` is what this one knows of the unreadable among them.

        Raises:
            DataError: More than the allowed share could not be read. The same in every process, so that all stop.
        """
        self.seen += seen
        self.count += unreadable
        self.failures = (*self.failures, *failures)[:_NAMES_SHOWN]
        of = max(self.seen, min(_FEWEST, self.images))
        if self.count > self.allowed * of:
            first = f", first {', '.join(self.failures)}" if self.failures else ""
            raise DataError(
                f"max_unreadable: expected at most {self.allowed:.2%} unreadable images, got {self.count} among "
                f"{self.seen}{first}; mend or remove them, or raise the setting"
            )
