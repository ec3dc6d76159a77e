"""Direct convolution: torch's own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import is_channels_last, to_channels_last
from .select import NEAR_TAPS, Problem

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve_direct(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """`torch.nn.functional.convNd`, with padding that may differ before and after an axis.

    Args:
        input: (batch, in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (out_channels) or None.
        problem: Sizes, stride, padding and groups of the call.

    Returns:
        (batch, out_channels, *map out).
    """
    padding = [min(pads) for pads in problem.padding]
    extra = [(before - even, after - even) for (before, after), even in zip(problem.padding, padding, strict=True)]
    if any(any(pair) for pair in extra):
        input = F.pad(input, [cells for pair in reversed(extra) for cells in pair])
    convolve = _CONVOLUTIONS[len(problem.kernel)]
    if _prefers_channels_last(input, problem):
        input = to_channels_last(input)
        return convolve(input, weight, bias, problem.stride, padding, 1, problem.groups).contiguous()
    return convolve(input, weight, bias, problem.stride, padding, 1, problem.groups)


def _prefers_channels_last(input: Tensor, problem: Problem) -> bool:
    # On CPU, depthwise kernels beyond the near taps are many times faster on channels_last maps.
    return (
        problem.device == "cpu"
        and len(problem.kernel) == 2
        and problem.in_channels == problem.groups
        and math.prod(problem.kernel) > NEAR_TAPS
        and not torch.compiler.is_exporting()
        and not is_channels_last(input)
    )
