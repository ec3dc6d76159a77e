"""How a convolution is divided among programs: all candidates, best guess first. Arithmetic alone, no Triton here.

Limits of the choice: a program keeps `channels x patches x cells` sums in registers. A matrix product needs sides of at
least 16. Channels that are neighbors in memory must be read together. More cells in a patch and more patches in a
program use what is read of the map and of the banded matrix more often, but wider patches have more zeros in the banded
matrix. Triton 3.6 divides only channels among warps: with more warps than channels, some repeat products of others.
"""

from dataclasses import dataclass, fields

import torch

from ...caches import cached

# Side of the smallest matrix product.
SIDE = 16
# Taps up to which multiplying one after the other is the best guess, and up to which it is a candidate.
FEW_TAPS, MANY_TAPS = 25, 169
# Limit of a launch.
MOST_PROGRAMS = 2**31
# This many programs occupy a GPU: with fewer of large blocks, smaller blocks are the best guess.
BUSY_PROGRAMS = 256
# The gradient of a kernel has this to twice this many programs, by splits of the sum where channels and taps are few.
SPLIT_PROGRAMS = 1024
# Limits of a multiprocessor and of a thread.
REGISTERS, MOST_REGISTERS = 2**16, 255
# A program has patches of one sample side by side, which read the same columns, unless that takes this factor more
# products than the same patch of several samples, as more of the columns are padding.
MORE_PRODUCTS = 1.2


@dataclass(frozen=True)
class Sizes:
    """Sizes of a launch: depthwise, two axes (rows, columns), stride 1."""

    samples: int
    channels: int
    map_in: tuple[int, int]
    map_out: tuple[int, int]
    padding: tuple[int, int]
    kernel: tuple[int, int]


@dataclass(frozen=True)
class Patches:
    """The patches of a program: samples, patches below each other and side by side."""

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
        """Options of Triton's compiler; see `for_output` for `tight`."""
        told = {"num_warps": self.warps, "num_stages": self.stages}
        if tight:  # otherwise the compiler may spill registers to run more programs at once
            told["maxnreg"] = min(MOST_REGISTERS, REGISTERS // (32 * self.warps))
        return told

    def constants(self) -> dict[str, int]:
        """Constants of the device function by name."""
        own = {field.name.upper(): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in own.items() if name not in ("WARPS", "STAGES")}


@dataclass(frozen=True)
class MatrixBlocks(Blocks):
    """Base of blocks with matrix products."""

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
        """How many programs compute the output."""
        patches = patches_of(self, sizes)
        down = _parts(_parts(sizes.map_out[0], self.rows), patches.down)
        across = _parts(_parts(sizes.map_out[1], self.columns), patches.across)
        return _parts(sizes.channels, self.block_channels) * _parts(sizes.samples, patches.samples) * down * across

    def band_rows(self, sizes: Sizes) -> int:
        """Rows of a banded matrix: the columns that a row of a patch reads, and the rest of the last chunk."""
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
        """How many programs compute the output."""
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
        """The number of chunks of the columns that patches read; they overlap, so that no diagonal is cut."""
        start, stop = met_columns(sizes, self.columns)
        return 1 + _parts(max(0, stop - start - self.chunk), self.chunk - self.columns + 1)

    def programs(self, sizes: Sizes) -> int:
        """How many programs compute one of the splits."""
        taps = _parts(sizes.kernel[0], self.rows)
        return _parts(sizes.channels, self.block_channels) * self.chunks(sizes) * taps

    def splits(self, sizes: Sizes) -> int:
        """The number of splits of the sum; the same on every machine."""
        steps = _parts(sizes.samples * _parts(sizes.map_out[1], self.columns), self.patches)
        return _parts(steps, max(1, steps * self.programs(sizes) // SPLIT_PROGRAMS))


@cached(maxsize=1024)
def for_output(
    sizes: Sizes, dtype: torch.dtype, channels_last: bool, tight: bool = False
) -> tuple[Banded | Multiplied, ...]:
    """Candidates for the output or the gradient of the input.

    Registers are `tight` if offsets take 64 bits, or neighbors in memory cannot be read 16 bytes at a time.
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
    """Candidates for the gradient of the kernel, which all sum in the same order: their results are equal."""
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
        # With so few sums Triton 3.6 gives four warps too few registers, and spills some.
        warps = 2 if dtype == torch.float32 and (columns, chunk) == (SIDE // 2, SIDE) else 4
        return (BandedWeightGradient(warps, 1, 1, patches, *shape),)
    channels = 16 // dtype.itemsize
    if tight or dtype.itemsize > 4:
        rows = 4 if dtype == torch.float32 else rows  # with 8 rows Triton 3.8 spills some
        return (BandedWeightGradient(8, 1, channels, SIDE, rows, columns, chunk),)
    large = chunk > SIDE
    if dtype.itemsize > 2 and large:
        return tuple(BandedWeightGradient(warps, 1, channels, SIDE, *shape) for warps in (4, 8))
    stages = 2 if large else 1
    return BandedWeightGradient(8, stages, channels, SIDE, *shape), BandedWeightGradient(16, 1, channels, SIDE, *shape)


@cached(maxsize=1024)
def patches_of(blocks: Banded, sizes: Sizes) -> Patches:
    """The patches of a program of `kernels.banded`."""
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
    """The range of columns that patches read, counted from their first cell minus the padding."""
    first_of_last = (_parts(sizes.map_out[1], columns) - 1) * columns
    start = max(0, sizes.padding[1] - first_of_last)
    return start, max(start + 1, min(columns + sizes.kernel[1] - 1, sizes.map_in[1] + sizes.padding[1]))


def _channels_last_output(dtype: torch.dtype, flat: bool, tight: bool) -> tuple[Banded, ...]:
    # Largest first. Channels fill 16 bytes; 8 bytes or fewer patches where Triton 3.8 would spill. Two stages load the
    # next step during the products, if there are registers for it.
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
    # Cells of the input that are multiplied: on small maps wide chunks reach further into padding.
    return _products_of_a_channel(blocks, sizes, patches_of(blocks, sizes)) * blocks.patches * blocks.chunk


def _products_of_a_channel(blocks: Banded, sizes: Sizes, patches: Patches) -> int:
    # Matrix products: the steps of the device function.
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
