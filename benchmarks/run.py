"""Measures: `python -m benchmarks.run BENCHMARK`, from the repository's root.

A benchmark is a module that answers to `Benchmark`. This one parses, has the benchmark check that both sides compute
the same, has it measure, and writes the result; where the check fails nothing is measured and nothing is written.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from . import construction, conv, delays, model, sizes
from .record import RESULTS, record, write
from .tables import BUSY
from .timing import ParityError


class Benchmark(Protocol):
    """What a benchmark module has.

    `verify` raises `ParityError` where the two sides of a problem do not compute the same. `measure` gives the fields
    of the result file that are its own, from `arguments.turns` turns, and calls `after_turn` after each turn of each
    problem. `rows` makes the table of a result, on screen and in Markdown, the header first. Machine, versions and
    settings are left to the frame.
    """

    SUMMARY: str
    PACKAGES: tuple[str, ...]

    @property  # read-only, so that each benchmark may have problems of its own type
    def PROBLEMS(self) -> Mapping[str, object]: ...  # noqa: N802

    def verify(self, names: Sequence[str]) -> None: ...

    def measure(
        self, names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]
    ) -> dict[str, Any]: ...

    def rows(self, result: Mapping[str, Any]) -> list[list[str]]: ...

    def note(self, result: Mapping[str, Any]) -> str: ...


BENCHMARKS: dict[str, Benchmark] = {
    "construction": construction,
    "conv": conv,
    "delays": delays,
    "model": model,
    "sizes": sizes,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    arguments = parser.parse_args(argv)
    benchmark = BENCHMARKS[arguments.benchmark]
    if unknown := [name for name in arguments.problem or [] if name not in benchmark.PROBLEMS]:
        known = ", ".join(benchmark.PROBLEMS)
        parser.error(f"--problem: {unknown[0]!r} is none of {known}")
    console = Console()
    if arguments.list:
        for name, problem in benchmark.PROBLEMS.items():
            console.print(f"{name}: {problem}", highlight=False)
        return 0
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    names = arguments.problem or list(benchmark.PROBLEMS)
    try:
        result = _measure(benchmark, names, arguments, argv, console)
    except ParityError as error:
        print(f"Not measured, the two sides do not compute the same. {error}", file=sys.stderr)
        return 1
    path = write(result, arguments.out)
    console.print(_table(benchmark, result))
    console.print(f"Written to {path}", highlight=False, soft_wrap=True)
    return 0


def _measure(
    benchmark: Benchmark, names: Sequence[str], arguments: argparse.Namespace, argv: Sequence[str], console: Console
) -> dict[str, Any]:
    start = record(arguments.benchmark, argv, benchmark.PACKAGES)
    benchmark.verify(names)
    if start["load"] is not None and start["load"] > BUSY:
        # Threads that share a core with another process keep each other waiting: milliseconds become hundreds.
        console.print(f"The machine is busy (load {start['load']}): times will be off.", style="yellow")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    # No redrawing between turns: it would run in a thread of its own beside what is timed.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task(f"{arguments.benchmark}, turns", total=len(names) * arguments.turns)
        measured = benchmark.measure(names, arguments, lambda: progress.update(task, advance=1, refresh=True))
    return {
        **start,
        "complete": list(names) == list(benchmark.PROBLEMS),
        "settings": {"turns": arguments.turns, "threads": torch.get_num_threads()},
        **measured,
    }


def _table(benchmark: Benchmark, result: Mapping[str, Any]) -> Table:
    header, *rows = benchmark.rows(result)
    table = Table(caption=benchmark.note(result))
    for index, title in enumerate(header):
        # A title may wrap between its words, not within one.
        longest = max(map(len, title.split()))
        table.add_column(title, justify="right" if index else "left", no_wrap=index == 0, min_width=longest)
    for row in rows:
        table.add_row(*row)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure, and write a result file.")
    subparsers = parser.add_subparsers(dest="benchmark", required=True)
    for name, benchmark in BENCHMARKS.items():
        # No abbreviations: the record leaves out --out by its name.
        sub = subparsers.add_parser(name, help=benchmark.SUMMARY, description=benchmark.SUMMARY, allow_abbrev=False)
        sub.add_argument("--list", action="store_true", help="print the problems and end")
        sub.add_argument(
            "--problem",
            action="append",
            metavar="NAME",
            help="measure this problem alone; may be given several times",
        )
        sub.add_argument("--turns", type=_positive, default=9, help="turns a side has (default: %(default)s)")
        sub.add_argument("--threads", type=_positive, help="threads that torch uses (default: its own choice)")
        sub.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default: benchmarks/results)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
