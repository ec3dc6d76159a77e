"""Which method can run a convolution, which is expected to be the fastest, and why."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..caches import cached
from ..tracing import constant_when_compiled, exporting, sizes_are_known, traced_by_jit
from .method import Method, Part
from .methods import METHODS, named
from .problem import MAPS, Map, Problem
from .rates import nanoseconds

# Another method than torch's own has to gain this much for each map: the time of a call. Unit: nanoseconds.
LEAST_GAIN = 3e4


@dataclass(frozen=True)
class Plan:
    """The method of each map of a convolution, by name."""

    convolve: str
    transpose: str
    correlate: str

    @classmethod
    def of_one(cls, name: str) -> "Plan":
        """The plan with one method for all maps."""
        return cls(name, name, name)

    def of(self, map: Map) -> Method:
        """The method of a map."""
        name: str = getattr(self, map)
        return named(name)

    def methods(self) -> tuple[Method, Method, Method]:
        """The methods of all maps."""
        return named(self.convolve), named(self.transpose), named(self.correlate)


def maps_of(output: Map, of_input: bool, of_weight: bool) -> tuple[Map, ...]:
    """The maps of a call: its output, then the gradients that are wanted."""
    back: Map = "convolve" if output == "transpose" else "transpose"
    wanted: tuple[tuple[Map, bool], ...] = ((output, True), (back, of_input), ("correlate", of_weight))
    return tuple(map for map, want in wanted if want)


def unsupported_reason(method: Method, problem: Problem) -> str | None:
    """Why a method cannot run the problem, or None if it can; for `auto` and for the error of a named method."""
    if method is METHODS[0]:
        return None
    if traced_by_jit():
        return (
            "torch.jit.trace and the old ONNX exporter make a program for maps of any size, and it needs a known size "
            "(torchdcls.fuse replaces layers by plain convolutions)"
        )
    if not problem.dtype.is_floating_point:
        return "it needs real floating-point tensors"
    if problem.batch == 0:
        return "the batch is empty"
    if problem.in_channels == 0 or problem.out_channels == 0:
        return "there are no channels"
    return method.unsupported(problem)


def reason_against(method: Method, problem: Problem) -> str | None:
    """Why `auto` does not take a method, or None."""
    reason = unsupported_reason(method, problem)
    if reason is not None or method is METHODS[0]:
        return reason
    if problem.device not in ("cpu", "cuda"):
        return f"its speed on {problem.device} is unknown"
    return method.undesired(problem)


@cached(maxsize=4096)
def estimate(name: str, part: Part, problem: Problem) -> float:
    """Expected time of a part: the counts of its operations times their rates. Unit: nanoseconds (on two cores)."""
    operations = named(name).operations
    if operations is None:
        return float("inf")
    time = sum(count * nanoseconds(operation) for operation, count in operations(problem, part).items())
    # Fitted rates must not make one gradient take longer than both.
    return min(time, estimate(name, "gradients", problem)) if part in ("transpose", "correlate") else time


def estimate_plan(plan: Plan, problem: Problem, maps: tuple[Map, ...]) -> float:
    """Expected time of the maps of a call, the output first. Unit: nanoseconds."""
    parts: tuple[Part, ...] = maps
    if maps[1:] == ("transpose", "correlate") and plan.transpose == plan.correlate:
        parts = (maps[0], "gradients")
    return sum(estimate(plan.of("transpose" if part == "gradients" else part).name, part, problem) for part in parts)


def choose(problem: Problem, output: Map, of_input: bool = False, of_weight: bool = False) -> Plan:
    """The plan expected to be the fastest.

    On CPU it has the lowest estimate, after handicaps, of the plans that can run. On CUDA it is the last of `METHODS`
    without a reason against it. On other devices, and in exported or traced programs, it is torch's own. A graph
    compiled for maps of any size has no sizes to estimate with: it takes a method that serves any size by one node.
    """
    own = Plan.of_one(METHODS[0].name)
    if exporting() or traced_by_jit() or problem.device not in ("cpu", "cuda"):
        return own
    if problem.device == "cuda":
        return Plan.of_one(next(each.name for each in reversed(METHODS) if reason_against(each, problem) is None))
    if not sizes_are_known(problem.map):
        if not torch.compiler.is_compiling():  # make_fx records one node where it has no sizes
            return own
        able = (each.name for each in METHODS if each.any_size and reason_against(each, problem) is None)
        return Plan.of_one(next(able, METHODS[0].name))
    if torch.compiler.is_compiling():
        # The batch varies there: a plan for the next power of two makes few graphs.
        batch = 0 if problem.batch == 0 else 1
        while batch < problem.batch:
            batch *= 2
        problem = replace(problem, batch=batch)
    # Compilers take tuples and strings for constants.
    return Plan(*_cheapest(problem.fields(), maps_of(output, of_input, of_weight)))


@constant_when_compiled
def _cheapest(fields: tuple[Any, ...], maps: tuple[Map, ...]) -> tuple[str, str, str]:
    plan = _known_cheapest(Problem(*fields), maps)
    return plan.convolve, plan.transpose, plan.correlate


@cached(maxsize=1024)
def _known_cheapest(problem: Problem, maps: tuple[Map, ...]) -> Plan:
    def cautious(plan: Plan) -> float:
        methods = [plan.of(map) for map in maps]
        time = estimate_plan(plan, problem, maps) * max(method.handicap for method in methods)
        return time if all(method is METHODS[0] for method in methods) else time + LEAST_GAIN * len(maps)

    return min(_plans(problem, maps), key=cautious)


def _plans(problem: Problem, maps: tuple[Map, ...]) -> Iterator[Plan]:
    # Other maps take the method of the output, so that plans of one method are equal.
    able = [method.name for method in METHODS if reason_against(method, problem) is None]
    for names in itertools.product(able, repeat=len(maps)):
        taken = dict(zip(maps, names, strict=True))
        yield Plan(*(taken.get(map, names[0]) for map in MAPS))


def explain(problem: Problem, output: Map, of_input: bool, of_weight: bool) -> str:
    """A table of the expected time of each method, or why it cannot run, and of the plan of `auto`."""
    maps = maps_of(output, of_input, of_weight)
    titles = ["output", *(["input gradient"] if of_input else []), *(["weight gradient"] if of_weight else [])]
    parts: list[tuple[Part, ...]] = [(map,) for map in maps]
    columns = list(zip(titles, parts, strict=True))
    if of_input and of_weight:
        # A transposed convolution computes them one after the other.
        columns.append(("both gradients", ("gradients",) if output == "convolve" else maps[1:]))
    lines = [f"{'method':9}" + "".join(f"{title:>18}" for title, _ in columns) + "   (expected on two cores, ms)"]
    for method in METHODS:
        reason = reason_against(method, problem)
        if reason is not None:
            lines.append(f"{method.name:9}  not taken: {reason}")
        elif problem.device != "cpu" or method.operations is None:
            lines.append(f"{method.name:9}  can run; times are known on CPU alone")
        else:
            times = [sum(estimate(method.name, part, problem) for part in of) / 1e6 for _, of in columns]
            caution = f"   ({method.caution})" if method.caution else ""
            lines.append(f"{method.name:9}" + "".join(f"{time:18.2f}" for time in times) + caution)
    plan = choose(problem, output, of_input, of_weight)
    if problem.device == "cpu":
        factors = ", ".join(f"{each.name} as {each.handicap} times as long" for each in METHODS if each.handicap != 1)
        gain = LEAST_GAIN * len(maps) / 1e6
        lines.append(f"auto counts {factors}, and leaves {METHODS[0].name} for a gain of {gain:.2f} ms or more")
    taken = [f"{title} by {plan.of(map).name}" for title, map in zip(titles, maps, strict=True)]
    lines.append(f"auto takes: {', '.join(taken)}")
    return "\n".join(lines)
