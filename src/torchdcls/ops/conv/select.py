"""Which method can run a convolution, and which is expected to be the fastest."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

Method = Literal["auto", "direct", "fft", "matmul"]
# Torch's direct depthwise convolution on CPU is at its fastest up to this many taps.
NEAR_TAPS = 14 * 14
METHODS: tuple[str, ...] = ("auto", "direct", "fft", "matmul")


@dataclass(frozen=True)
class Problem:
    """The sizes of one convolution call; `padding` holds (before, after) pairs."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    map: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    device: str
    floating: bool
    training: bool

    @property
    def outputs(self) -> tuple[int, ...]:
        """Map size of the output."""
        rows = zip(self.map, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + sum(pads) - taps) // step + 1 for size, taps, step, pads in rows)

    @property
    def transform_lengths(self) -> tuple[int, ...]:
        """Shortest good transforms whose circular products leave the outputs free of what wraps around (stride 1)."""
        return tuple(good_size(size + max(pads)) for size, pads in zip(self.map, self.padding, strict=True))

    def with_kernel(self, kernel: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> "Problem":
        """The same problem with another kernel size and padding."""
        return replace(self, kernel=kernel, padding=padding)


@dataclass(frozen=True)
class Cost:
    """What a method's steps cost on two CPU cores in float32, in nanoseconds each.

    Rounded from timings of depthwise layers at 3x3 to 56x56 cells with kernels of 7x7 to 31x31. Direct convolution
    leaves torch's fast path above NEAR_TAPS when it trains.
    """

    call: float
    tap: float = 0  # a multiplication of a depthwise direct convolution
    far_tap: float = 0  # the same above NEAR_TAPS
    cell: float = 0  # a cell of all maps: in and out, or of the padded map for the transform
    weight: float = 0  # an element of the matrices that the small maps are multiplied with


_INFERENCE = {
    "direct": Cost(call=5e4, tap=0.007, far_tap=0.007),
    "fft": Cost(call=3e5, cell=2.8),
    "matmul": Cost(call=1e5, cell=1.0, weight=2.5),
}
_TRAINING = {
    "direct": Cost(call=1e5, tap=0.12, far_tap=0.33),
    "fft": Cost(call=7e5, cell=8.0),
    "matmul": Cost(call=7e5, cell=3.0, weight=5.0),
}


def unsupported_reason(method: Method, problem: Problem) -> str | None:
    """Why `method` cannot run the problem, or None if it can. `auto` and the error of a named method both ask here."""
    if method in ("auto", "direct"):
        return None
    if not problem.floating:
        return "it needs real floating-point tensors"
    if problem.batch == 0:
        return "the batch is empty"
    if method == "fft":
        if any(step != 1 for step in problem.stride):
            return f"the transform gives every output, and stride {problem.stride} would throw most of them away"
        if any(max(pads) >= size for pads, size in zip(problem.padding, problem.kernel, strict=True)):
            return f"padding {problem.padding} reaches beyond the kernel {problem.kernel}"
    return None


def estimate(method: Method, problem: Problem) -> float:
    """Expected time of a depthwise problem, forward and, where gradients are asked for, backward. Unit: nanoseconds."""
    cost = (_TRAINING if problem.training else _INFERENCE)[method]
    maps = problem.batch * problem.in_channels
    cells_in, cells_out = math.prod(problem.map), math.prod(problem.outputs)
    if method == "direct":
        taps = math.prod(problem.kernel)
        return cost.call + maps * cells_out * taps * (cost.tap if taps <= NEAR_TAPS else cost.far_tap)
    if method == "fft":
        return cost.call + (maps + 2 * problem.out_channels) * math.prod(problem.transform_lengths) * cost.cell
    matrices = problem.out_channels * cells_in * cells_out
    return cost.call + matrices * cost.weight + maps * (cells_in + cells_out) * cost.cell


def choose(problem: Problem) -> Method:
    """The method expected to be the fastest.

    Depthwise on CPU: the one with the lowest estimate among those that can run it. Direct elsewhere: nothing is
    measured for more than one input channel per group, nor for other devices. Exported programs get the direct
    convolution too, one node that holds for every map size.
    """
    if torch.compiler.is_exporting() or problem.device != "cpu" or problem.in_channels != problem.groups:
        return "direct"
    best: Method = "direct"
    others: tuple[Method, ...] = ("fft", "matmul")
    for method in others:
        # Written as a comparison: torch.compile guards it where sizes are dynamic, and cannot trace min().
        if unsupported_reason(method, problem) is None and estimate(method, problem) < estimate(best, problem):
            best = method
    return best


def good_size(length: int) -> int:
    """Smallest integer of at least `length` whose prime factors are 2, 3, 5 and 7: transforms are fast there."""
    size = length
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1
