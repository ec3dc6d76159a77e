"""The record of a comparison, which is written to its run folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from torchdcls_results import environment

from ..runs.progress_bar import say
from ..runs.writer import RunWriter, command_line

RESULTS = "results.json"


class Record(RunWriter):
    """What a comparison has come to so far: `results.json` in its folder, rewritten as a whole by each `save`.

    Args:
        folder: The run folder, made if it is missing.
        benchmark: What is compared, in a word.
        argv: The command's arguments; None for those of the process.
        facts: What else the record begins with: threads, settings, data, and `runs`, to which what was done is added.
        packages: Distributions whose versions matter.
        resume: Makes the record that continues of the one that would begin, where there is one in the folder.

    Attributes:
        folder: The run folder.
        result: What `results.json` holds after the next `save`.

    Raises:
        ValueError: There is a comparison in the folder that is not resumed, another process has the folder, or it
            cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        benchmark: str,
        argv: Sequence[str] | None,
        facts: Mapping[str, Any],
        packages: Sequence[str] = ("torch", "torchvision", "timm", "torchdcls"),
        *,
        resume: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        there = (folder / RESULTS).exists()
        if there and resume is None:
            raise ValueError(f"out: expected a folder without a run in it, got '{folder}'; take another one")
        super().__init__(folder, RESULTS)
        origin = environment(command_line(argv), packages)
        self.folder = folder
        self.result: dict[str, Any] = {
            "benchmark": benchmark,
            **origin,
            "complete": False,
            "status": "running",
            **facts,
        }
        if there and resume is not None:
            self.result = resume(self.result)
        self.save()

    def save(self) -> None:
        """Writes what `result` holds now."""
        self.write(self.result)

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
            self.result.update(status=status, complete=status == "finished")
            self.save()
            self.close()
