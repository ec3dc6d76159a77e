"""Direct convolution: torch's own."""

import math

import torch
from torch import Tensor

from ..tracing import shape_of
from .native import CONVOLUTIONS, SLOW_WIDTH, THIN, TRANSPOSED_CONVOLUTIONS, WIDE, evenly_padded, safe_padding
from .problem import Part, Problem

# What a tap of a depthwise kernel takes at least where channels fill vectors of 16: of a kernel below `THIN` along the
# last axis, of one below `WIDE`, and of one that is long along its first of three axes alone. Unit: nanoseconds.
LEAST_THIN, LEAST_NARROW, LEAST_DEEP = 0.02, 0.01, 1.0


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
    padding = safe_padding(problem)
    input = evenly_padded(input, problem.padding, padding)
    return CONVOLUTIONS[len(problem.kernel)](input, weight, bias, problem.stride, padding, 1, problem.groups)


def gradients_direct(
    input: Tensor | None, weight: Tensor, gradient: Tensor, problem: Problem, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `convolve_direct` without bias.

    Args:
        input: As given to `convolve_direct`, or None where the gradient of the weight is not asked for.
        weight, problem: As given to `convolve_direct`.
        gradient: Of the output, (batch, out_channels, *map out).
        of_input, of_weight: Which gradients to make.

    Returns:
        Gradients of the input and of the weight, None where not asked for.
    """
    if input is None:
        return transpose_direct(gradient, weight, None, problem), None
    padding = safe_padding(problem)
    padded = evenly_padded(input, problem.padding, padding)
    dims = len(problem.kernel)
    mask = [of_input, of_weight, False]
    to_input, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, padded, weight, None, problem.stride, padding, [1] * dims, False, [0] * dims, problem.groups, mask
    )
    if of_input:
        for axis, (size, (before, _), even) in enumerate(
            zip(problem.map, problem.padding, padding, strict=True), start=2
        ):
            to_input = to_input.narrow(axis, before - even, size)
    return to_input if of_input else None, to_weight if of_weight else None


def transpose_direct(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """`torch.nn.functional.conv_transposeNd`, with padding that may differ before and after an axis.

    Args:
        input: (batch, out_channels, *map out) of the problem, of which this is the transpose.
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (in_channels) or None.
        problem: Sizes, stride, padding and groups.

    Returns:
        (batch, in_channels, *map) of the problem.
    """
    sizes, padding, beyond = problem.map, safe_padding(problem), []
    # Torch cuts both ends alike. What it leaves is made, and cut here.
    rows = zip(sizes, problem.kernel, problem.stride, problem.padding, shape_of(input)[2:], strict=True)
    for size, taps, step, (before, after), cells in rows:
        beyond.append(size + before + after - (cells - 1) * step - taps)
    transpose = TRANSPOSED_CONVOLUTIONS[len(sizes)]
    output = transpose(input, weight, bias, problem.stride, padding, beyond, problem.groups)
    for axis, (size, (before, after), even) in enumerate(zip(sizes, problem.padding, padding, strict=True), start=2):
        if before != even or after != even:
            output = output.narrow(axis, before - even, size)
    return output


def least_time(problem: Problem, part: Part) -> float:
    """What torch takes for a part at least, as the fit saw few thin kernels. Unit: nanoseconds (on two cores)."""
    width, dims = problem.kernel[-1], len(problem.kernel)
    if not problem.depthwise or width >= WIDE or dims == 1:
        return 0.0
    taps = problem.batch * math.prod(problem.outputs) * math.prod(problem.kernel) * (2 if part == "gradients" else 1)
    if dims == 3:
        return LEAST_DEEP * taps * problem.in_channels if problem.kernel[1:] == (1, 1) else 0.0
    channels = -(-problem.in_channels // 16) * 16
    return (LEAST_THIN if width < THIN else LEAST_NARROW) * taps * channels


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
    if problem.groups == 1 and not problem.depthwise:
        kind = "dense"
    else:
        kind = "depthwise" if problem.depthwise else "grouped"
        if dims < 3:
            width = problem.kernel[-1]
            limits = {THIN: "thin", SLOW_WIDTH: "narrow", WIDE: "slow"} if problem.depthwise else {WIDE: "narrow"}
            kind += " " + next((name for limit, name in limits.items() if width < limit), "wide")
        if problem.depthwise and problem.channels_last:
            kind += " last"
    kind = f"{dims}-D {kind}"
    name = f"direct {kind} {part}"
    if "grouped" in kind:
        # The channels of a group fill vectors or leave them empty, and the layout decides which routine torch has.
        outputs = problem.out_channels // problem.groups
        layout = f"{name} last" if problem.channels_last else name
        return {
            f"{name} call": 1.0,
            f"{layout} tap": float(taps),
            f"{layout} narrow input tap": taps / max(1, min(inputs, 16)),
            f"{layout} narrow output tap": taps / max(1, min(outputs, 16)),
            f"{name} cell": float(cells),
            f"{name} weight": float(problem.out_channels * inputs * math.prod(problem.kernel)),
        }
    return {
        f"{name} call": 1.0,
        f"{name} tap": float(taps),
        f"{name} row tap": taps / problem.outputs[-1],
        f"{name} line tap": taps / problem.kernel[-1],
        f"{name} narrow tap": taps / max(1, min(inputs, problem.out_channels // problem.groups, 16)),
        f"{name} cell": float(cells),
        f"{name} weight": float(problem.out_channels * inputs * math.prod(problem.kernel)),
    }
