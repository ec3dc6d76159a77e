"""Which method can run a convolution, which is expected to be the fastest, and why."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..caches import cached
from ..tracing import constant_when_compiled, sizes_are_known, traced_by_jit
from .costs import NANOSECONDS
from .depthwise import depthwise_operations
from .direct import direct_operations, least_time
from .fft import fft_operations, kernel_bytes
from .matmul import matmul_operations, matrix_bytes
from .native import THIN
from .problem import Part, Problem
from .triton.support import unsupported as unsupported_by_triton

Method = Literal["auto", "direct", "depthwise", "fft", "matmul", "triton"]
METHODS: tuple[Method, ...] = ("auto", "direct", "depthwise", "fft", "matmul", "triton")
# What is counted and measured: the methods of a CPU.
OPERATIONS: dict[Method, Callable[[Problem, Part], dict[str, float]]] = {
    "direct": direct_operations,
    "depthwise": depthwise_operations,
    "fft": fft_operations,
    "matmul": matmul_operations,
}


@dataclass(frozen=True)
class Plan:
    """The method of each part of a convolution. "matmul" makes all parts or none."""

    output: Method
    input_gradient: Method
    weight_gradient: Method

    @classmethod
    def of_one(cls, method: Method) -> "Plan":
        """The plan that makes all parts by one method."""
        return cls(method, method, method)


def unsupported_reason(method: Method, problem: Problem) -> str | None:
    """Why `method` cannot run the problem, or None if it can. `auto` and the error of a named method both ask here."""
    if method in ("auto", "direct"):
        return None
    if traced_by_jit():
        return (
            "torch.jit.trace and the old ONNX exporter make a program for maps of any size, "
            + "and it is made for one (torchdcls.fuse puts plain convolutions in the place of layers)"
        )
    if not problem.dtype.is_floating_point:
        return "it needs real floating-point tensors"
    if problem.batch == 0:
        return "the batch is empty"
    if problem.in_channels == 0 or problem.out_channels == 0:
        return "there are no channels"
    if method in ("depthwise", "triton") and not problem.depthwise:
        ends = problem.in_channels, problem.out_channels
        came, gone = reversed(ends) if problem.transposed else ends
        channels = f"{came} to {gone} in {problem.groups} groups"
        return f"it convolves each channel by itself, with one filter, and channels are {channels}"
    if method == "fft":
        if any(step != 1 for step in problem.stride):
            waste = "spread the input among zeros" if problem.transposed else "throw most of them away"
            return f"the transform gives every output, and stride {problem.stride} would {waste}"
        if any(max(pads) >= size for pads, size in zip(problem.padding, problem.kernel, strict=True)):
            return f"padding {problem.padding} reaches beyond the kernel {problem.kernel}"
    return unsupported_by_triton(problem) if method == "triton" else None


def undesired_reason(method: Method, problem: Problem) -> str | None:
    """Why `auto` leaves `method` out although it could run, or None."""
    if method == "direct":
        return None
    if problem.device not in _UNDESIRED:
        return f"nothing is known of its speed on {problem.device}"
    reason = _UNDESIRED[problem.device](method, problem)
    if reason is not None:
        return reason
    if method == "fft" and kernel_bytes(problem) > LARGEST_SPECTRUM_BYTES:
        return f"the kernel's spectrum would take more than {LARGEST_SPECTRUM_BYTES >> 20} MiB"
    if method == "matmul" and matrix_bytes(problem) > LARGEST_MATRIX_BYTES:
        return f"its matrices would take more than {LARGEST_MATRIX_BYTES >> 20} MiB"
    return None


def _undesired_on_cpu(method: Method, problem: Problem) -> str | None:
    if method == "triton":
        return "its interpreter is for tests"
    if method == "depthwise" and not HAS_ONEDNN:
        return "this torch has no oneDNN, whose convolution it lives on"
    if method == "depthwise" and problem.dtype == torch.float64:
        return "oneDNN, whose convolution it lives on, knows no float64"
    return None


def _undesired_on_cuda(method: Method, problem: Problem) -> str | None:
    longest = max(problem.kernel)
    if method in ("depthwise", "matmul"):
        return "it is made for CPUs"
    if method == "triton" and longest < LEAST_LENGTH:
        return f"torch's own is expected to be faster below {LEAST_LENGTH} taps along an axis"
    if method == "triton" and longest > MOST_LENGTH:
        return f"spectra are expected to be faster beyond {MOST_LENGTH} taps along an axis"
    if method == "fft" and not (problem.depthwise and longest > MOST_LENGTH and sizes_are_known(problem.map)):
        return f"it is expected to pay where depthwise kernels have more than {MOST_LENGTH} taps along an axis"
    return None


_UNDESIRED = {"cpu": _undesired_on_cpu, "cuda": _undesired_on_cuda}
# What `auto` goes by on CUDA: what counts of operations and bytes let expect, not a measurement.
LEAST_LENGTH, MOST_LENGTH = 9, 63
HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# Factors on estimates before they are compared. Direct is what one would have had, and must be clearly beaten; "fft"
# and "matmul" take more memory on their way, and are slower than estimated where caches are small or shared.
HANDICAPS: dict[Method, float] = {"direct": 1.0, "depthwise": 1.05, "fft": 1.25, "matmul": 1.25}
# What `explain_method` says of results that are not torch's own where a map holds more than plain numbers.
_CAUTIONS: dict[Method, str] = {
    "fft": "   (loses signs and zeros, spreads NaN; direct never does)",
    "matmul": "   (spreads NaN; direct never does)",
}
# The least gain that is worth another plan than direct. Unit: nanoseconds.
LEAST_GAIN = 1e5
# What `auto` lets the matrices of "matmul" and the spectrum of a kernel take.
LARGEST_MATRIX_BYTES, LARGEST_SPECTRUM_BYTES = 2**28, 2**29


@cached(maxsize=4096)
def estimate(method: Method, part: Part, problem: Problem) -> float:
    """Expected time of a part: each operation's count times what it costs. Unit: nanoseconds (on two cores)."""
    counts = OPERATIONS[method](problem, part)
    time = sum(count * NANOSECONDS.get(name, 0.0) for name, count in counts.items())
    if method == "direct":
        time = max(time, least_time(problem, part))
    elif method == "depthwise" and part != "weight gradient":  # made by the same call of torch's
        time = max(time, least_time(problem, "output"))
    # Costs are those of float32. Torch's own convolution has no fast routine for float64 and float16, least of all for
    # few channels a group; the other methods make float32 of float16.
    if method == "direct" and problem.dtype in (torch.float64, torch.float16):
        time *= 10 if problem.groups > 1 else 3
    # One gradient takes no longer than both, whatever was fitted.
    return min(time, estimate(method, "gradients", problem)) if part.endswith(" gradient") else time


def estimate_plan(plan: Plan, problem: Problem, of_input: bool, of_weight: bool) -> float:
    """Expected time of a plan with the gradients that are asked for, of a transposed call its. Unit: nanoseconds."""
    if problem.transposed:
        time = estimate(plan.input_gradient, "input gradient", problem)
        time += estimate(plan.output, "output", problem) if of_input else 0.0
        return time + (estimate(plan.weight_gradient, "weight gradient", problem) if of_weight else 0.0)
    time = estimate(plan.output, "output", problem)
    if of_input and of_weight and plan.input_gradient == plan.weight_gradient:
        return time + estimate(plan.input_gradient, "gradients", problem)
    if of_input:
        time += estimate(plan.input_gradient, "input gradient", problem)
    if of_weight:
        time += estimate(plan.weight_gradient, "weight gradient", problem)
    return time


def choose(problem: Problem, of_input: bool = False, of_weight: bool = False) -> Plan:
    """The plan expected to be the fastest.

    On CPU: the one with the lowest estimate, after handicaps, among those that can run. On CUDA: "triton" for depthwise
    kernels of many taps, "fft" for longer ones. Direct elsewhere, and in exported or traced programs: one node. A
    graph compiled for maps of any size on CPU has no number to estimate with, and takes "depthwise" where that can run.
    """
    if torch.compiler.is_exporting() or traced_by_jit() or problem.device not in ("cpu", "cuda"):
        return Plan.of_one("direct")
    if problem.device == "cuda":
        fastest_first: tuple[Method, ...] = ("triton", "fft", "direct")
        return Plan.of_one(next(method for method in fastest_first if reason_against(method, problem) is None))
    if not sizes_are_known(problem.map):
        compiling = torch.compiler.is_compiling()  # make_fx records one node where it has no sizes
        able = compiling and reason_against("depthwise", problem) is None and problem.kernel[-1] >= THIN
        return Plan.of_one("depthwise" if able else "direct")
    if torch.compiler.is_compiling():
        # The batch may be any number there: a plan for the power of two that it fits in makes few graphs.
        batch = 0 if problem.batch == 0 else 1
        while batch < problem.batch:
            batch *= 2
        problem = replace(problem, batch=batch)
    # Compilers take tuples for constants, and strings.
    return Plan(*_cheapest(problem.fields(), of_input, of_weight))


@constant_when_compiled
def _cheapest(fields: tuple[Any, ...], of_input: bool, of_weight: bool) -> tuple[Method, Method, Method]:
    plan = _known_cheapest(Problem(*fields), of_input, of_weight)
    return plan.output, plan.input_gradient, plan.weight_gradient


@cached(maxsize=1024)
def _known_cheapest(problem: Problem, of_input: bool, of_weight: bool) -> Plan:
    def cautious(plan: Plan) -> float:
        methods = {plan.output, plan.input_gradient, plan.weight_gradient}
        time = estimate_plan(plan, problem, of_input, of_weight) * max(HANDICAPS[method] for method in methods)
        return time if methods == {"direct"} else time + LEAST_GAIN

    return min(_plans(problem, of_input, of_weight), key=cautious)


def _plans(problem: Problem, of_input: bool, of_weight: bool) -> list[Plan]:
    plans = []
    able = {method for method in ("depthwise", "fft", "matmul") if reason_against(method, problem) is None}
    if "matmul" in able:
        plans.append(Plan.of_one("matmul"))
    mixed: list[Method] = ["direct", *(method for method in ("depthwise", "fft") if method in able)]
    asked = (of_input, True, of_weight) if problem.transposed else (True, of_input, of_weight)
    parts = itertools.product(*(mixed if wanted else mixed[:1] for wanted in asked))
    return plans + [Plan(*methods) for methods in parts]


def reason_against(method: Method, problem: Problem) -> str | None:
    """Why `auto` does not take `method`, or None if it may."""
    reason = unsupported_reason(method, problem)
    return undesired_reason(method, problem) if reason is None else reason


def explain(problem: Problem, of_input: bool, of_weight: bool) -> str:
    """A table of what each method is expected to take, or why it cannot run, and what `auto` takes."""
    made: list[tuple[str, list[Part], bool]] = [
        ("output", ["output"], True),
        ("input gradient", ["input gradient"], of_input),
        ("weight gradient", ["weight gradient"], of_weight),
        ("both gradients", ["gradients"], of_input and of_weight),
    ]
    plan = choose(problem, of_input, of_weight)
    by_output, by_input = plan.output, plan.input_gradient
    if problem.transposed:
        # One is made long before the other: both gradients are the sum of each.
        parts: tuple[list[Part], ...] = (
            ["input gradient"],
            ["output"],
            ["weight gradient"],
            ["output", "weight gradient"],
        )
        made = [(title, its, wanted) for (title, _, wanted), its in zip(made, parts, strict=True)]
        by_output, by_input = by_input, by_output
    asked = [(title, parts) for title, parts, wanted in made if wanted]
    lines = [f"{'method':9}" + "".join(f"{title:>18}" for title, _ in asked) + "   (expected on two cores, ms)"]
    for method in METHODS[1:]:
        reason = reason_against(method, problem)
        if reason is None and problem.device != "cpu":
            lines.append(f"{method:9}  can run; times are known on CPU alone")
        elif reason is None:
            times = [sum(estimate(method, part, problem) for part in parts) / 1e6 for _, parts in asked]
            caution = _CAUTIONS.get(method, "")
            lines.append(f"{method:9}" + "".join(f"{time:18.2f}" for time in times) + caution)
        else:
            lines.append(f"{method:9}  not taken: {reason}")
    taken = [f"output by {by_output}"]
    taken += [f"input gradient by {by_input}"] * of_input
    taken += [f"weight gradient by {plan.weight_gradient}"] * of_weight
    if problem.device == "cpu":
        handicaps = ", ".join(f"{method} by {factor}" for method, factor in HANDICAPS.items() if factor != 1)
        lines.append(f"auto multiplies {handicaps}, and leaves direct for a gain of {LEAST_GAIN / 1e6} ms or more")
    lines.append(f"auto takes: {', '.join(taken)}")
    return "\n".join(lines)
