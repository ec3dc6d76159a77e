"""From the arguments of a call to the `Problem` that it poses, or to the reason why it poses none."""

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ... import _checks
from ..tracing import sizes_are_known
from .layout import is_channels_last
from .problem import Problem

Padding = int | Sequence[int] | Literal["same", "valid"]


def state(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: Padding,
    groups: int,
) -> tuple[Tensor, Problem]:
    """The problem that a call poses, without the taps that only see padding; and the weight without them.

    Raises:
        ValueError: Shapes that do not fit.
    """
    batched = input if input.dim() == weight.dim() else input.unsqueeze(0)
    facts = (
        input.shape,
        weight.shape,
        None if bias is None else bias.shape,
        tuple(stride) if isinstance(stride, list) else stride,
        tuple(padding) if isinstance(padding, list) else padding,
        groups,
        input.device.type,
        input.dtype,
        is_channels_last(batched),
    )
    # The same call comes again and again, and tensors are often so small that this is a large part of it.
    try:
        problem, taps = _posed(*facts) if torch.compiler.is_compiling() else _known_posed(*facts)
    except TypeError:  # symbols of a tracer, or whatever came in place of numbers, cannot be looked up
        problem, taps = _posed(*facts)
    for axis, (start, size) in enumerate(taps, start=2):
        if size != weight.shape[axis]:
            weight = weight.narrow(axis, start, size)
    return weight, problem


def _posed(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    bias_shape: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: Padding,
    groups: int,
    device: str,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Problem, Sequence[tuple[int, int]]]:
    # The problem, and which taps along each axis are needed, (first, count).
    dims = len(weight_shape) - 2
    if dims not in (1, 2, 3):
        raise ValueError(
            f"weight: expected (out_channels, in_channels/groups, *kernel) with 1 to 3 axes, got {tuple(weight_shape)}"
        )
    if len(input_shape) not in (dims + 1, dims + 2):
        raise ValueError(
            f"input: expected {dims + 2} axes (batch, channels, *map), or {dims + 1} without batch, "
            f"got shape {tuple(input_shape)}"
        )
    known = sizes_are_known(input_shape[-dims:])
    fixed = _fixed if torch.compiler.is_compiling() and known else tuple
    (out_channels,), groups = fixed(weight_shape[:1]), _checks.integer("groups", groups, 1)
    if out_channels % groups:
        raise ValueError(f"weight: expected a multiple of groups={groups} output channels, got {tuple(weight_shape)}")
    if input_shape[-dims - 1] != weight_shape[1] * groups:
        raise ValueError(f"input: expected {weight_shape[1] * groups} channels, got shape {tuple(input_shape)}")
    if bias_shape is not None and tuple(bias_shape) != (out_channels,):
        raise ValueError(f"bias: expected shape ({out_channels},), got {tuple(bias_shape)}")
    strides = _checks.integers("stride", stride, dims, 1)
    kernel, map_size = fixed(weight_shape[2:]), fixed(input_shape[-dims:])
    pads = padding_pairs(padding, kernel, strides)
    for axis in range(dims):
        if map_size[axis] + sum(pads[axis]) < kernel[axis]:
            raise ValueError(
                f"input: expected a map of at least {kernel[axis] - sum(pads[axis])} along axis {axis} "
                f"(kernel {kernel}, padding {pads}), got shape {tuple(input_shape)}"
            )
    problem = Problem(
        batch=input_shape[0] if len(input_shape) == dims + 2 else 1,
        in_channels=fixed(weight_shape[1:2])[0] * groups,
        out_channels=out_channels,
        groups=groups,
        map=map_size,
        kernel=kernel,
        stride=strides,
        padding=pads,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
    )
    # Which taps see padding alone depends on the map's size.
    return _cropped(problem) if known else (problem, [(0, taps) for taps in kernel])


# By type too: `groups=True` is refused although it equals 1.
_known_posed = functools.lru_cache(maxsize=1024, typed=True)(_posed)


def _fixed(sizes: Sequence[int]) -> tuple[int, ...]:
    # Tiles and transforms are made for a map and a kernel: a compiled graph holds for one of each, and for any batch.
    # What `range` is given, a compiler takes for a constant.
    return tuple(len(range(size)) for size in sizes)


def padding_pairs(padding: Padding, kernel: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis, a pair per axis, for what `padding` accepts in torch.

    Raises:
        ValueError: An unknown word, negative padding, or "same" with a stride.
    """
    if isinstance(padding, str):
        _checks.one_of("padding", padding, ("same", "valid"))
        if padding == "valid":
            return ((0, 0),) * len(kernel)
        if any(step != 1 for step in stride):
            raise ValueError(f"padding: expected numbers with stride {tuple(stride)}, as 'same' needs stride 1")
        # As in torch, the odd cell of an even kernel goes after the map.
        return tuple(((size - 1) // 2, size - 1 - (size - 1) // 2) for size in kernel)
    return tuple((pad, pad) for pad in _checks.integers("padding", padding, len(kernel), 0))


def _cropped(problem: Problem) -> tuple[Problem, list[tuple[int, int]]]:
    # Taps that only ever fall on padding are dropped: a 23x23 kernel on a 7x7 map needs 13x13 of its taps.
    kernel, pads, needed = list(problem.kernel), list(problem.padding), []
    for axis, (size, cells) in enumerate(zip(problem.map, problem.outputs, strict=True)):
        before, _ = pads[axis]
        last = (cells - 1) * problem.stride[axis]
        start, stop = max(0, before - last), min(kernel[axis], before + size)
        if start < stop and stop - start < kernel[axis]:
            kernel[axis] = stop - start
            pads[axis] = (before - start, max(0, last + kernel[axis] - size - (before - start)))
        needed.append((start, kernel[axis]))
    return problem.with_kernel(tuple(kernel), tuple(pads)), needed
