"""A progress bar that counts images, or what else is learned from, with their rate and the remaining time."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class ProgressBar:
    """A bar at the bottom of a terminal, below the lines that are said; in a file only the lines appear.

    Args:
        console: Where to draw.
        images: Number of images that all of the work will take, None where unknown.
        done: Number of these that were done before.
        noun: What they are.
    """

    def __init__(self, console: Console, images: int | None, done: int = 0, noun: str = "images") -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            _Rate(noun),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=images, completed=done)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()

    def describe(self, title: str) -> None:
        """Says beside the bar what is being worked on."""
        self._progress.update(self._task, description=title)

    def advance(self, images: int) -> None:
        """Moves the bar."""
        self._progress.advance(self._task, images)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        say(self._progress.console, line)


def say(console: Console, text: str) -> None:
    """Prints as it stands: lines are not cut, numbers not colored."""
    console.print(text, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def __init__(self, noun: str) -> None:
        super().__init__()
        self._noun = noun

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f} {self._noun}/s")
