"""The results of a comparison while it runs, in its run folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Generic

from rich.console import Console

from ..runs.progress_bar import say
from ..runs.writer import RunWriter
from .result import RESULTS, AnyResult


def run_folder(out: Path | None, word: str) -> Path:
    """The folder asked for, or one named by a word and the time."""
    return out or Path("runs") / f"{word}-{datetime.now():%Y%m%d-%H%M%S}"


class Record(RunWriter, Generic[AnyResult]):
    """The results of a comparison so far: `results.json` in its folder, rewritten as a whole by each `save`.

    Args:
        folder: The run folder, made if it is missing.
        result: The results to begin with.
        resume: Returns the results in the folder, if there are some, as they continue. It takes those to begin with.

    Attributes:
        result: The results that the next `save` writes.

    Raises:
        ValueError: There is a comparison in the folder that is not resumed, another process has the folder, or it
            cannot be written to.
    """

    def __init__(
        self, folder: Path, result: AnyResult, *, resume: Callable[[AnyResult], AnyResult] | None = None
    ) -> None:
        there = (folder / RESULTS).exists()
        if there and resume is None:
            raise ValueError(f"out: expected a folder without a run in it, got '{folder}'; take another one")
        super().__init__(folder, RESULTS)
        self.folder = folder
        self.result = resume(result) if there and resume is not None else result
        self.save()

    def save(self) -> None:
        """Writes `result`."""
        self.write(self.result.json())

    @contextmanager
    def under_way(self, console: Console, kept: str = "what was done so far is in the run folder") -> Iterator[None]:
        """Sets and writes how the comparison ended when the block does, and gives the folder back.

        The status is "finished", "interrupted" or "failed: ...". Ctrl-C ends the block without an error; the user reads
        what was `kept`.
        """
        status = "interrupted"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            say(console, f"Interrupted; {kept}")
        except Exception as error:
            # Of an error of this package, the name of the built-in one that it is.
            built_in = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
            status = f"failed: {built_in.__name__}"
            raise
        finally:
            self.result.status, self.result.complete = status, status == "finished"
            self.save()
            self.close()
