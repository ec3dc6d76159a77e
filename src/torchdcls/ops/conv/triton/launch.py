"""Launches of the device code: grids, arguments and memory."""

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

# Cells of banded matrices at a time, and those of one program.
MOST_BAND_CELLS, BAND_BLOCK = 2**26, 1024
# How far a block of patches may reach beyond the last patch.
MARGIN = 2**16


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], output: Tensor) -> None:
    """Writes a depthwise convolution along two axes to `output`, whose size says how much is padded after the map.

    Tensors have any strides. `padding` is before the first row and column; if negative, cells are left out.
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
        # Banded matrices are several times larger than kernels: they are made for `most` channels at a time.
        most = max(1, MOST_BAND_CELLS // blocks.band_cells(sizes))
        for first in range(0, sizes.channels, most):
            one = slice(first, first + most)
            some = None if bias is None else bias[one]
            _multiply_banded(blocks, sizes, kind[1], input[:, one], weight[one], some, output[:, one])

    candidates = for_output(sizes, input.dtype, *kind)
    with current(input.device):
        launch(tuned("output", candidates, _key(sizes, input, kind), launch, input.device))


def differentiate(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """The gradient of the kernel of `convolve`, (channels, 1, *kernel), with the same bits in every run."""
    sizes = _sizes(input, gradient, kernel, padding)
    if gradient.numel() == 0:
        return input.new_zeros((sizes.channels, 1, *kernel))
    kind = _kind(_offset_type(sizes, input, gradient), input, gradient)
    parts = input.new_empty(0)

    def launch(blocks: BandedWeightGradient) -> None:
        nonlocal parts
        splits = blocks.splits(sizes)
        # The precision of sums in the programs and over their results.
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
    # The first arguments of all device functions.
    maps = (*sizes.map_in, *sizes.map_out, *sizes.padding)
    return (sizes.samples, sizes.channels, *maps, *input.stride(), *other.stride(), *sizes.kernel)


def _key(sizes: Sizes, input: Tensor, kind: tuple[bool, bool]) -> tuple[Any, ...]:
    # Batches with the same next power of two share a configuration.
    return replace(sizes, samples=power_above(sizes.samples)), input.dtype, kind, input.device


def _kind(offset: Any, *maps: Tensor) -> tuple[bool, bool]:
    # Whether channels are neighbors in memory, and registers `tight`. Triton looks for multiples of 16.
    if not all(map.stride(1) == 1 and map.shape[1] > 1 and map.stride(3) != 1 for map in maps):
        return False, offset == tl.int64
    numbers = (number for map in maps for number in (map.data_ptr(), map.shape[1], map.stride(0), *map.stride()[2:]))
    return True, offset == tl.int64 or any(number % 16 for number in numbers)


def _offset_type(sizes: Sizes, *tensors: Tensor) -> Any:
    # By the last cell and the last patch. Blocks reach beyond them, but read and write nothing there.
    last = [sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) for t in tensors]
    patches = sizes.samples * sizes.map_out[1]
    return tl.int32 if max(*last, patches) < 2**31 - MARGIN else tl.int64


def _constants(blocks: Blocks, tight: bool, sizes: Sizes, input: Tensor, *others: Tensor) -> dict[str, Any]:
    # The constants of a program.
    known = {"OFFSET": _offset_type(sizes, input, *others)}
    known["SUM"] = tl.float64 if input.dtype == torch.float64 else tl.float32
    if not isinstance(blocks, Multiplied):
        # Three products of the 19-bit numbers of tensor cores are nearly as exact as float32.
        known["PRECISION"] = "tf32x3" if input.dtype == torch.float32 else "ieee"
    return {**known, **blocks.constants(), **blocks.options(tight)}
