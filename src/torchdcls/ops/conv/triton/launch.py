"""Grids, arguments and memory of launches. The only importer of the device code."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ...gpu import current, power_above
from . import kernels
from .configurations import (
    Banded,
    BandedWeightGradient,
    Blocks,
    Multiplied,
    Sizes,
    for_output,
    for_weight_gradient,
    met_columns,
    patches_of,
)
from .tuning import tuned

# Cells of banded matrices at once, and those that one program makes.
MOST_BAND_CELLS, BAND_BLOCK = 2**26, 1024
# How far beyond the last patch a block of them may reach.
MARGIN = 2**16


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
    kind = _kind(_offset_type(sizes, input, output, weight), input, output)

    def launch(blocks: Banded | Multiplied) -> None:
        if isinstance(blocks, Multiplied):
            _multiply(blocks, sizes, kind[1], input, weight, bias, output)
            return
        # Banded matrices are several times as large as the kernels: of so many channels at once.
        most = max(1, MOST_BAND_CELLS // blocks.band_cells(sizes))
        for first in range(0, sizes.channels, most):
            one = slice(first, first + most)
            some = None if bias is None else bias[one]
            _multiply_banded(blocks, sizes, kind[1], input[:, one], weight[one], some, output[:, one])

    candidates = for_output(sizes, input.dtype, *kind)
    with current(input.device):
        launch(tuned("output", candidates, _key(sizes, input, kind), launch, input.device))


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
    kind = _kind(_offset_type(sizes, input, gradient), input, gradient)
    parts = input.new_empty(0)

    def launch(blocks: BandedWeightGradient) -> None:
        nonlocal parts
        splits = blocks.splits(sizes)
        # Sums are of this precision in the programs, and over what the programs give.
        dtype = torch.promote_types(input.dtype, torch.float32)
        parts = input.new_empty((splits, sizes.channels, 1, *kernel), dtype=dtype)
        function: Any = kernels.banded_weight_gradient
        function[(blocks.programs(sizes) * splits,)](
            input,
            gradient,
            parts,
            *_numbers(sizes, input, gradient),
            met_columns(sizes, blocks.columns)[0],
            blocks.chunks(sizes),
            splits,
            **_constants(blocks, kind[1], sizes, input, gradient, parts),
        )

    candidates = for_weight_gradient(sizes, input.dtype, *kind)
    with current(input.device):
        launch(tuned("weight gradient", candidates, _key(sizes, input, kind), launch, input.device))
    return (parts[0] if len(parts) == 1 else parts.sum(0)).to(input.dtype)


def _multiply(
    blocks: Multiplied, sizes: Sizes, tight: bool, input: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor
) -> None:
    function: Any = kernels.multiplied
    function[(blocks.programs(sizes),)](
        input,
        weight,
        weight if bias is None else bias,
        output,
        *_numbers(sizes, input, output),
        0 if bias is None else sizes.channels,
        **_constants(blocks, tight, sizes, input, output, weight),
    )


def _multiply_banded(
    blocks: Banded, sizes: Sizes, tight: bool, input: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor
) -> None:
    sizes = replace(sizes, channels=input.shape[1])
    patches, band_rows = patches_of(blocks, sizes), blocks.band_rows(sizes)
    bands = weight.new_empty(sizes.channels * blocks.band_cells(sizes))
    function: Any = kernels.bands
    function[(-(-bands.numel() // BAND_BLOCK),)](
        weight, bands, bands.numel(), sizes.kernel[1], band_rows, COLUMNS=blocks.columns, BLOCK=BAND_BLOCK
    )
    function = kernels.banded
    function[(blocks.programs(sizes),)](
        input,
        bands,
        bands if bias is None else bias,
        output,
        *_numbers(sizes, input, output),
        band_rows,
        patches.samples,
        patches.down,
        patches.across,
        0 if bias is None else sizes.channels,
        **_constants(blocks, tight, sizes, input, output, bands),
    )


def _sizes(input: Tensor, output: Tensor, kernel: Sequence[int], padding: Sequence[int]) -> Sizes:
    samples, channels, *map_in = input.shape
    return Sizes(samples, channels, _pair(map_in), _pair(output.shape[2:]), _pair(padding), _pair(kernel))


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    rows, columns = sizes
    return rows, columns


def _numbers(sizes: Sizes, input: Tensor, other: Tensor) -> tuple[int, ...]:
    # What all device functions are told first.
    maps = (*sizes.map_in, *sizes.map_out, *sizes.padding)
    return (sizes.samples, sizes.channels, *maps, *input.stride(), *other.stride(), *sizes.kernel)


def _key(sizes: Sizes, input: Tensor, kind: tuple[bool, bool]) -> tuple[Any, ...]:
    # Batches of up to the same power of two share a configuration.
    return replace(sizes, samples=power_above(sizes.samples)), input.dtype, kind, input.device


def _kind(offset: Any, *maps: Tensor) -> tuple[bool, bool]:
    # Whether channels are neighbours, and whether registers are scarce. Triton looks for multiples of 16.
    if not all(map.stride(1) == 1 and map.shape[1] > 1 and map.stride(3) != 1 for map in maps):
        return False, offset == tl.int64
    numbers = (number for map in maps for number in (map.data_ptr(), map.shape[1], map.stride(0), *map.stride()[2:]))
    return True, offset == tl.int64 or any(number % 16 for number in numbers)


def _offset_type(sizes: Sizes, *tensors: Tensor) -> Any:
    # By the offset of the last cell, and by the last patch. Blocks reach beyond, where nothing is read or written.
    last = [sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) for t in tensors]
    patches = sizes.samples * sizes.map_out[1]
    return tl.int32 if max(*last, patches) < 2**31 - MARGIN else tl.int64


def _constants(blocks: Blocks, tight: bool, sizes: Sizes, input: Tensor, *others: Tensor) -> dict[str, Any]:
    # What a program is compiled for.
    known = {"OFFSET": _offset_type(sizes, input, *others)}
    known["SUM"] = tl.float64 if input.dtype == torch.float64 else tl.float32
    if not isinstance(blocks, Multiplied):
        # Three products of tensor cores' own 19-bit numbers give nearly all of float32.
        known["PRECISION"] = "tf32x3" if input.dtype == torch.float32 else "ieee"
    return {**known, **blocks.constants(), **blocks.options(tight)}
