"""Direct convolution: torch's own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import is_channels_last, to_channels_last
from .problem import Part, Problem

# Torch's depthwise convolution on CPU takes maps of either memory format up to this many taps.
NEAR_TAPS = 14 * 14
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
    input, padding = _padded(input, problem)
    convolve = _CONVOLUTIONS[len(problem.kernel)]
    if _prefers_channels_last(input, problem):
        input = to_channels_last(input)
        return convolve(input, weight, bias, problem.stride, padding, 1, problem.groups).contiguous()
    return convolve(input, weight, bias, problem.stride, padding, 1, problem.groups)


def gradients_direct(
    input: Tensor, weight: Tensor, gradient: Tensor, problem: Problem, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `convolve_direct` for stride 1, without bias.

    Args:
        input, weight, problem: As given to `convolve_direct`.
        gradient: Of the output, (batch, out_channels, *map out).
        of_input, of_weight: Which gradients to make.

    Returns:
        Gradients of the input and of the weight, None where not asked for.
    """
    to_input = to_weight = None
    if of_input and problem.depthwise and math.prod(problem.kernel) > NEAR_TAPS:
        # Torch's forward convolution, with the kernel turned around, is twice as fast as its gradient.
        turned = weight.flip(list(range(2, weight.dim())))
        to_input = convolve_direct(gradient, turned, None, problem.turned())
        of_input = False
    if of_input or of_weight:
        padded, padding = _padded(input, problem)
        dims = len(problem.kernel)
        mask = [of_input, of_weight, False]
        made = torch.ops.aten.convolution_backward(
            gradient, padded, weight, None, problem.stride, padding, [1] * dims, False, [0] * dims, problem.groups, mask
        )
        if of_input:
            to_input = made[0]
            for axis, (size, (before, _), even) in enumerate(
                zip(problem.map, problem.padding, padding, strict=True), start=2
            ):
                to_input = to_input.narrow(axis, before - even, size)
        to_weight = made[1] if of_weight else None
    return to_input, to_weight


def _padded(input: Tensor, problem: Problem) -> tuple[Tensor, list[int]]:
    # Torch pads both ends alike: the rest is padded before.
    padding = [min(pads) for pads in problem.padding]
    extra = [(before - even, after - even) for (before, after), even in zip(problem.padding, padding, strict=True)]
    if any(any(pair) for pair in extra):
        input = F.pad(input, [cells for pair in reversed(extra) for cells in pair])
    return input, padding


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


def direct_operations(problem: Problem, part: Part) -> dict[str, float]:
    """How many of which operations a part takes: what the cost rule multiplies by measured times."""
    if part == "gradients":
        both = direct_operations(problem, "input gradient"), direct_operations(problem, "weight gradient")
        return both[0] | both[1]
    dims = len(problem.kernel)
    inputs = problem.in_channels // problem.groups
    taps = problem.batch * problem.out_channels * math.prod(problem.outputs) * math.prod(problem.kernel) * inputs
    cells = problem.batch * (
        problem.in_channels * math.prod(problem.map) + problem.out_channels * math.prod(problem.outputs)
    )
    if inputs > 1 or problem.out_channels > problem.groups:
        kind = f"{dims}-D {'dense' if problem.groups == 1 else 'grouped'}"
    else:
        far = "far" if math.prod(problem.kernel) > NEAR_TAPS else "near"
        kind = f"{dims}-D depthwise {far}{' last' if problem.channels_last else ''}"
    name = f"direct {kind} {part}"
    return {
        f"{name} call": 1.0,
        f"{name} tap": float(taps),
        f"{name} row tap": taps / problem.outputs[-1],
        f"{name} line tap": taps / problem.kernel[-1],
        f"{name} narrow tap": taps / min(inputs, problem.out_channels // problem.groups, 16),
        f"{name} cell": float(cells),
        f"{name} weight": float(problem.out_channels * inputs * math.prod(problem.kernel)),
    }
