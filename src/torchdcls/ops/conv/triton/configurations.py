"""How programs divide a convolution among them: what may be chosen, best guess first. Pure arithmetic, no Triton here.

What bounds the choice: a program's sums live in registers, `channels x patches x cells` of them; a matrix product needs
sides of at least 16; channels that are neighbours in memory must be read together; and the patches of a channel share
its banded matrix, the more of them a program has, the better.
"""

from dataclasses import dataclass, fields

import torch

# Side of the smallest matrix product, and so of what a program sums over at once.
SIDE = 16
# Up to so many taps they are multiplied one after the other as a best guess, and up to so many at all.
FEW_TAPS, MANY_TAPS = 25, 169
# Of a launch.
MOST_PROGRAMS = 2**31
# How many programs the gradient of a kernel is divided among where channels and taps alone give fewer.
PROGRAMS = 1024


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
class Blocks:
    """Base of configurations: every field but the last two is a constant of the device function, BLOCK_ or as it is."""

    warps: int
    stages: int

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if type(size) is not int or size < 1 or (name != "stages" and size & (size - 1)):
                raise ValueError(f"{type(self).__name__}.{name}: expected a power of two, got {size!r}")
        for what, side in self.sides().items():
            if side < SIDE:
                raise ValueError(f"{type(self).__name__}: expected at least {SIDE} {what}, got {side}")

    def sides(self) -> dict[str, int]:
        """Sides of the matrix products, if there are any, by what they are."""
        return {}

    def constants(self) -> dict[str, int]:
        """Constants of the device function by name."""
        own = {field.name.upper(): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in own.items() if name not in ("WARPS", "STAGES")}


@dataclass(frozen=True)
class Banded(Blocks):
    """Blocks of `kernels.banded`."""

    block_channels: int
    block_samples: int
    block_down: int
    block_across: int
    rows: int
    columns: int
    chunk: int

    def sides(self) -> dict[str, int]:
        """Sides of the matrix products."""
        patches = self.block_samples * self.block_down * self.block_across
        return {"patches": patches, "cells a patch": self.rows * self.columns, "columns a chunk": self.chunk}

    def programs(self, sizes: Sizes) -> int:
        """How many programs make the output."""
        down = _parts(_parts(sizes.map_out[0], self.rows), self.block_down)
        across = _parts(_parts(sizes.map_out[1], self.columns), self.block_across)
        channels, samples = _parts(sizes.channels, self.block_channels), _parts(sizes.samples, self.block_samples)
        return channels * samples * down * across


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
class BandedWeightGradient(Blocks):
    """Blocks of `kernels.banded_weight_gradient`."""

    block_channels: int
    block_patches: int
    columns: int
    chunk: int

    def sides(self) -> dict[str, int]:
        """Sides of the matrix products."""
        return {"patches": self.block_patches, "columns": self.columns, "columns a chunk": self.chunk}

    def chunks(self, sizes: Sizes) -> int:
        """Into how many parts the columns that patches meet are divided."""
        start, stop = met_columns(sizes, self.columns)
        return _parts(stop - start, self.chunk)

    def programs(self, sizes: Sizes) -> int:
        """How many programs make one of the splits."""
        return _parts(sizes.channels, self.block_channels) * self.chunks(sizes) * sizes.kernel[0]

    def splits(self, sizes: Sizes) -> int:
        """Into how many parts to divide the sum; the same on every machine."""
        patches = sizes.samples * sizes.map_out[0] * _parts(sizes.map_out[1], self.columns)
        return max(1, min(PROGRAMS // self.programs(sizes), _parts(patches, self.block_patches)))


def for_output(sizes: Sizes, dtype: torch.dtype, channels_last: bool, far: bool = False) -> list[Banded | Multiplied]:
    """What may make the output, or the gradient of the input; `far` where offsets take 64 bits, and more registers."""
    rows_out, columns_out = sizes.map_out
    stages = _stages(dtype)
    # Of a configuration: channels, patches, rows and columns of a patch, warps.
    if channels_last:
        channels, patches = _neighbours(dtype), 32 if far or dtype.itemsize > 4 else 64
        if columns_out <= 8 and rows_out > 1:
            shapes = [(channels, patches, 2, 8, 8), (channels, 32, 4, 8, 8), (2 * channels, 32, 2, 8, 8)]
        else:
            shapes = [(channels, patches, 1, 16, 8), (channels, 32, 2, 16, 8), (2 * channels, 32, 1, 16, 8)]
        multiplied = Multiplied(4, 1, 32, 16)
    else:
        warps = 8 if dtype.itemsize > 2 else 4
        if columns_out <= 8 and rows_out > 1:  # a patch that holds a whole small map
            shapes = [(1, 64, 8, 8, warps), (1, 128, 4, 8, 8), (1, 64, 4, 8, 4)]
        elif rows_out == 1:
            shapes = [(1, 64, 1, 32, 4), (1, 64, 1, 64, 4), (1, 128, 1, 16, 4)]
        else:
            shapes = [(1, 64, 4, 16, 8), (1, 128, 2, 16, 8), (1, 64, 2, 32, warps)]
        multiplied = Multiplied(4, 1, 1, 256)
    found = [_banded(sizes, stages, *shape) for shape in shapes]
    taps = sizes.kernel[0] * sizes.kernel[1]
    if taps <= MANY_TAPS and multiplied.programs(sizes) < MOST_PROGRAMS:
        return [multiplied, *found] if taps <= FEW_TAPS else [*found, multiplied]
    return [*found]


def for_weight_gradient(sizes: Sizes, dtype: torch.dtype, channels_last: bool) -> list[BandedWeightGradient]:
    """What may make the gradient of the kernel."""
    start, stop = met_columns(sizes, SIDE)
    band = max(SIDE, power_above(stop - start))
    # Of a configuration: warps, stages, channels, patches, columns of a patch, columns of the input at once.
    if channels_last:
        channels, stages = _neighbours(dtype), _stages(dtype)
        found = [
            BandedWeightGradient(8, stages, channels, 32, 16, min(band, 32)),
            BandedWeightGradient(8, stages, channels, 32, 16, 16),
            BandedWeightGradient(8, stages, 2 * channels, 32, 16, 16),
        ]
    else:
        warps = 8 if dtype.itemsize > 2 else 4
        found = [
            BandedWeightGradient(warps, 2, 1, 32, 16, min(band, 64)),
            BandedWeightGradient(warps, 2, 1, 32, 32, min(power_above(SIDE + band), 64)),
            BandedWeightGradient(warps, 2, 1, 64, 16, min(band, 32)),
        ]
    return list(dict.fromkeys(found))


def _neighbours(dtype: torch.dtype) -> int:
    # Channels in 16 bytes.
    return 16 // dtype.itemsize


def _stages(dtype: torch.dtype) -> int:
    # Loads of the next step while this one is multiplied. For float32 there are not the registers, and where channels
    # are read together, four bytes would be read at a time, and not 16.
    return 1 if dtype.itemsize > 2 else 2


def met_columns(sizes: Sizes, columns: int) -> tuple[int, int]:
    """First and last but one of the columns, from a patch's first cell minus the padding, that are not all padding."""
    first_of_last = (_parts(sizes.map_out[1], columns) - 1) * columns
    start = max(0, sizes.padding[1] - first_of_last)
    return start, max(start + 1, min(columns + sizes.kernel[1] - 1, sizes.map_in[1] + sizes.padding[1]))


def _banded(sizes: Sizes, stages: int, channels: int, patches: int, rows: int, columns: int, warps: int) -> Banded:
    # Other samples' patches first, as the same rows of theirs lie in the padding; then those beside, then those below.
    down, across = power_above(_parts(sizes.map_out[0], rows)), power_above(_parts(sizes.map_out[1], columns))
    patches = max(SIDE, min(patches, power_above(sizes.samples) * down * across))
    samples = min(patches, power_above(sizes.samples))
    across = min(patches // samples, across)
    down = min(patches // (samples * across), down)
    samples = patches // (across * down)  # fewer patches than a product needs: the rest are of no sample
    return Banded(warps, stages, channels, samples, down, across, rows, columns, SIDE)


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def power_above(size: int) -> int:
    """The least power of two that is not below."""
    return 1 << max(0, size - 1).bit_length()
