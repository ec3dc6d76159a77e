"""Fits the rule of `method="auto"`: `python -m benchmarks.fit --measure`, or without, from the last measurement.

Every method makes every part of random convolutions (`benchmarks/shapes.py`) and is timed. What a method counts as its
operations is then fitted to the times: logarithms of estimates to logarithms of times, large errors counting less, no
rate below zero. The measurement is kept in `benchmarks/results/rates-*.json`, the rates in
`torchdcls/ops/conv/rates.json`.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy
import torch
from rich.progress import track
from scipy.optimize import least_squares, nnls

from torchdcls.ops.conv.method import Part
from torchdcls.ops.conv.methods import METHODS, named
from torchdcls.ops.conv.rates import FILE
from torchdcls.ops.conv.select import reason_against

from .record import RESULTS, record, write
from .shapes import FIT_SEED, Shape, draw_shapes
from .tables import newest_result

COUNT = 220
PARTS: tuple[Part, ...] = ("convolve", "transpose", "correlate", "gradients")
# Longest single run that is repeated. Unit: seconds.
LONGEST = 0.15
# More than a cache holds. Cells of 4 bytes.
_ELSEWHERE = torch.zeros(2**23)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, if asked to, fits, and writes the rates; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description="Fit the rule of auto.")
    parser.add_argument("--measure", action="store_true", help="measure first (some minutes)")
    arguments = parser.parse_args(argv)
    if arguments.measure:
        start = record("rates", argv, ("torch", "torchdcls"))
        start["command"] = " ".join(["python -m benchmarks.fit", *argv])
        shapes = track(draw_shapes(COUNT, FIT_SEED), "shapes")
        result = {**start, "threads": torch.get_num_threads(), "shapes": [measure(shape) for shape in shapes]}
        print(f"Written to {write(result, RESULTS)}")
    found = newest_result("rates", RESULTS)
    if found is None:
        print("Nothing is measured: python -m benchmarks.fit --measure", file=sys.stderr)
        return 1
    rates, errors = fit(found)
    FILE.write_text(source(rates, found), encoding="utf-8")
    for kind, ratios in sorted(errors.items()):
        within = sum(max(ratio, 1 / ratio) < 1.5 for ratio in ratios) / len(ratios)
        print(f"{kind:32} {len(ratios):4} times, {within:4.0%} of estimates within 1.5x")
    return 0


def measure(shape: Shape) -> dict[str, Any]:
    """Milliseconds of each method's parts; a part that took too long to repeat is left out."""
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for part in PARTS:
        for method, run in _runs(shape, part).items():
            with torch.no_grad():
                taken = milliseconds(run)
            if taken is not None:
                times[method][part] = taken
    return {"shape": shape.to_json(), "ms": times}


def _runs(shape: Shape, part: Part) -> dict[str, Callable[[], object]]:
    # What makes a part, by method.
    problem, input, weight, gradient = shape.problem()
    runs: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        if reason_against(method, problem) is not None:
            continue
        if part == "convolve":
            runs[method.name] = partial(method.convolve, input, weight, None, problem)
        elif part == "transpose":
            runs[method.name] = partial(method.transpose, gradient, weight, problem)
        elif part == "correlate":
            runs[method.name] = partial(method.correlate, input, gradient, problem)
        elif method.gradients is not None:
            runs[method.name] = partial(method.gradients, input, weight, gradient, problem)
    return runs


def milliseconds(run: Callable[[], object]) -> float | None:
    """Least time of a call after one that is not timed; None where that one takes too long.

    Other work on the machine only adds to it. Before each call much other memory is written: in a model, what a layer
    needs has left the cache since then.
    """
    start = time.perf_counter()
    run()
    if time.perf_counter() - start > LONGEST:
        return None
    calls: list[float] = []
    while len(calls) < 3 or (sum(calls) < 0.05 and len(calls) < 7):
        _ELSEWHERE.add_(1)
        start = time.perf_counter()
        run()
        calls.append(time.perf_counter() - start)
    return min(calls) * 1e3


def fit(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Nanoseconds an operation, and by method and part the ratios of estimated to measured times."""
    rows = []
    for entry in result["shapes"]:
        problem = Shape.from_json(entry["shape"]).problem_alone()
        for method, parts in entry["ms"].items():
            count = named(method).operations
            assert count is not None
            rows += [(f"{method}, {part}", count(problem, part), taken * 1e6) for part, taken in parts.items()]
    names = sorted({name for _, counts, _ in rows for name in counts})
    taken = numpy.array([time for *_, time in rows])
    table = numpy.array([[counts.get(name, 0.0) for name in names] for _, counts, _ in rows])
    scale = (table / taken[:, None]).max(axis=0)
    table = table / scale
    start, _ = nnls(table / taken[:, None], numpy.ones(len(rows)), maxiter=100 * len(names))

    # Rates as exponentials stay above zero; errors of logarithms make half and twice equally wrong.
    def errors_of(logarithms: Any) -> Any:
        return numpy.log(table @ numpy.exp(logarithms)) - numpy.log(taken)

    def slopes_of(logarithms: Any) -> Any:
        parts = table * numpy.exp(logarithms)
        return parts / parts.sum(axis=1, keepdims=True)

    logarithms = numpy.log(numpy.maximum(start, 1e-3))
    solved = least_squares(errors_of, logarithms, slopes_of, loss="soft_l1", f_scale=0.3, max_nfev=500)
    rates = {name: float(f"{cost:.4g}") for name, cost in zip(names, numpy.exp(solved.x) / scale, strict=True)}
    errors: dict[str, list[float]] = defaultdict(list)
    for kind, counts, taken in rows:
        errors[kind].append(max(sum(count * rates[name] for name, count in counts.items()), 1.0) / taken)
    return rates, errors


def source(rates: Mapping[str, float], result: Mapping[str, Any]) -> str:
    """The file that holds the rates."""
    written = {
        "what": "nanoseconds that an operation takes on CPU, in float32; each method's file says what it counts",
        "written by": "python -m benchmarks.fit --measure",
        "fitted on": f"{len(result['shapes'])} random convolutions, {result['threads']} threads",
        "cpu": result["machine"]["cpu"],
        "torch": result["versions"]["torch"],
        "date": result["date"][:10],
        "nanoseconds": dict(sorted(rates.items())),
    }
    return json.dumps(written, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
