"""How programs divide a convolution among them: what may be chosen, best guess first. Pure arithmetic, no Triton here.

What bounds the choice: a program's sums live in registers, `channels x patches x cells` of them; a matrix product needs
sides of at least 16; channels that are neighbours in memory must be read together; what is read of the map and of the
banded matrix serves the more products, the more cells a patch and the more patches a program has; and with wider
patches, more of a banded matrix is zeros. Triton 3.6 divides channels alone among warps: of more warps than channels,
some repeat the products of others, in as many more registers.
"""

from dataclasses import dataclass, fields

import torch

from ...caches import cached

# Side of the smallest matrix product, and so of what a program sums over at once.
SIDE = 16
# Up to so many taps they are multiplied one after the other as a best guess, and up to so many at all.
FEW_TAPS, MANY_TAPS = 25, 169
# Of a launch.
MOST_PROGRAMS = 2**31
# From so many programs on, all of a GPU has work: smaller blocks are the best guess where larger ones leave fewer.
BUSY_PROGRAMS = 256
# The gradient of a kernel is divided among this to twice this many programs where channels and taps alone give fewer.
SPLIT_PROGRAMS = 1024
# Of a multiprocessor, and of a thread.
REGISTERS, MOST_REGISTERS = 2**16, 255
# Patches of one sample lie side by side in a program, and read the same columns, unless that takes so many times the
# products: others of their columns lie in the padding than of the same patch of other samples.
MORE_PRODUCTS = 1.2


@dataclass(frozen=True)
class Sizes:
    """One launch: depthwise, two axes (rows, columns), stride 1."""

    samples: int
    channels: int
    map_in: tuple[int, int]
    map_out: tuple[int, int]
    padding: tuple[int, int]
    kernel: tuple[int, int]


@dataclass(frozen=True)
class Patches:
    """How many patches a program has of samples, below each other and side by side."""

    samples: int
    down: int
    across: int


@dataclass(frozen=True)
class Blocks:
    """Base of configurations: every field but the first two is a constant of the device function."""

    warps: int
    stages: int

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if type(size) is not int or size < 1 or (name != "stages" and size & (size - 1)):
                raise ValueError(f"{type(self).__name__}.{name}: expected a power of two, got {size!r}")

    def options(self, tight: bool) -> dict[str, int]:
        """What Triton's compiler is told; `tight` as of `for_output`."""
        told = {"num_warps": self.warps, "num_stages": self.stages}
        if tight:  # by itself it may spill some registers to have more programs at once
            told["maxnreg"] = min(MOST_REGISTERS, REGISTERS // (32 * self.warps))
        return told

    def constants(self) -> dict[str, int]:
        """Constants of the device function by name."""
        own = {field.name.upper(): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in own.items() if name not in ("WARPS", "STAGES")}


@dataclass(frozen=True)
class MatrixBlocks(Blocks):
    """Base of blocks whose sums are matrix products."""

    block_channels: int
    patches: int
    rows: int
    columns: int
    chunk: int

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = {"patches": self.patches, "cells a patch": self.rows * self.columns, "columns a chunk": self.chunk}
        for what, side in sides.items():
            if side < SIDE:
                raise ValueError(f"{type(self).__name__}: expected at least {SIDE} {what}, got {side}")


@dataclass(frozen=True)
class Banded(MatrixBlocks):
    """Blocks of `kernels.banded`: patches are of rows x columns, a chunk is of columns of the input."""

    def programs(self, sizes: Sizes) -> int:
        """How many programs make the output."""
        patches = patches_of(self, sizes)
        down = _parts(_parts(sizes.map_out[0], self.rows), patches.down)
        across = _parts(_parts(sizes.map_out[1], self.columns), patches.across)
        return _parts(sizes.channels, self.block_channels) * _parts(sizes.samples, patches.samples) * down * across

    def band_rows(self, sizes: Sizes) -> int:
        """Rows of a banded matrix: what a row of a patch meets, and what the last chunk has beyond it."""
        return self.columns + sizes.kernel[1] - 1 + self.chunk - 1

    def band_cells(self, sizes: Sizes) -> int:
        """Cells of the banded matrices of one channel."""
        return sizes.kernel[0] * self.band_rows(sizes) * self.columns


@dataclass(frozen=True)
class Multiplied(Blocks):
    """Blocks of `kernels.multiplied`."""

    block_channels: int
    block_cells: int

    def programs(self, sizes: Sizes) -> int:
        """How many programs make the output."""
        cells = _parts(sizes.map_out[0] * sizes.map_out[1], self.block_cells)
        return _parts(sizes.channels, self.block_channels) * cells * sizes.samples


@dataclass(frozen=True)
class BandedWeightGradient(MatrixBlocks):
    """Blocks of `kernels.banded_weight_gradient`: rows are of taps, columns of a patch, a chunk of the input's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < self.columns:
            raise ValueError(f"{type(self).__name__}: expected no more columns than a chunk has, {self.chunk}")

    def chunks(self, sizes: Sizes) -> int:
        """Into how many parts the columns that patches meet are divided; they overlap, so that no diagonal is cut."""
        start, stop = met_columns(sizes, self.columns)
        return 1 + _parts(max(0, stop - start - self.chunk), self.chunk - self.columns + 1)

    def programs(self, sizes: Sizes) -> int:
        """How many programs make one of the splits."""
        taps = _parts(sizes.kernel[0], self.rows)
        return _parts(sizes.channels, self.block_channels) * self.chunks(sizes) * taps

    def splits(self, sizes: Sizes) -> int:
        """Into how many parts to divide the sum; the same on every machine."""
        steps = _parts(sizes.samples * _parts(sizes.map_out[1], self.columns), self.patches)
        return _parts(steps, max(1, steps * self.programs(sizes) // SPLIT_PROGRAMS))


@cached(maxsize=1024)
def for_output(
    sizes: Sizes, dtype: torch.dtype, channels_last: bool, tight: bool = False
) -> tuple[Banded | Multiplied, ...]:
    """What may make the output, or the gradient of the input.

    Args:
        sizes: Of the launch.
        dtype: Of all tensors.
        channels_last: Whether channels are neighbours in memory.
        tight: Whether registers are scarce: offsets take 64 bits, or neighbours cannot be read 16 bytes at a time.
    """
    flat = sizes.map_out[0] == 1
    if channels_last:
        multiplied, banded = Multiplied(4, 1, 32, 16), _channels_last_output(dtype, flat, tight)
    else:
        multiplied = Multiplied(4, 1, 1, 256)
        banded = tuple(sorted(_contiguous_output(dtype, flat), key=lambda blocks: _cells_multiplied(blocks, sizes)))
    busy = [blocks for blocks in banded if blocks.programs(sizes) >= BUSY_PROGRAMS]
    found = dict.fromkeys([*busy, *reversed(banded)])
    taps = sizes.kernel[0] * sizes.kernel[1]
    if taps <= MANY_TAPS and multiplied.programs(sizes) < MOST_PROGRAMS:
        return (multiplied, *found) if taps <= FEW_TAPS else (*found, multiplied)
    return tuple(found)


@cached(maxsize=1024)
def for_weight_gradient(
    sizes: Sizes, dtype: torch.dtype, channels_last: bool, tight: bool = False
) -> tuple[BandedWeightGradient, ...]:
    """What may make the gradient of the kernel; arguments as of `for_output`.

    All sum the same in the same order, so that no bit depends on the fastest: same patches, columns and splits.
    """
    start, stop = met_columns(sizes, SIDE)
    if sizes.map_out[1] <= SIDE // 2 and stop - start <= SIDE:
        rows, columns, chunk = 4, SIDE // 2, SIDE
    elif stop - start <= SIDE:
        rows, columns, chunk = 4, SIDE, SIDE
    else:
        rows, columns, chunk = 8, SIDE // 2, 2 * SIDE
    shape = rows, columns, chunk
    if not channels_last:
        patches = 2 * SIDE if dtype.itemsize <= 2 or columns == SIDE else SIDE
        # Of so few sums, four warps have so few registers each that Triton 3.6 spills some.
        warps = 2 if dtype == torch.float32 and (columns, chunk) == (SIDE // 2, SIDE) else 4
        return (BandedWeightGradient(warps, 1, 1, patches, *shape),)
    channels = 16 // dtype.itemsize
    if tight or dtype.itemsize > 4:
        rows = 4 if dtype == torch.float32 else rows  # of 8, Triton 3.8 spills some
        return (BandedWeightGradient(8, 1, channels, SIDE, rows, columns, chunk),)
    large = chunk > SIDE
    if dtype.itemsize > 2 and large:
        return tuple(BandedWeightGradient(warps, 1, channels, SIDE, *shape) for warps in (4, 8))
    stages = 2 if large else 1
    return BandedWeightGradient(8, stages, channels, SIDE, *shape), BandedWeightGradient(16, 1, channels, SIDE, *shape)


@cached(maxsize=1024)
def patches_of(blocks: Banded, sizes: Sizes) -> Patches:
    """Which patches a program of `kernels.banded` has."""
    down, across = _parts(sizes.map_out[0], blocks.rows), _parts(sizes.map_out[1], blocks.columns)
    side_by_side = min(blocks.patches, across)
    samples = min(blocks.patches // side_by_side, sizes.samples)
    beside = Patches(samples, min(blocks.patches // (side_by_side * samples), down), side_by_side)
    samples = min(blocks.patches, sizes.samples)
    side_by_side = min(blocks.patches // samples, across)
    others = Patches(samples, min(blocks.patches // (side_by_side * samples), down), side_by_side)
    fewest = MORE_PRODUCTS * _products_of_a_channel(blocks, sizes, others)
    return beside if _products_of_a_channel(blocks, sizes, beside) <= fewest else others


def met_columns(sizes: Sizes, columns: int) -> tuple[int, int]:
    """First, and one past the last, of the columns that patches meet, from their first cell minus the padding on."""
    first_of_last = (_parts(sizes.map_out[1], columns) - 1) * columns
    start = max(0, sizes.padding[1] - first_of_last)
    return start, max(start + 1, min(columns + sizes.kernel[1] - 1, sizes.map_in[1] + sizes.padding[1]))


def _channels_last_output(dtype: torch.dtype, flat: bool, tight: bool) -> tuple[Banded, ...]:
    # Largest first; channels in 16 bytes, or in 8, or fewer patches, where Triton 3.8 would spill. Loads of the next
    # step while this one is multiplied (two stages) where there are the registers.
    channels, cells = 16 // dtype.itemsize, (1, 32) if flat else (8, 8)
    small = Banded(8, 1, channels, 16, *cells, SIDE) if flat else Banded(4, 1, channels, 16, 4, 8, SIDE)
    if dtype.itemsize > 4:
        return (small,)
    if dtype.itemsize > 2:
        large = Banded(4, 1, channels, 16, *cells, SIDE) if tight else Banded(4, 1 + flat, channels, 32, *cells, SIDE)
        return large, small
    middle = Banded(8, 2, channels, 32, *cells, SIDE)
    if flat or tight:
        middle = Banded(8, 1, channels // 2, 32, *cells, SIDE)
    return (middle, small) if tight else (Banded(8, 2, channels, 64, *cells, SIDE), middle, small)


def _contiguous_output(dtype: torch.dtype, flat: bool) -> tuple[Banded, ...]:
    cells = (1, 32) if flat else (8, 8)
    if dtype.itemsize > 4:
        return (Banded(4, 1, 1, 64, *cells, SIDE),)
    if dtype.itemsize > 2:
        return Banded(8, 1, 1, 128, *cells, SIDE), Banded(8 if flat else 4, 1, 1, 64, *cells, SIDE)
    narrow = Banded(4, 2, 1, 64, *cells, SIDE)
    return (narrow,) if flat else (Banded(4, 1, 1, 64, *cells, 2 * SIDE), narrow)


def _cells_multiplied(blocks: Banded, sizes: Sizes) -> int:
    # Cells of the input, of all patches and rows: wide chunks reach further into padding on small maps.
    return _products_of_a_channel(blocks, sizes, patches_of(blocks, sizes)) * blocks.patches * blocks.chunk


def _products_of_a_channel(blocks: Banded, sizes: Sizes, patches: Patches) -> int:
    # Matrix products, as the device function counts its steps.
    rows, chunks = (
        sum(
            _parts(max(0, min(side + taps - 1, map_in + pad - first) - max(0, pad - first - (count - 1) * side)), step)
            for first in range(0, map_out, count * side)
        )
        for side, count, taps, map_in, map_out, pad, step in zip(
            (blocks.rows, blocks.columns),
            (patches.down, patches.across),
            sizes.kernel,
            sizes.map_in,
            sizes.map_out,
            sizes.padding,
            (1, blocks.chunk),
            strict=True,
        )
    )
    return _parts(sizes.samples, patches.samples) * rows * chunks


def _parts(size: int, part: int) -> int:
    return -(-size // part)
