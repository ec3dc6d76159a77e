"""The results of a comparison while it runs, in its run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Generic

from rich.console import Console

from ..runs.progress_bar import say
from ..runs.writer import RunWriter
from .result import RESULTS, AnyResult, resumed


def run_folder(out: Path | None, word: str) -> Path:
    """The folder asked for, or one named by a word and the time."""
    return out or Path("runs") / f"{word}-{datetime.now():%Y%m%d-%H%M%S}"


class Record(RunWriter, Generic[AnyResult]):
    """The results of a comparison so far: `results.json` in its folder, rewritten as a whole by each `save`.

    Args:
        folder: The run folder, made if it is missing.
        result: The results to begin with, if there are none in the folder to be resumed.

    Attributes:
        result: The results that the next `save` writes.

    Raises:
        ValueError: The folder has something else than this comparison, another process has it, or it cannot be
            written to.
    """

    def __init__(self, folder: Path, result: AnyResult) -> None:
        super().__init__(folder, RESULTS)
        self.folder = folder
        self.result = resumed(folder, result) if (folder / RESULTS).exists() else result
        self.save()

    def save(self) -> None:
        """Writes `result`."""
        self.write(self.result.json())

    @contextmanager
    def under_way(self, console: Console) -> Iterator[None]:
        """Sets and writes how the comparison ended when the block does, and gives the folder back.

        The status is "finished", "interrupted" or "failed: ...". Ctrl-C ends the block without an error; the user reads
        how to resume.
        """
        status = "interrupted"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            say(console, f"Interrupted; rerun the same command with --out {self.folder} to resume")
        except Exception as error:
            # Of an error of this package, the name of the built-in one that it is.
            built_in = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
            status = f"failed: {built_in.__name__}"
            raise
        finally:
            self.result.status, self.result.complete = status, status == "finished"
            self.save()
            self.close()
