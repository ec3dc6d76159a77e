"""A kernel out of elements, and a convolution, by their definitions in plain loops.

Slow, differentiable, exact to rounding in float64. Imports nothing from the package, to share none of its mistakes.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def reference_kernel(
    weight: Tensor, position: Tensor, scale: Tensor, size: Sequence[int], profile: Callable[[Tensor], Tensor]
) -> Tensor:
    """Dense kernel by the definition: for every element and every cell the product of profiles, normalized.

    Args:
        weight: (..., kernel_count).
        position: (axes, ..., kernel_count). Unit: grid cells; origin: cell `size // 2`.
        scale: The shape of `position`, positive. Unit: grid cells.
        size: Kernel size, one integer per axis.
        profile: Function of distance over scale.

    Returns:
        (..., *size).
    """
    kernel = torch.zeros(*weight.shape[:-1], *size, dtype=weight.dtype)
    for k in range(weight.shape[-1]):
        spread = {}
        for cell in itertools.product(*map(range, size)):
            value = torch.ones(weight.shape[:-1], dtype=weight.dtype)
            for axis, x in enumerate(cell):
                distance = x - size[axis] // 2 - position[axis, ..., k]
                value = value * profile(distance / scale[axis, ..., k])
            spread[cell] = value
        total = torch.stack(list(spread.values())).sum(0) + 1e-7
        share = torch.stack([value / total for value in spread.values()], dim=-1) * weight[..., k, None]
        kernel = kernel + share.reshape(*weight.shape[:-1], *size)
    return kernel


def reference_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation by the definition: every output cell is a sum over taps.

    Args:
        input: (batch, in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (out_channels) or None.
        stride: One integer per axis; None for 1.
        padding: Zeros (before, after) the map, a pair per axis; None for none.
        groups: As in torch.

    Returns:
        (batch, out_channels, *map out).
    """
    kernel = weight.shape[2:]
    stride = stride or (1,) * len(kernel)
    padding = padding or ((0, 0),) * len(kernel)
    padded = torch.zeros(
        *input.shape[:2],
        *(size + before + after for size, (before, after) in zip(input.shape[2:], padding, strict=True)),
        dtype=input.dtype,
    )
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(input.shape[2:], padding, strict=True))
    window: tuple[slice | int, ...] = (slice(None), slice(None), *inside)
    padded[window] = input
    cells = [(n - k) // s + 1 for n, k, s in zip(padded.shape[2:], kernel, stride, strict=True)]

    channels = []
    inputs_a_group, outputs_a_group = weight.shape[1], weight.shape[0] // groups
    for out in range(weight.shape[0]):
        first = out // outputs_a_group * inputs_a_group
        total = torch.zeros(input.shape[0], *cells, dtype=input.dtype)
        for i in range(inputs_a_group):
            for tap in itertools.product(*map(range, kernel)):
                seen = (slice(t, t + (c - 1) * s + 1, s) for t, c, s in zip(tap, cells, stride, strict=True))
                window = (slice(None), first + i, *seen)
                total = total + padded[window] * weight[(out, i, *tap)]
        channels.append(total if bias is None else total + bias[out])
    return torch.stack(channels, dim=1)
