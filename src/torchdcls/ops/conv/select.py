"""Which method can run a convolution, and which is expected to be the fastest."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

Method = Literal["auto", "direct", "fft"]


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
    floating: bool
    training: bool

    @property
    def outputs(self) -> tuple[int, ...]:
        """Map size of the output."""
        rows = zip(self.map, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + sum(pads) - taps) // step + 1 for size, taps, step, pads in rows)

    def with_kernel(self, kernel: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> "Problem":
        """The same problem with another kernel size and padding."""
        return replace(self, kernel=kernel, padding=padding)


def unsupported_reason(method: Method, problem: Problem) -> str | None:
    """Why `method` cannot run the problem, or None if it can. `auto` and the error of a named method both ask here."""
    if method != "fft":
        return None
    if not problem.floating:
        return "the transform needs real floating-point tensors"
    if any(step != 1 for step in problem.stride):
        return f"the transform gives every output, and stride {problem.stride} would throw most of them away"
    if any(max(pads) >= size for pads, size in zip(problem.padding, problem.kernel, strict=True)):
        return f"padding {problem.padding} reaches beyond the kernel {problem.kernel}"
    if problem.batch == 0:
        return "the batch is empty"
    return None


def choose(problem: Problem) -> Method:
    """The method expected to be the fastest.

    Direct convolution costs one multiplication a tap, the transform the same for every kernel. The transform is taken
    for depthwise kernels from 15x15 taps on in training and 31x31 in inference, on maps of 12x12 cells and more. Exported
    programs get the direct convolution, one node that holds for every map size.
    """
    if torch.compiler.is_exporting() or unsupported_reason("fft", problem) is not None:
        return "direct"
    depthwise = problem.in_channels == problem.groups
    taps = math.prod(problem.kernel)
    if depthwise and math.prod(problem.map) >= 144 and taps >= (225 if problem.training else 961):
        return "fft"
    return "direct"
