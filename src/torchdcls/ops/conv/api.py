"""Convolution with a large kernel, whoever made it: checks, chooses a method, calls it. No arithmetic here."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ... import _checks
from . import select
from .direct import convolve_direct
from .fft import convolve_fft
from .layout import is_channels_last, to_channels_last
from .matmul import convolve_matmul
from .select import Method, Problem

Padding = int | Sequence[int] | Literal["same", "valid"]

_METHODS = {"direct": convolve_direct, "fft": convolve_fft, "matmul": convolve_matmul}


def large_kernel_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    groups: int = 1,
    *,
    method: Method = "auto",
) -> Tensor:
    """The result of `torch.nn.functional.conv{1,2,3}d`, by the method that suits the sizes.

    Args:
        input: (batch, in_channels, *map) or (in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel); its number of axes decides between 1-D, 2-D and 3-D.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch. padding="same" needs stride 1.
        method: "direct" is torch's own, "fft" goes through `torch.fft`, "matmul" multiplies small maps by a dense
            matrix, "auto" takes the one expected to be fastest. A method that is named never falls back to another.

    Returns:
        (batch, out_channels, *map out), or without batch where the input had none.

    Raises:
        ValueError: Shapes that do not fit, or a named method that cannot run the call; the reason is in the message.
    """
    _checks.one_of("method", method, select.METHODS)
    problem = _state(input, weight, bias, stride, padding, groups)
    batched = input if input.dim() == weight.dim() else input.unsqueeze(0)
    if not torch.compiler.is_exporting():
        weight, problem = _crop(weight, problem)
    if method == "auto":
        method = select.choose(problem)
    reason = select.unsupported_reason(method, problem)
    if reason is not None:
        raise ValueError(f"method: {method!r} cannot run this call: {reason}. Use method='auto' or 'direct'")
    output = _METHODS[method](batched, weight, bias, problem)
    if method != "direct":
        # As torch's convolutions do: channels_last in, channels_last out.
        keep = is_channels_last(batched) and not torch.compiler.is_exporting()
        output = to_channels_last(output) if keep else output.contiguous()
    return output if input.dim() == weight.dim() else output.squeeze(0)


def large_kernel_conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    groups: int = 1,
    *,
    method: Method = "auto",
) -> Tensor:
    """`torch.nn.functional.conv1d` for kernels of any size, see `large_kernel_conv`.

    Raises:
        ValueError: As `large_kernel_conv`, or a weight that is not of 3 axes.
    """
    _checks.axis_count("weight", weight, 3)
    return large_kernel_conv(input, weight, bias, stride, padding, groups, method=method)


def large_kernel_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    groups: int = 1,
    *,
    method: Method = "auto",
) -> Tensor:
    """`torch.nn.functional.conv2d` for kernels of any size, see `large_kernel_conv`.

    Raises:
        ValueError: As `large_kernel_conv`, or a weight that is not of 4 axes.
    """
    _checks.axis_count("weight", weight, 4)
    return large_kernel_conv(input, weight, bias, stride, padding, groups, method=method)


def large_kernel_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    groups: int = 1,
    *,
    method: Method = "auto",
) -> Tensor:
    """`torch.nn.functional.conv3d` for kernels of any size, see `large_kernel_conv`.

    Raises:
        ValueError: As `large_kernel_conv`, or a weight that is not of 5 axes.
    """
    _checks.axis_count("weight", weight, 5)
    return large_kernel_conv(input, weight, bias, stride, padding, groups, method=method)


def _state(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: Padding,
    groups: int,
) -> Problem:
    dims = weight.dim() - 2
    if dims not in (1, 2, 3):
        raise ValueError(
            f"weight: expected (out_channels, in_channels/groups, *kernel) with 1 to 3 axes, got {tuple(weight.shape)}"
        )
    if input.dim() not in (dims + 1, dims + 2):
        raise ValueError(
            f"input: expected {dims + 2} axes (batch, channels, *map), or {dims + 1} without batch, "
            f"got shape {tuple(input.shape)}"
        )
    out_channels, groups = weight.shape[0], _checks.integer("groups", groups, 1)
    if out_channels % groups:
        raise ValueError(f"weight: expected a multiple of groups={groups} output channels, got {tuple(weight.shape)}")
    if input.shape[-dims - 1] != weight.shape[1] * groups:
        raise ValueError(f"input: expected {weight.shape[1] * groups} channels, got shape {tuple(input.shape)}")
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"bias: expected shape ({out_channels},), got {tuple(bias.shape)}")
    strides = _checks.integers("stride", stride, dims, 1)
    kernel, map_size = tuple(weight.shape[2:]), tuple(input.shape[-dims:])
    pads = padding_pairs(padding, kernel, strides)
    for axis in range(dims):
        if map_size[axis] + sum(pads[axis]) < kernel[axis]:
            raise ValueError(
                f"input: expected a map of at least {kernel[axis] - sum(pads[axis])} along axis {axis} "
                f"(kernel {kernel}, padding {pads}), got shape {tuple(input.shape)}"
            )
    return Problem(
        batch=input.shape[0] if input.dim() == dims + 2 else 1,
        in_channels=input.shape[-dims - 1],
        out_channels=out_channels,
        groups=groups,
        map=map_size,
        kernel=kernel,
        stride=strides,
        padding=pads,
        device=input.device.type,
        floating=input.is_floating_point() and weight.is_floating_point(),
        training=torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad),
    )


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


def _crop(weight: Tensor, problem: Problem) -> tuple[Tensor, Problem]:
    # Taps that only ever fall on padding are dropped: a 23x23 kernel on a 7x7 map needs 13x13 of its taps.
    kernel, pads = list(problem.kernel), list(problem.padding)
    for axis, (size, cells) in enumerate(zip(problem.map, problem.outputs, strict=True)):
        before, _ = pads[axis]
        last = (cells - 1) * problem.stride[axis]
        start, stop = max(0, before - last), min(kernel[axis], before + size)
        if start < stop and stop - start < kernel[axis]:
            weight = weight.narrow(2 + axis, start, stop - start)
            kernel[axis] = stop - start
            pads[axis] = (before - start, max(0, last + kernel[axis] - size - (before - start)))
    return weight, problem.with_kernel(tuple(kernel), tuple(pads))
