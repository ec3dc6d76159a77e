"""Runs campaigns: `python -m tests.campaigns [NAME ...]`; the exit status is 1 where a case has a fault.

A result goes to `benchmarks/results/`, from where `python -m benchmarks.tables` makes `docs/campaigns.md`.
"""

import argparse
import importlib
import inspect
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.record import RESULTS, record, write

from . import CAMPAIGNS
from .case import Case

# Campaigns use what the tests share, which pytest finds by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_PACKAGES = ("torch", "timm", "torchdcls")


def main(argv: Sequence[str] | None = None, campaigns: Sequence[str] = CAMPAIGNS) -> int:
    """Runs the campaigns that are named, all of them by default, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description="Try cases in large numbers.")
    # No choices: argparse would check the empty list against them.
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(campaigns)} (default: all)")
    parser.add_argument("--cases", type=int, help="cases of each campaign (default: its own number)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (default: 0)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in campaigns]:
        parser.error(f"NAME: expected one of {', '.join(campaigns)}, got {unknown[0]!r}")
    if arguments.cases is not None and arguments.cases < 1:
        parser.error(f"--cases: expected at least 1, got {arguments.cases}")
    console, faults = Console(), 0
    for name in arguments.names or campaigns:
        module = importlib.import_module(f".{name}", __package__)
        cases = module.CASES if arguments.cases is None else arguments.cases
        options = ["--seed", str(arguments.seed), *([] if arguments.cases is None else ["--cases", str(cases)])]
        result = {
            **record(f"campaign-{name}", [name, *options], _PACKAGES, module="tests.campaigns"),
            **carried_out(module, cases, arguments.seed, console),
            "complete": cases >= module.CASES,
        }
        found = sum(row["faults"] for row in result["rows"])
        tried = sum(row["cases"] for row in result["rows"])
        console.print(f"{name}: {tried:,} cases, {found} faults; {write(result, arguments.out).name}", highlight=False)
        faults += found
    return 1 if faults else 0


def carried_out(module: ModuleType, cases: int, seed: int, console: Console) -> dict[str, Any]:
    """Runs one campaign and returns its part of a result file: a row for each kind of case, and every fault."""
    start, done = time.monotonic(), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(module.__name__.rpartition(".")[2], total=cases)
        for case in module.run(cases, seed):
            done.append(case)
            progress.advance(task)
            if case.fault is not None:
                progress.console.print(f"{case.kind}: {case.name}: {case.fault}", highlight=False, markup=False)
    kinds = dict.fromkeys(case.kind for case in done)
    return {
        "about": inspect.getdoc(module.run),
        "worst": module.WORST,
        "seed": seed,
        "seconds": round(time.monotonic() - start),
        "rows": [_row(kind, [case for case in done if case.kind == kind]) for kind in kinds],
        "faults": [f"{case.kind}: {case.name}: {case.fault}" for case in done if case.fault is not None],
    }


def _row(kind: str, cases: Sequence[Case]) -> dict[str, Any]:
    measured = [case.worst for case in cases if case.worst is not None]
    faults = sum(case.fault is not None for case in cases)
    return {"kind": kind, "cases": len(cases), "faults": faults, "worst": max(measured, default=None)}


if __name__ == "__main__":
    sys.exit(main())
