"""Ctrl-C, and the signal by which schedulers end a run: the first lets it write a checkpoint, the second ends it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether the run was asked to end.

    Args:
        says: Whether to tell the user, on standard error.
    """

    def __init__(self, says: bool) -> None:
        self.asked = False
        self._says = says

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Handles the signals, where this is the main thread and they are not ignored, as below `nohup`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._says:
            # Not by Python's own streams, which may be in the middle of a write.
            os.write(2, b"\nStopping with a checkpoint after this update; once more stops at once\n")
