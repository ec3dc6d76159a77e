"""Convolution as a product of spectra: the cost hardly grows with the kernel's taps.

With X, W and G the spectra of input, kernel and gradient of the output, where torch's convolution is a correlation:

    output = inverse(X conj(W))    gradient of input = inverse(G W)    gradient of weight = inverse(sum of X conj(G))

Maps are transformed in blocks of the batch that stay in cache, large maps in tiles that overlap (overlap-save).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..tracing import sizes_are_known, special_tensors
from . import mixed
from .method import Method, Part
from .problem import Problem
from .spectrum import (
    FastTransform,
    MatrixTransform,
    Transform,
    convolve_spectra,
    correlate_spectra,
    kept_frequencies,
    transpose_spectra,
)

# Up to this many cells around an axis a matrix product is faster than torch.fft (on CPU).
MATRIX_LENGTH = 192
# Up to this length of the circle a map stays in one piece. Tiles make matrices smaller and frequencies more, which
# costs more where each frequency is a matrix product over channels.
UNCUT_LENGTH, UNCUT_LENGTH_OF_GROUPS = 96, MATRIX_LENGTH
# Size of the spectra of a block of maps, so that they stay in cache. With mixed channels each block reads the whole
# spectrum of the kernel, so that blocks are few and large. Unit: bytes.
BLOCK_BYTES, BLOCK_BYTES_OF_GROUPS = 2**21, 2**28
# Size of the spectrum of a part of a dense kernel, if the maps are one block. Unit: bytes.
KERNEL_BYTES = 9 * 2**20
# Largest spectrum of a kernel in groups; a larger one is made for some groups at a time. Unit: bytes.
MOST_KERNEL_BYTES = 2**28
# Largest spectrum of a kernel that "auto" accepts. Unit: bytes.
LARGEST_SPECTRUM_BYTES = 2**29
# With more taps along the longer axis "auto" takes it on CUDA, where Triton's products become more work.
MOST_LENGTH = 63


@dataclass(frozen=True)
class Tile:
    """A part of the outputs, the cells of the input that it reads, and where the first of those is in the circle."""

    outputs: tuple[slice, ...]
    window: tuple[slice, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True)
class Tiling:
    """Circles of `lengths` cells, tiles of at most `cells` outputs, `rows` samples and `channels` outputs at a time."""

    lengths: tuple[int, ...]
    cells: tuple[int, ...]
    rows: int
    channels: int

    def transform(self) -> Transform:
        """The transform from maps to spectra and back."""
        return (MatrixTransform if max(self.lengths) <= MATRIX_LENGTH else FastTransform)(self.lengths)


def tiling(problem: Problem) -> Tiling:
    """Lengths, tiles and blocks for a problem of stride 1."""
    uncut = UNCUT_LENGTH if problem.depthwise else UNCUT_LENGTH_OF_GROUPS
    sizes = zip(problem.map, problem.kernel, problem.outputs, problem.padding, strict=True)
    axes = [_axis(*row, uncut) for row in sizes]
    lengths, cells = (tuple(column) for column in zip(*axes, strict=True))
    if max(lengths) > MATRIX_LENGTH:
        lengths = tuple(good_size(length) for length in lengths)
    channels = max(problem.in_channels, problem.out_channels)
    spectrum = 4 * math.prod(lengths) * channels  # float32, half of the frequencies
    budget = BLOCK_BYTES if problem.depthwise else BLOCK_BYTES_OF_GROUPS
    rows, outputs = max(1, budget // spectrum), problem.out_channels
    if problem.groups == 1 and cells == problem.outputs and rows >= problem.batch and max(lengths) <= MATRIX_LENGTH:
        # The maps' spectrum serves all parts of the kernel.
        part = max(1, KERNEL_BYTES // (4 * math.prod(lengths) * problem.in_channels))
        outputs = min(outputs, part // 16 * 16 or part)  # matrices that fill vectors
    return Tiling(lengths, cells, rows, outputs)


def _axis(size: int, taps: int, outputs: int, pads: tuple[int, int], uncut: int) -> tuple[int, int]:
    # Circle and tile of an axis. For the whole map the circle only has to keep cells that wrap around off the outputs;
    # for a tile it holds all cells that its outputs read.
    whole = max(size + max(pads), taps)
    if whole <= max(uncut, 3 * taps):
        return whole, outputs
    target = max(64, 2 * taps) if 3 * taps <= MATRIX_LENGTH else 4 * taps
    cells = -(-outputs // -(-outputs // target))
    return (cells + taps - 1, cells) if cells + taps - 1 < whole else (whole, outputs)


def kernel_bytes(problem: Problem) -> int:
    """Size of the largest part of the kernel's spectrum, in float32."""
    problem = _of_groups(problem, _groups_at_once(problem))
    cut = tiling(problem)
    return _whole_kernel_bytes(problem) * min(cut.channels, problem.out_channels) // max(1, problem.out_channels)


def _whole_kernel_bytes(problem: Problem) -> int:
    weights = problem.out_channels * problem.in_channels // problem.groups
    return 4 * math.prod(tiling(problem).lengths) * weights


def _groups_at_once(problem: Problem) -> int:
    return max(1, min(problem.groups, MOST_KERNEL_BYTES * problem.groups // max(1, _whole_kernel_bytes(problem))))


def _of_groups(problem: Problem, groups: int) -> Problem:
    # The same problem with fewer groups.
    inputs, outputs = (channels // problem.groups for channels in (problem.in_channels, problem.out_channels))
    return replace(problem, groups=groups, in_channels=groups * inputs, out_channels=groups * outputs)


def _parts_of_groups(problem: Problem) -> list[tuple[Problem, slice, slice]]:
    # Problems of some groups each, with their channels of the input and of the output.
    step = _groups_at_once(problem)
    inputs, outputs = (channels // problem.groups for channels in (problem.in_channels, problem.out_channels))
    parts = []
    for first in range(0, problem.groups, step):
        stop = min(first + step, problem.groups)
        channels = slice(first * inputs, stop * inputs), slice(first * outputs, stop * outputs)
        parts.append((_of_groups(problem, stop - first), *channels))
    return parts


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """Convolution at stride 1, in float32 or float64."""
    if mixed.can_mix(problem, input, weight):
        mixture = mixed.made("convolve", input, weight, problem)
        return mixture if bias is None else mixture.add_(bias.unsqueeze(-1))
    parts = _parts_of_groups(problem)
    if len(parts) > 1:
        outputs = [
            convolve(input[:, inner], weight[outer], None if bias is None else bias[outer], part)
            for part, inner, outer in parts
        ]
        return torch.cat(outputs, 1)
    cut = tiling(problem)
    transform = cut.transform()
    start = (0,) * len(problem.kernel)
    kernel = _KernelSpectrum(weight, problem, cut)
    output = _Maps((problem.batch, problem.out_channels, *problem.outputs), False)
    for rows, tile in _blocks(problem, cut):
        maps = transform.forward(_cells(input, rows, tile.window), tile.offset)
        for part in kernel.parts:
            product = convolve_spectra(maps, kernel.of(part), problem.groups)
            cells = transform.inverse(product, _sizes(tile.outputs), start)
            output.put(rows, tile.outputs, part, cells if bias is None else cells + bias[part])
    return output.whole()


def transpose(gradient: Tensor, weight: Tensor, problem: Problem) -> Tensor:
    """Gradient of the input of `convolve`, (batch, in_channels, *map)."""
    (to_input,) = _gradients(None, weight, gradient, problem)
    return to_input


def correlate(input: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
    """Gradient of the weight of `convolve`, (out_channels, in_channels/groups, *kernel)."""
    (to_weight,) = _gradients(input, None, gradient, problem)
    return to_weight


def gradients(input: Tensor, weight: Tensor, gradient: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the input and of the weight of `convolve`, with three transforms of maps instead of four."""
    to_input, to_weight = _gradients(input, weight, gradient, problem)
    return to_input, to_weight


def _gradients(input: Tensor | None, weight: Tensor | None, gradient: Tensor, problem: Problem) -> list[Tensor]:
    # The gradient of the input if there is a weight, and that of the weight if there is an input.
    if mixed.can_mix(problem, input, weight, gradient):
        to_input = [] if weight is None else [mixed.made("transpose", gradient, weight, problem)]
        to_weight = [] if input is None else [mixed.made("correlate", input, gradient, problem)]
        return to_input + to_weight
    parts = _parts_of_groups(problem)
    if len(parts) > 1:
        made = [
            _gradients(
                None if input is None else input[:, inner],
                None if weight is None else weight[outer],
                gradient[:, outer],
                part,
            )
            for part, inner, outer in parts
        ]
        channels = [*([] if weight is None else [1]), *([] if input is None else [0])]
        return [torch.cat(each, axis) for each, axis in zip(zip(*made, strict=True), channels, strict=True)]
    cut = tiling(problem)
    transform = cut.transform()
    start = (0,) * len(problem.kernel)
    kernel = _KernelSpectrum(weight, problem, cut)
    inner = _Maps((problem.batch, problem.in_channels, *problem.map), cut.cells != problem.outputs)
    for rows, tile in _blocks(problem, cut):
        outputs = transform.forward(_cells(gradient, rows, tile.outputs), start)
        if input is not None:
            maps = transform.forward(_cells(input, rows, tile.window), tile.offset)
            for part in kernel.parts:
                kernel.add_gradient(part, maps, outputs[..., part])
        if weight is not None:
            product: Tensor | None = None
            for part in kernel.parts:
                product = transpose_spectra(outputs[..., part], kernel.of(part), problem.groups, product)
            assert product is not None
            cells = transform.inverse(product, _sizes(tile.window), tile.offset)
            inner.put(rows, tile.window, slice(None), cells)
    return [*([] if weight is None else [inner.whole()]), *([] if input is None else [kernel.gradient()])]


class _KernelSpectrum:
    """A kernel's spectrum; if it is large, for one part of the output channels after the other."""

    def __init__(self, weight: Tensor | None, problem: Problem, cut: Tiling) -> None:
        self.weight, self.transform, self.problem = weight, cut.transform(), problem
        self.start = (0,) * len(problem.kernel)
        channels = problem.out_channels
        step = channels if special_tensors() else cut.channels
        self.parts = [slice(first, min(first + step, channels)) for first in range(0, channels, step)]
        self.spectrum: Tensor | None = None
        self.totals: dict[int, Tensor] = {}

    def of(self, part: slice) -> Tensor:
        """(1, planes, frequencies, out_channels of the part * in_channels/groups)."""
        assert self.weight is not None
        if self.spectrum is None or len(self.parts) > 1:
            # (out, in, *kernel) -> (1, *kernel, out * in), a view
            taps = self.weight[part].flatten(0, 1).movedim(0, -1).unsqueeze(0)
            self.spectrum = self.transform.forward(taps, self.start)
        return self.spectrum

    def add_gradient(self, part: slice, maps: Tensor, outputs: Tensor) -> None:
        """Adds the share of a block of maps to the gradient's spectrum."""
        self.totals[part.start] = correlate_spectra(maps, outputs, self.problem.groups, self.totals.get(part.start))

    def gradient(self) -> Tensor:
        """The sum of the shares, (out_channels, in_channels/groups, *kernel)."""
        made = []
        for total in self.totals.values():
            cells = self.transform.inverse(total, self.problem.kernel, self.start).squeeze(0).movedim(-1, 0)
            made.append(torch.unflatten(cells, 0, (-1, self.problem.in_channels // self.problem.groups)))
        return torch.cat(made).clone(memory_format=torch.contiguous_format)


def _blocks(problem: Problem, cut: Tiling) -> Iterator[tuple[slice, Tile]]:
    # A compiled graph also serves other batches, and has no blocks of them.
    rows = [slice(None)]
    if not special_tensors() and cut.rows < problem.batch:
        rows = [slice(first, first + cut.rows) for first in range(0, problem.batch, cut.rows)]
    yield from itertools.product(rows, _tiles(problem, cut))


def _tiles(problem: Problem, cut: Tiling) -> Iterator[Tile]:
    axes = []
    for size, taps, outputs, (before, _), cells in zip(
        problem.map, problem.kernel, problem.outputs, problem.padding, cut.cells, strict=True
    ):
        axis = []
        for first in range(0, outputs, cells):
            stop = min(first + cells, outputs)
            start = max(0, first - before)
            window = slice(start, min(size, stop - 1 - before + taps))
            axis.append((slice(first, stop), window, start - (first - before)))
        axes.append(axis)
    for parts in itertools.product(*axes):
        outputs, windows, offsets = zip(*parts, strict=True)
        yield Tile(outputs, windows, offsets)


def _cells(maps: Tensor, rows: slice, region: tuple[slice, ...]) -> Tensor:
    # (batch, channels, *map) -> (rows, *region, channels)
    return maps.movedim(1, -1)[(rows, *region)]


def _sizes(region: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in region)


class _Maps:
    """Maps put together from parts, which add up where they overlap."""

    def __init__(self, shape: Sequence[int], overlap: bool) -> None:
        self.batch, self.channels, *self.sizes = shape
        self.overlap = overlap
        self.maps: Tensor | None = None  # (batch, *sizes, channels)

    def put(self, rows: slice, region: tuple[slice, ...], channels: slice, cells: Tensor) -> None:
        """Adds (rows, *region, channels)."""
        every = rows == slice(None)
        if every and list(cells.shape[1:]) == [*self.sizes, self.channels]:
            self.maps = cells
            return
        if self.maps is None:
            # Made from a part: under vmap it then has the hidden axis that the part has.
            batch = cells.shape[0] if every else self.batch
            self.maps = cells.new_zeros((batch, *self.sizes, self.channels))
        place = self.maps[(rows, *region, channels)]
        if self.overlap:
            place.add_(cells)
        else:
            place.copy_(cells)

    def whole(self) -> Tensor:
        """(batch, channels, *sizes)."""
        assert self.maps is not None
        return self.maps.movedim(-1, 1)


def operations(problem: Problem, part: Part) -> dict[str, float]:
    """How many of which operations a part takes; the cost rule multiplies them by measured times."""
    if mixed.serves(problem):
        return mixed.operations(problem, part)
    cut = tiling(problem)
    tiles = math.prod(-(-out // cells) for out, cells in zip(problem.outputs, cut.cells, strict=True))
    window = [
        min(size, cells + taps - 1) for size, cells, taps in zip(problem.map, cut.cells, problem.kernel, strict=True)
    ]
    maps_in = (window, problem.in_channels, problem.batch * tiles)
    maps_out = (cut.cells, problem.out_channels, problem.batch * tiles)
    weights = problem.out_channels * problem.in_channels // problem.groups
    kernel = (problem.kernel, weights, 1)
    products = 2 if part == "gradients" else 1
    transformed = [*(maps_in for _ in range(products)), maps_out, *(kernel for _ in range(products))]
    frequencies = math.prod(cut.lengths)
    spectra = sum(channels * maps * frequencies for _, channels, maps in transformed)
    blocks = products * tiles * -(-problem.batch // cut.rows) * -(-problem.out_channels // cut.channels)
    counts = {"fft call": 1.0, "fft block": float(blocks), "fft spectrum cell": float(spectra)}
    if max(cut.lengths) <= MATRIX_LENGTH:
        work = [_matrix_work(cut.lengths, *each) for each in transformed]
        counts["fft matrix flop"] = float(sum(flops for flops, _ in work))
        narrow = (flops / channels for (flops, _), (_, channels, _) in zip(work, transformed, strict=True))
        counts["fft matrix narrow flop"] = sum(narrow)
        counts["fft matrix product"] = float(sum(matrices for _, matrices in work))
    else:
        counts["fft fast step"] = spectra * math.log2(frequencies)
    if not problem.depthwise:
        # With few channels in a group the matrices of a frequency are too small to be fast.
        products_flops = 4.0 * products * problem.batch * tiles * frequencies * weights
        least = min(problem.batch * tiles, problem.in_channels // problem.groups, weights // problem.in_channels)
        counts["fft channels flop"] = products_flops
        counts["fft channels narrow flop"] = products_flops / least
        counts["fft channels product"] = float(products * frequencies * problem.groups)
    return counts


def _matrix_work(lengths: Sequence[int], sizes: Sequence[int], channels: int, maps: int) -> tuple[int, int]:
    # Operations and matrix products of one transform, forward or inverse. The last axis is real on one side, the others
    # are complex.
    flops, products, behind = 0, 0, channels
    for axis in reversed(range(len(sizes))):
        last = axis == len(sizes) - 1
        frequencies = kept_frequencies(lengths[axis], last)
        rows, columns = 2 * frequencies, sizes[axis] if last else 2 * sizes[axis]
        before = maps * math.prod(sizes[:axis])
        flops += 2 * before * rows * columns * behind
        products += before
        behind *= frequencies
    return flops, products


def good_size(length: int) -> int:
    """Smallest integer of at least `length` without prime factors above 7: `torch.fft` is fast there."""
    size = length
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def unsupported(problem: Problem) -> str | None:
    """Why spectra cannot run a problem, or None if they can."""
    if any(step != 1 for step in problem.stride):
        return f"it computes every output, and stride {problem.stride} skips most of them"
    if any(max(pads) >= size for pads, size in zip(problem.padding, problem.kernel, strict=True)):
        return f"padding {problem.padding} is not smaller than the kernel {problem.kernel}"
    return None


def undesired(problem: Problem) -> str | None:
    """Why "auto" leaves spectra out although they can run, or None."""
    longest = max(problem.kernel)
    if problem.device == "cuda" and not (problem.depthwise and longest > MOST_LENGTH and sizes_are_known(problem.map)):
        return f"it is expected to be faster only for depthwise kernels of more than {MOST_LENGTH} taps along an axis"
    if not mixed.serves(problem) and kernel_bytes(problem) > LARGEST_SPECTRUM_BYTES:
        return f"the kernel's spectrum would take more than {LARGEST_SPECTRUM_BYTES >> 20} MiB"
    return None


FFT = Method(
    name="fft",
    convolve=convolve,
    transpose=transpose,
    correlate=correlate,
    gradients=gradients,
    unsupported=unsupported,
    undesired=undesired,
    operations=operations,
    handicap=2.0,  # estimates of torch's own err by as much for few channels in a group
    caution="loses signs and zeros, spreads NaN; direct never does",
)
