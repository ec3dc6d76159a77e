"""Convolution through the real Fourier transform: the cost does not grow with the kernel's taps."""

import torch
from torch import Tensor

from .select import Problem


def convolve_fft(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """Convolution as a product of transforms, for stride 1.

    The map is padded only as far as wrapped-around values would reach an output that is kept. Computed in float32 at
    least, also under autocast; the result has the dtype that torch's convolution would give.

    Args:
        input: (batch, in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (out_channels) or None.
        problem: Sizes, padding and groups of the call.

    Returns:
        (batch, out_channels, *map out).

    Raises:
        ValueError: input and weight differ in dtype, outside autocast.
    """
    device = input.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and torch.float64 not in (input.dtype, weight.dtype):  # autocast leaves double alone
        dtype: torch.dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            bias = None if bias is None else bias.float()
            return _convolve(input.float(), weight.float(), bias, problem).to(dtype)
    if input.dtype != weight.dtype:
        raise ValueError(f"input: expected the dtype of weight, {weight.dtype}, got {input.dtype}")
    dtype = torch.promote_types(input.dtype, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    return _convolve(input.to(dtype), weight.to(dtype), bias, problem).to(input.dtype)


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    axes = list(range(2, input.dim()))
    length = problem.transform_lengths
    map_spectrum = torch.fft.rfftn(input, s=length, dim=axes)
    kernel_spectrum = torch.fft.rfftn(weight.flip(axes), s=length, dim=axes)

    # (N, groups, 1, in/groups, *) x (groups, out/groups, in/groups, *): summed over in/groups.
    map_spectrum = map_spectrum.unflatten(1, (problem.groups, -1))
    kernel_spectrum = kernel_spectrum.unflatten(0, (problem.groups, -1))
    if weight.shape[1] == 1:
        product = map_spectrum * kernel_spectrum.squeeze(2)
    else:
        product = torch.einsum("ngi...,goi...->ngo...", map_spectrum, kernel_spectrum)

    output: Tensor = torch.fft.irfftn(product.flatten(1, 2), s=length, dim=axes)
    rows = zip(axes, problem.kernel, problem.outputs, problem.padding, strict=True)
    for axis, taps, cells, (before, _) in rows:
        output = output.narrow(axis, taps - 1 - before, cells)
    return output if bias is None else output + bias.view(-1, *(1 for _ in axes))
