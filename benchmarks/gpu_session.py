"""All that a GPU is measured for, in eight minutes: `PYTHONPATH=src python -m benchmarks.gpu_session`.

Runs where torch and Triton are and nothing else. Each part is a process of its own, most wanted first, so that a fault
of one does not reach the next; each writes its result file after every problem, so that a stop loses only what comes
after. A part that is done early leaves its time to the later ones.
"""

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch

from torchdcls_results import markdown_table

from .gpu import GpuPart
from .record import RESULTS, ROOT, newest_of, record, write

PARTS = ("parity", "layers", "model", "crossover", "profile")
PACKAGES = ("torch", "triton", "torchdcls")
MINUTES = 8.0
# What a part may overrun, in the middle of a problem. Unit: seconds.
GRACE = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts, prints their tables; the exit status is 0 if every part reached its end."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_session", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together (default: %(default)s)")
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be given several times")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # in a part's own process
    arguments = parser.parse_args(argv)
    if gpu() is None:
        print("torch finds no GPU here (torch.cuda.is_available() is False)", file=sys.stderr)
        return 1
    names = arguments.part or list(PARTS)
    if arguments.seconds is not None:
        return run_part(names[0], arguments.seconds, arguments.out)
    ends = [_in_a_process(name, seconds, arguments.out) for name, seconds in _shares(names, arguments.minutes * 60)]
    print(f"\n{tables(names, arguments.out)}")
    return max(ends)


def gpu() -> str | None:
    """Name of the GPU that torch uses, or None."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def part(name: str) -> GpuPart:
    """A part by its name."""
    return cast(GpuPart, importlib.import_module(f"benchmarks.gpu.{name}"))


def run_part(name: str, seconds: float, out: Path) -> int:
    """Measures a part's problems in their order until its time is over; what fails is printed, and the next one comes.

    Returns:
        0 if there was time for all problems, 2 if not.
    """
    deadline = time.monotonic() + seconds
    result = {**record(f"gpu-{name}", [], PACKAGES, gpu(), "benchmarks.gpu_session"), "complete": False, "entries": []}
    problems = part(name).problems()
    for number, (title, measure) in enumerate(problems.items(), start=1):
        if time.monotonic() > deadline:
            print(f"{name}: no time for {len(problems) + 1 - number} of {len(problems)}", flush=True)
            return 2
        try:
            entry = measure()
        except Exception as error:  # of whatever kind: the next problem may work
            entry = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        if "error" in entry or entry.get("right") is False:
            print(f"{name}: {title}: {entry}", flush=True)
        result["entries"].append({"name": title, **entry})
        result["complete"] = number == len(problems)
        write(result, out)
    return 0


def tables(names: Sequence[str], out: Path) -> str:
    """The tables of the newest results of parts, in Markdown."""
    results = {name: newest_of(f"gpu-{name}", out, partial=True) for name in names}
    found = [markdown_table(part(name).rows(result)) for name, result in results.items() if result is not None]
    return "\n\n".join(found) or "Nothing was measured."


def _shares(names: Sequence[str], seconds: float) -> Iterator[tuple[str, float]]:
    # Each part's seconds, out of what is left when its turn comes.
    start = time.monotonic()
    for index, name in enumerate(names):
        asked = [part(each).SECONDS for each in names[index:]]
        left = seconds - (time.monotonic() - start)
        yield name, max(0.0, left * asked[0] / sum(asked))


def _in_a_process(name: str, seconds: float, out: Path) -> int:
    print(f"{name}: {part(name).SUMMARY}, {seconds:.0f} s", flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu_session", "--part", name]
    command += ["--seconds", str(seconds), "--out", str(out.resolve())]
    try:
        return subprocess.run(command, cwd=ROOT, timeout=seconds + GRACE).returncode
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped in the middle of a problem", flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
