"""The compiled kernels of CPUs: depthwise convolution, direct or by spectra, whichever takes less."""

import ctypes
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..caches import cached
from ..native.library import DTYPES, LENGTH, library, missing, three, view
from ..tracing import differentiated_forwards, exporting
from .method import Method, Part
from .operators import depthwise_maps, not_depthwise
from .problem import MAPS, Map, Problem
from .rates import nanoseconds

ALGORITHMS = ("direct", "spectra")
FAILURES = {1: "out of memory", 2: "sizes that they do not support"}


class ProblemSizes(ctypes.Structure):
    """A `td_problem`: a convolution along z, y and x."""

    _fields_ = (
        ("batch", LENGTH),
        ("channels", LENGTH),
        *((name, LENGTH * 3) for name in ("map", "outputs", "kernel", "stride", "before")),
    )


def _convolve(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], before: Sequence[int], output: Tensor
) -> None:
    if bias is None:
        _run("convolve", input, weight, output, stride, before)
        return
    # Half precision is rounded once, after the bias.
    sums = output if output.itemsize >= 4 else torch.empty_like(output, dtype=torch.float32)
    _run("convolve", input, weight, sums, stride, before)
    sums += bias.view(-1, *(1 for _ in stride))
    if sums is not output:
        output.copy_(sums)


def _transpose(gradient: Tensor, weight: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    _run("transpose", output, weight, gradient, stride, before)


def _correlate(input: Tensor, gradient: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    _run("correlate", input, output, gradient, stride, before)


def _run(map: Map, input: Tensor, weight: Tensor, output: Tensor, stride: Sequence[int], before: Sequence[int]) -> None:
    # The tensors of a convolution, one of which is written.
    if not (input.numel() and weight.numel() and output.numel()):
        {"convolve": output, "transpose": input, "correlate": weight}[map].zero_()
        return
    kernels = library()
    if kernels is None:
        raise RuntimeError(f"method: 'native' cannot run: {missing()}")
    shape = (*input.shape[:2], *(tuple(each) for each in (input.shape[2:], output.shape[2:], weight.shape[2:])))
    sizes = *shape, tuple(stride), tuple(before)
    twice = input.dtype == torch.float64
    failed = kernels.td_run(
        twice,
        ALGORITHMS.index(algorithm(map, sizes, twice)),
        MAPS.index(map),
        ctypes.byref(_described(*sizes)),
        *(ctypes.byref(view(tensor)) for tensor in (input, weight.transpose(0, 1), output)),
    )
    if failed:
        raise RuntimeError(f"the compiled kernels cannot {map} {shape}: {FAILURES[failed]}")


@cached(maxsize=1024)
def _described(batch: int, channels: int, *axes: Sequence[int]) -> ProblemSizes:
    *sizes, before = axes
    return ProblemSizes(batch, channels, *(three(each, 1) for each in sizes), three(before, 0))


@cached(maxsize=4096)
def algorithm(map: Map, sizes: tuple[Any, ...], twice: bool) -> str:
    """The one of `ALGORITHMS` that is expected to be faster."""
    counts = _counts(map, sizes, twice)
    return min(counts, key=lambda name: counts[name] * nanoseconds(_rate(map, name)))


def _rate(map: Map, algorithm: str) -> str:
    if algorithm == "spectra":
        return "native spectra"
    return f"native direct {'correlate' if map == 'correlate' else 'convolve'}"


@cached(maxsize=4096)
def _counts(map: Map, sizes: tuple[Any, ...], twice: bool) -> dict[str, float]:
    kernels = library()
    assert kernels is not None
    return {
        name: kernels.td_count(twice, index, MAPS.index(map), ctypes.byref(_described(*sizes)))
        for index, name in enumerate(ALGORITHMS)
    }


def operations(problem: Problem, part: Part) -> dict[str, float]:
    """Operations of the faster algorithm, and cells read and written."""
    if part == "gradients":
        both = operations(problem, "transpose"), operations(problem, "correlate")
        return {name: both[0].get(name, 0.0) + both[1].get(name, 0.0) for name in both[0] | both[1]}
    axes = problem.map, problem.outputs, problem.kernel, problem.stride, tuple(problem.before)
    sizes = problem.batch, problem.in_channels, *axes
    twice = problem.dtype == torch.float64
    taken = algorithm(part, sizes, twice)
    cells = problem.batch * problem.in_channels * (prod(problem.map) + prod(problem.outputs))
    factor = 2.0 if twice else 1.0  # half as many lanes
    return {
        "native call": 1.0,
        _rate(part, taken): factor * _counts(part, sizes, twice)[taken],
        "native cell" if problem.channels_last else "native moved cell": factor * cells,
    }


def unsupported(problem: Problem) -> str | None:
    """Why the compiled kernels cannot run a problem, or None if they can."""
    if problem.device not in ("cpu", "meta"):
        return "it is compiled for CPUs"
    absent = missing()
    if absent is not None:
        return absent
    if not problem.depthwise:
        return not_depthwise(problem)
    if problem.dtype not in DTYPES:
        return f"it does not support {problem.dtype}"
    if differentiated_forwards():
        return "it has no forward-mode derivative"
    if exporting():
        return "an exported program must run without this package"
    return None


NATIVE = Method(
    name="native",
    **depthwise_maps("native", ("CPU",), convolve=_convolve, transpose=_transpose, correlate=_correlate),
    unsupported=unsupported,
    operations=operations,
    own_half=True,
    any_size=True,
    caution="loses signs and zeros, spreads NaN where it takes spectra; direct never does",
)
