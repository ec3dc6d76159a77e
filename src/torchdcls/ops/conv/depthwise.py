"""Depthwise convolution on CPU: torch's forward convolution, in the layout in which it is fast, makes every part.

Torch's forward convolution of depthwise maps comes near the rate of the machine where channels are last; its gradients
run at a tenth of that and less. Both gradients are forward convolutions themselves: that of the input has the kernel
turned around, that of the weight has the gradient of the output for a kernel and gives as many cells as the kernel has.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import is_channels_last, to_channels_last
from .native import CONVOLUTIONS, SLOW_WIDTH, WIDE, even_padding, evenly_padded
from .problem import Part, Problem

# Of the maps of the samples that the gradient of the weight convolves at once, so that they stay in cache.
CELLS_AT_ONCE = 2**19


def convolve_depthwise(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """Depthwise convolution, in the memory format of `input`.

    Args:
        input: (batch, channels, *map).
        weight: (channels, 1, *kernel).
        bias: (channels) or None.
        problem: Sizes, stride and padding of the call.

    Returns:
        (batch, channels, *map out).
    """
    padding, stride = problem.padding, problem.stride
    if is_channels_last(input) or problem.kernel[-1] < WIDE:
        return _convolve(input, weight, bias, padding, stride)
    if len(problem.kernel) > 1:
        return _convolve(to_channels_last(input), weight, bias, padding, stride).contiguous()
    # Torch knows no channels_last for one axis, but for two of which one is 1.
    row = to_channels_last(input.unsqueeze(2))
    output = _convolve(row, weight.unsqueeze(2), bias, ((0, 0), *padding), (1, *stride))
    return output.squeeze(2).contiguous()


def gradients_depthwise(
    input: Tensor | None, weight: Tensor, gradient: Tensor, problem: Problem, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `convolve_depthwise` without bias.

    Args:
        input: As given to `convolve_depthwise`, or None where the gradient of the weight is not asked for.
        weight, problem: As given to `convolve_depthwise`.
        gradient: Of the output, (batch, channels, *map out).
        of_input, of_weight: Which gradients to make.

    Returns:
        Gradients of the input and of the weight, None where not asked for.
    """
    gradient, problem = _spaced(gradient, problem.stride), _without_stride(problem)
    to_input = to_weight = None
    if of_input:
        turned = weight.flip(list(range(2, weight.dim())))
        to_input = convolve_depthwise(gradient, turned, None, problem.turned())
    if of_weight:
        assert input is not None
        to_weight = _gradient_of_weight(input, gradient, problem)
    return to_input, to_weight


def _gradient_of_weight(input: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
    # Channels last and at least two axes: one row for a map of one axis.
    rows = [maps.unsqueeze(2) if maps.dim() == 3 else maps for maps in (input, gradient)]
    input, gradient = (to_channels_last(maps) for maps in rows)
    padding = problem.padding if len(problem.kernel) > 1 else ((0, 0), *problem.padding)
    dims = input.dim() - 2
    size = _samples_at_once(problem)
    parts = []
    for maps, kernel in zip(torch.split(input, size), torch.split(gradient, size), strict=True):
        if dims < 3:
            # The samples are one more axis of the map, all of it under the kernel.
            maps, kernel = maps.unsqueeze(0).transpose(1, 2), kernel.transpose(0, 1).unsqueeze(1)
            parts.append(_convolve(maps, kernel, None, ((0, 0), *padding)))
        else:  # torch has no convolution of four axes
            parts.append(_convolve(maps, kernel.transpose(0, 1), None, padding))
    total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
    return total.reshape(problem.out_channels, 1, *problem.kernel).contiguous()


def _samples_at_once(problem: Problem) -> int:
    if len(problem.kernel) == 3:
        return 1
    if torch.compiler.is_compiling():  # a graph of fewer axes holds for any batch
        return problem.batch
    return max(1, CELLS_AT_ONCE // (problem.in_channels * math.prod(problem.map)))


def _without_stride(problem: Problem) -> Problem:
    # The problem that has all the outputs between those of this one too.
    padding = [
        (before, (cells - 1) * step + taps - size - before)
        for size, taps, cells, step, (before, _) in zip(
            problem.map, problem.kernel, problem.outputs, problem.stride, problem.padding, strict=True
        )
    ]
    return replace(problem, stride=(1,) * len(padding), padding=tuple(padding))


def _spaced(gradient: Tensor, stride: Sequence[int]) -> Tensor:
    # Zeros for the outputs between.
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            cells = F.pad(gradient.movedim(axis, -1).unsqueeze(-1), [0, step - 1]).flatten(-2)
            gradient = cells.narrow(-1, 0, cells.shape[-1] - step + 1).movedim(-1, axis)
    return gradient


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[tuple[int, int]],
    stride: Sequence[int] | Literal[1] = 1,
) -> Tensor:
    both = even_padding(padding)
    input = evenly_padded(input, padding, both)
    if is_channels_last(input):
        zeros = _widening(weight.shape[-1])
        if zeros:
            weight, both[-1] = F.pad(weight, [zeros, zeros]), both[-1] + zeros
    return CONVOLUTIONS[len(both)](input, weight, bias, stride, both, 1, weight.shape[0])


def _widening(width: int) -> int:
    # Zeros to put at both ends of a kernel's last axis.
    return -(-(WIDE - width) // 2) if SLOW_WIDTH <= width < WIDE else 0


def depthwise_operations(problem: Problem, part: Part) -> dict[str, float]:
    """How many of which operations a part takes: what the cost rule multiplies by measured times."""
    if part == "gradients":
        counts = dict(depthwise_operations(problem, "input gradient"))
        for name, count in depthwise_operations(problem, "weight gradient").items():
            counts[name] = counts.get(name, 0.0) + count
        return counts
    kind = f"{max(2, len(problem.kernel))}-D"
    if part == "output":
        return _forward_operations(problem, kind)
    problem = _without_stride(problem)
    if part == "input gradient":
        return _forward_operations(problem.turned(), kind)
    samples = min(_samples_at_once(problem), problem.batch)
    axis = (samples,) if len(problem.kernel) < 3 else ()
    turned = replace(
        problem,
        batch=1,
        map=(*axis, *problem.map),
        kernel=(*axis, *problem.outputs),
        padding=(*((0, 0) for _ in axis), *problem.padding),
        stride=(*(1 for _ in axis), *problem.stride),
        channels_last=True,
    )
    calls = -(-problem.batch // samples)
    counts = {name: calls * count for name, count in _forward_operations(turned, "gradient").items()}
    if not problem.channels_last:
        counts["depthwise moved cell"] = float(problem.batch * problem.in_channels * math.prod((2, *problem.map)))
    return counts


def _forward_operations(problem: Problem, kind: str) -> dict[str, float]:
    width = problem.kernel[-1]
    if problem.channels_last or width >= WIDE:
        width += 2 * _widening(width)
        width_kind = f"{kind} {'wide' if width >= WIDE else 'narrow'}"
    else:
        width_kind = f"{kind} plain"
    channels = -(-problem.in_channels // 16) * 16
    cells_in, cells_out = math.prod(problem.map), math.prod(problem.outputs)
    rows = problem.batch * channels * math.prod(_meetings(problem)[:-1]) * width
    counts = {
        f"depthwise {kind} call": 1.0,
        f"depthwise {width_kind} tap": float(rows * problem.outputs[-1]),
        f"depthwise {width_kind} row": float(rows),
        f"depthwise {width_kind} line": rows * problem.outputs[-1] / width,
        f"depthwise {kind} cell": float(problem.batch * channels * (cells_in + cells_out)),
        f"depthwise {kind} weight": float(channels * math.prod(problem.kernel)),
    }
    if not problem.channels_last and problem.kernel[-1] >= WIDE:
        counts["depthwise moved cell"] = float(problem.batch * problem.in_channels * (cells_in + cells_out))
    return counts


def _meetings(problem: Problem) -> list[int]:
    # Along each axis, how often a tap falls on a cell of the map and not on padding.
    axes = zip(problem.map, problem.kernel, problem.outputs, problem.stride, problem.padding, strict=True)
    return [_meetings_along(size, taps, outputs, step, before) for size, taps, outputs, step, (before, _) in axes]


def _meetings_along(size: int, taps: int, outputs: int, step: int, before: int) -> int:
    # Counted by output or by tap, whichever are fewer: the other may be an hour of sound.
    if outputs <= taps:
        starts = (output * step - before for output in range(outputs))
        return sum(max(0, min(size, start + taps) - max(0, start)) for start in starts)
    # Outputs whose tap falls on cells 0 to size - 1.
    firsts = (-((tap - before) // step) for tap in range(taps))
    stops = (-((tap - before - size) // step) for tap in range(taps))
    return sum(max(0, min(outputs, stop) - max(0, first)) for first, stop in zip(firsts, stops, strict=True))
