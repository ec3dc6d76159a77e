"""From the arguments of a call to its `Problem`, or to an error."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, SupportsInt

import torch
from torch import Tensor

from ... import _checks
from ..caches import cached
from ..tracing import shape_of, sizes_are_known, traced_by_jit, with_numbers
from .layout import is_channels_last
from .problem import Map, Problem

Padding = int | Sequence[int] | Literal["same", "valid"]
Pairs = tuple[tuple[int, int], ...]


def pose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: Padding | Pairs,
    groups: int,
    output_padding: int | Sequence[int] = 0,
    *,
    output: Map = "convolve",
) -> tuple[Tensor, Problem]:
    """The weight and the problem of a call, both without the taps that only see padding.

    Arguments are as in torch. `output` says which map of the problem the call computes: "convolve", or "transpose" for
    a transposed convolution, whose problem is the convolution from its output to its input.
    """
    sizes = map(_hashable, (stride, padding, groups, output_padding))
    facts = (output, *with_numbers(_facts, input, weight, bias), *sizes)
    # The same call comes again and again, and posing it takes a large part of the time of a small one. In a program
    # more than these arguments matters.
    traced = torch.compiler.is_compiling() or traced_by_jit()
    try:
        problem, taps = _posed(*facts) if traced else _known_posed(*facts)
    except TypeError:  # symbols of a tracer, or arguments of a wrong type, cannot be looked up
        problem, taps = _posed(*facts)
    for axis, (start, size) in enumerate(taps, start=2):
        if size != shape_of(weight)[axis]:
            weight = weight.narrow(axis, start, size)
    return weight, problem


def _facts(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Any, ...]:
    batched = input if input.dim() == weight.dim() else input.unsqueeze(0)
    shapes = input.shape, weight.shape, None if bias is None else bias.shape
    return *shapes, input.device.type, input.dtype, is_channels_last(batched)


def _hashable(sizes: Any) -> Any:
    return tuple(sizes) if isinstance(sizes, list) else sizes


def _posed(
    output: Map,
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    bias_shape: Sequence[int] | None,
    device: str,
    dtype: torch.dtype,
    channels_last: bool,
    stride: int | Sequence[int],
    padding: Any,
    groups: int,
    output_padding: int | Sequence[int],
) -> tuple[Problem, Sequence[tuple[int, int]]]:
    # The problem, and the taps that are needed along each axis, (first, count).
    transposed, dims = output == "transpose", len(weight_shape) - 2
    first, second = ("in", "out") if transposed else ("out", "in")
    if dims not in (1, 2, 3):
        expected = f"({first}_channels, {second}_channels/groups, *kernel)"
        raise ValueError(f"weight: expected {expected} with 1 to 3 axes, got {tuple(weight_shape)}")
    if len(input_shape) not in (dims + 1, dims + 2):
        raise ValueError(
            f"input: expected {dims + 2} axes (batch, channels, *map), or {dims + 1} without batch, "
            f"got shape {tuple(input_shape)}"
        )
    known = sizes_are_known(input_shape[-dims:])
    fixed = _fixed if torch.compiler.is_compiling() and known else tuple
    (out_channels, in_channels), groups = fixed(weight_shape[:2]), _checks.integer("groups", groups, 1)
    in_channels *= groups
    if out_channels % groups or (transposed and out_channels == 0):
        expected = f"a multiple of groups={groups} {first}put channels"
        raise ValueError(f"weight: expected {expected}, got {tuple(weight_shape)}")
    taken, made = (out_channels, in_channels) if transposed else (in_channels, out_channels)
    if input_shape[-dims - 1] != taken:
        raise ValueError(f"input: expected {taken} channels, got shape {tuple(input_shape)}")
    if bias_shape is not None and tuple(bias_shape) != (made,):
        raise ValueError(f"bias: expected shape ({made},), got {tuple(bias_shape)}")

    strides = _checks.integers("stride", stride, dims, 1)
    beyond = check_output_padding(output_padding, strides)
    if any(beyond) and not transposed:
        raise ValueError(f"output_padding: expected 0 unless the convolution is transposed, got {beyond}")
    kernel, sizes = fixed(weight_shape[2:]), fixed(input_shape[-dims:])
    if transposed:
        around = _checks.integers("padding", padding, dims, 0)
        pads = tuple((pad, pad) for pad in around)
        rows = zip(kernel, strides, around, beyond, strict=True)
        # The fewest cells n for which (n - 1) * stride + kernel + output padding - 2 * padding is not below 1.
        fewest = [max(1, 1 - -(1 + 2 * pad - taps - more) // step) for taps, step, pad, more in rows]
    else:
        paired = isinstance(padding, tuple) and any(isinstance(pair, tuple) for pair in padding)
        pads = _checked_pairs(padding, dims) if paired else padding_pairs(padding, kernel, strides)
        fewest = [taps - sum(around) for taps, around in zip(kernel, pads, strict=True)]
    for axis, (size, least) in enumerate(zip(sizes, fewest, strict=True)):
        if size < least:
            raise ValueError(
                f"input: expected a map of at least {least} along axis {axis}, as its output would be empty "
                f"(kernel {kernel}, padding {pads}), got shape {tuple(input_shape)}"
            )
    if transposed:
        shortest = transposed_sizes(sizes, kernel, strides, around)
        sizes = tuple(size + more for size, more in zip(shortest, beyond, strict=True))
    problem = Problem(
        batch=input_shape[0] if len(input_shape) == dims + 2 else 1,
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        map=sizes,
        kernel=kernel,
        stride=strides,
        padding=pads,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
    )
    # Whether a tap only sees padding depends on the size of the map.
    return _cropped(problem) if known else (problem, [(0, taps) for taps in kernel])


# By type too: `groups=True` is refused although it equals 1.
_known_posed = cached(maxsize=1024, typed=True)(_posed)


def _fixed(sizes: Sequence[int]) -> tuple[int, ...]:
    # A compiled graph is for one size of map and kernel, and for any batch. `range` makes the compiler take these sizes
    # for constants.
    return tuple(len(range(size)) for size in sizes)


def padding_pairs(padding: Padding, kernel: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis, a pair per axis, for any `padding` that torch accepts."""
    if isinstance(padding, str):
        _checks.one_of("padding", padding, ("same", "valid"))
        if padding == "valid":
            return ((0, 0),) * len(kernel)
        if any(step != 1 for step in stride):
            raise ValueError(f"padding: expected numbers with stride {tuple(stride)}, as 'same' needs stride 1")
        # As in torch, the odd cell of an even kernel goes after the map.
        return tuple(((size - 1) // 2, size - 1 - (size - 1) // 2) for size in kernel)
    return tuple((pad, pad) for pad in _checks.integers("padding", padding, len(kernel), 0))


def _checked_pairs(padding: Any, dims: int) -> Pairs:
    if len(padding) != dims or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in padding):
        raise ValueError(f"padding: expected a pair for each of {dims} axes, got {padding!r}")
    ends = (_checks.integers(f"padding[{axis}]", pair, 2, 0) for axis, pair in enumerate(padding))
    return tuple((before, after) for before, after in ends)


def check_output_padding(output_padding: int | Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """The cells that a transposed convolution adds after each axis, which are fewer than the stride."""
    beyond = _checks.integers("output_padding", output_padding, len(stride), 0)
    if any(more >= step for more, step in zip(beyond, stride, strict=True)):
        raise ValueError(f"output_padding: expected less than stride {tuple(stride)} along each axis, got {beyond}")
    return beyond


def output_padding_for(
    output_size: Sequence[int],
    input_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[int, ...]:
    """The output padding with which a transposed convolution makes maps of `output_size`.

    `output_size` has one size per axis, with batch and channels, which do not count, or without them.
    """
    dims = len(kernel)
    listed = isinstance(output_size, Sequence) and not isinstance(output_size, str | bytes)
    given = tuple(output_size) if listed else ()
    if len(given) not in (dims, len(input_shape)):
        wrong = ValueError if listed else _checks.WrongTypeError
        raise wrong(
            f"output_size: expected {dims} sizes, one per axis, or {len(input_shape)} with batch and channels as the "
            f"input has them, got {output_size!r}"
        )
    sizes = given[-dims:]
    least = transposed_sizes(input_shape[-dims:], kernel, stride, padding)
    return with_numbers(_fitting, sizes, least, stride, input_shape[-dims:])


def _fitting(sizes: Sequence[int], least: Sequence[int], stride: Sequence[int], map: Sequence[int]) -> tuple[int, ...]:
    if any(isinstance(size, Tensor) for size in (*sizes, *least)):  # as in torch.jit.trace
        sizes, least, map = (tuple(int(size) for size in each) for each in (sizes, least, map))
    # By comparison with each number that fits, a tracer's symbol becomes a number.
    rows = zip(sizes, least, stride, strict=True)
    beyond = [next((more for more in range(step) if size == fewest + more), None) for size, fewest, step in rows]
    fitting = tuple(more for more in beyond if more is not None)
    if len(fitting) < len(sizes):
        most = tuple(fewest + step - 1 for fewest, step in zip(least, stride, strict=True))
        wrong = ValueError if all(isinstance(size, SupportsInt) for size in sizes) else _checks.WrongTypeError
        raise wrong(f"output_size: expected from {least} to {most} for a map of {tuple(map)}, got {sizes}")
    return fitting


def transposed_sizes(
    map: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """The map size that a transposed convolution makes without output padding."""
    rows = zip(map, kernel, stride, padding, strict=True)
    return tuple((cells - 1) * step + taps - 2 * pad for cells, taps, step, pad in rows)


def _cropped(problem: Problem) -> tuple[Problem, list[tuple[int, int]]]:
    # Taps that only see padding are dropped: a 23x23 kernel on a 7x7 map needs 13x13 of its taps.
    kernel, pads, needed = list(problem.kernel), list(problem.padding), []
    for axis, (size, cells) in enumerate(zip(problem.map, problem.outputs, strict=True)):
        before, _ = pads[axis]
        last = (cells - 1) * problem.stride[axis]
        start, stop = max(0, before - last), min(kernel[axis], before + size)
        if start < stop and stop - start < kernel[axis]:
            kernel[axis] = stop - start
            pads[axis] = (before - start, max(0, last + kernel[axis] - size - (before - start)))
        needed.append((start, kernel[axis]))
    return replace(problem, kernel=tuple(kernel), padding=tuple(pads)), needed
