"""Grids, arguments and memory of launches. The only importer of the device code."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from . import kernels
from .configurations import (
    Banded,
    BandedWeightGradient,
    Multiplied,
    Sizes,
    for_output,
    for_weight_gradient,
    met_columns,
    power_above,
)
from .tuning import choose


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], output: Tensor) -> None:
    """Writes a depthwise convolution.

    Args:
        input: (batch, channels, rows, columns), any strides.
        weight: (channels, 1, rows, columns).
        bias: (channels) or None.
        padding: Zeros before the first row and column; fewer than none are cells left out.
        output: (batch, channels, rows, columns), any strides; its size says how much is padded after the map.
    """
    if output.numel() == 0:
        return
    weight = weight.contiguous()
    sizes = _sizes(input, output, weight.shape[2:], padding)
    numbers, offset = _numbers(sizes, input, output), _offset_type(input, output)

    def launch(blocks: Banded | Multiplied) -> None:
        function: Any = kernels.banded if isinstance(blocks, Banded) else kernels.multiplied
        precision = {"PRECISION": _precision(input.dtype)} if isinstance(blocks, Banded) else {}
        function[(blocks.programs(sizes),)](
            input,
            weight,
            weight if bias is None else bias,
            output,
            *numbers,
            KERNEL_ROWS=sizes.kernel[0],
            KERNEL_COLUMNS=sizes.kernel[1],
            HAS_BIAS=bias is not None,
            OFFSET=offset,
            SUM=_sum_type(input.dtype),
            **precision,
            **blocks.constants(),
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )

    candidates = for_output(sizes, input.dtype, _channels_innermost(input), far=offset == tl.int64)
    with _on(input.device):
        launch(choose("output", candidates, _key(sizes, input, output), launch, input.device))


def differentiate(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """The gradient of the kernel of a depthwise convolution; two runs give the same bits.

    Args:
        input: (batch, channels, rows, columns), any strides.
        gradient: Of the output, (batch, channels, rows, columns), any strides.
        padding: Zeros before the first row and column.
        kernel: Rows and columns of the kernel.

    Returns:
        (channels, 1, *kernel), in the dtype of `input`.
    """
    sizes = _sizes(input, gradient, kernel, padding)
    if gradient.numel() == 0:
        return input.new_zeros((sizes.channels, 1, *kernel))
    numbers = _numbers(sizes, input, gradient)
    # Sums are of this precision in the programs, and over what the programs give.
    precise = torch.promote_types(input.dtype, torch.float32)
    parts = input.new_empty(0)

    def launch(blocks: BandedWeightGradient) -> None:
        nonlocal parts
        splits = blocks.splits(sizes)
        # Zeros: taps that no chunk holds are met by padding alone.
        parts = input.new_zeros((splits * blocks.columns, sizes.channels, 1, *kernel), dtype=precise)
        function: Any = kernels.banded_weight_gradient
        function[(blocks.programs(sizes) * splits,)](
            input,
            gradient,
            parts,
            *numbers,
            met_columns(sizes, blocks.columns)[0],
            blocks.chunks(sizes),
            splits,
            KERNEL_ROWS=sizes.kernel[0],
            KERNEL_COLUMNS=sizes.kernel[1],
            OFFSET=_offset_type(input, gradient, parts),
            SUM=_sum_type(input.dtype),
            PRECISION=_precision(input.dtype),
            **blocks.constants(),
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )

    candidates = for_weight_gradient(sizes, input.dtype, _channels_innermost(input))
    with _on(input.device):
        launch(choose("weight gradient", candidates, _key(sizes, input, gradient), launch, input.device))
    return parts.sum(0).to(input.dtype)


def _sizes(input: Tensor, output: Tensor, kernel: Sequence[int], padding: Sequence[int]) -> Sizes:
    samples, channels, *map_in = input.shape
    return Sizes(samples, channels, _pair(map_in), _pair(output.shape[2:]), _pair(padding), _pair(kernel))


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    rows, columns = sizes
    return rows, columns


def _numbers(sizes: Sizes, input: Tensor, other: Tensor) -> tuple[int, ...]:
    # What all device functions are told first.
    maps = (*sizes.map_in, *sizes.map_out, *sizes.padding)
    return (sizes.samples, sizes.channels, *maps, *input.stride(), *other.stride())


def _key(sizes: Sizes, input: Tensor, other: Tensor) -> tuple[Any, ...]:
    # Batches of up to the same power of two share a configuration.
    kinds = (_channels_innermost(input), _channels_innermost(other), _offset_type(input, other).name)
    return replace(sizes, samples=power_above(sizes.samples)), input.dtype, *kinds, input.device


def _channels_innermost(input: Tensor) -> bool:
    return input.stride(1) == 1 and input.shape[1] > 1 and input.stride(3) != 1


def _offset_type(*tensors: Tensor) -> Any:
    # By the offset of the last cell. Blocks reach beyond it, where nothing is read or written.
    last = (sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) for t in tensors)
    return tl.int32 if max(last) < 2**31 else tl.int64


def _sum_type(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _precision(dtype: torch.dtype) -> str:
    # Three products of tensor cores' own 19-bit numbers give nearly all of float32.
    return "tf32x3" if dtype == torch.float32 else "ieee"


def _on(device: torch.device) -> AbstractContextManager[object]:
    # Triton launches on the current device, which need not be the tensors'.
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
