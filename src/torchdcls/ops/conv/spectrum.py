"""Fourier transforms of maps and products of spectra, channels last.

A spectrum is (batch, planes, frequencies, channels), the frequencies of all axes in one. Of the last axis half of them
are kept, as cells are real. Matrix products give two real planes, the real and the imaginary parts; `torch.fft` gives
one complex plane. For short axes a matrix product has more operations but is many times faster. It also takes any
length and any offset of the cells, makes the wanted cells alone, and leaves channels where they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..caches import cached
from ..tracing import special_tensors


@dataclass(frozen=True)
class MatrixTransform:
    """The transform over circles of `lengths` cells, as one product with a matrix of sines and cosines per axis."""

    lengths: tuple[int, ...]

    def forward(self, cells: Tensor, offsets: Sequence[int]) -> Tensor:
        """Spectrum of (batch, *sizes, channels) with the first cell at `offsets` of the circle and zeros around."""
        # Each step maps (cell, plane) of one axis to (plane, frequency), the last axis first.
        batch, sizes, channels = cells.shape[0], cells.shape[1:-1], cells.shape[-1]
        behind = channels
        for axis in reversed(range(len(sizes))):
            last = axis == len(sizes) - 1
            matrix = _matrix(self.lengths[axis], sizes[axis], offsets[axis], last, False, cells.dtype, cells.device)
            columns, frequencies = sizes[axis] if last else 2 * sizes[axis], kept_frequencies(self.lengths[axis], last)
            before = batch * math.prod(sizes[:axis])
            cells = cells.reshape(before, columns, behind)
            cells = torch.bmm(matrix.expand(before, 2 * frequencies, columns), cells)
            behind *= frequencies
        return cells.view(batch, 2, -1, channels)

    def inverse(self, spectrum: Tensor, sizes: Sequence[int], offsets: Sequence[int]) -> Tensor:
        """The cells (batch, *sizes, channels) of a spectrum, from `offsets` on."""
        # Each step maps (plane, frequency) of one axis to (cell, plane).
        batch, _, frequencies, channels = spectrum.shape
        behind = frequencies * channels
        cells = spectrum
        for axis, length in enumerate(self.lengths):
            last = axis == len(sizes) - 1
            matrix = _matrix(length, sizes[axis], offsets[axis], last, True, spectrum.dtype, spectrum.device)
            rows, columns = sizes[axis] if last else 2 * sizes[axis], 2 * kept_frequencies(length, last)
            before = batch * math.prod(sizes[:axis])
            behind //= columns // 2
            cells = cells.reshape(before, columns, behind)
            cells = torch.bmm(matrix.expand(before, rows, columns), cells)
        return cells.view(batch, *sizes, channels)


@dataclass(frozen=True)
class FastTransform:
    """The transform by `torch.fft`, for long axes; offsets must leave the cells inside the circle."""

    lengths: tuple[int, ...]

    def forward(self, cells: Tensor, offsets: Sequence[int]) -> Tensor:
        """As of `MatrixTransform`."""
        batch, sizes, channels = cells.shape[0], cells.shape[1:-1], cells.shape[-1]
        if any(offsets):
            pads = [pad for offset in reversed(offsets) for pad in (offset, 0)]
            cells = torch.nn.functional.pad(cells, [0, 0, *pads])
        spectrum: Tensor = torch.fft.rfftn(cells, s=self.lengths, dim=list(range(1, 1 + len(sizes))))
        return spectrum.reshape(batch, 1, -1, channels)

    def inverse(self, spectrum: Tensor, sizes: Sequence[int], offsets: Sequence[int]) -> Tensor:
        """As of `MatrixTransform`."""
        batch, _, _, channels = spectrum.shape
        dims = list(range(1, 1 + len(sizes)))
        half = (*self.lengths[:-1], kept_frequencies(self.lengths[-1], True))
        cells: Tensor = torch.fft.irfftn(spectrum.reshape(batch, *half, channels), s=self.lengths, dim=dims)
        for dim, size, offset in zip(dims, sizes, offsets, strict=True):
            cells = cells.narrow(dim, offset, size)
        return cells


Transform = MatrixTransform | FastTransform


def kept_frequencies(length: int, last: bool) -> int:
    """Frequencies of an axis that are kept: half of those of the last one."""
    return length // 2 + 1 if last else length


def convolve_spectra(maps: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Spectrum of the output: of the maps, with groups * in channels, and the kernel, with groups * out * in."""
    if maps.shape[-1] == kernel.shape[-1] == groups:
        return _multiply(maps, kernel, True)
    inputs = _by_group(maps, groups)
    matrices = torch.unflatten(_by_group(kernel, groups).squeeze(2), -1, (-1, inputs.shape[-1]))
    return _from_groups(_matmul(inputs, matrices.transpose(-2, -1), "right"), groups)


def transpose_spectra(gradients: Tensor, kernel: Tensor, groups: int, onto: Tensor | None = None) -> Tensor:
    """Spectrum of the gradient of the maps, added to `onto`: an earlier result of other channels of the group."""
    if gradients.shape[-1] == kernel.shape[-1] == groups and onto is None:
        return _multiply(gradients, kernel, False)
    outputs = _by_group(gradients, groups)
    matrices = torch.unflatten(_by_group(kernel, groups).squeeze(2), -1, (outputs.shape[-1], -1))
    total = None if onto is None else _by_group(onto, groups)
    return _from_groups(_matmul(outputs, matrices, None, total), groups)


def correlate_spectra(maps: Tensor, gradients: Tensor, groups: int, onto: Tensor | None = None) -> Tensor:
    """Spectrum of the gradient of the kernel, summed over the batch and added to `onto`, an earlier result."""
    if maps.shape[-1] == gradients.shape[-1] == groups:
        product = _multiply(maps, gradients, True).sum(0, keepdim=True)
        return product if onto is None else onto + product
    outputs, inputs = _by_group(gradients, groups).transpose(-2, -1), _by_group(maps, groups)
    total = None if onto is None else torch.unflatten(_by_group(onto, groups).squeeze(2), -1, (outputs.shape[2], -1))
    return _from_groups(_matmul(outputs, inputs, "left", total).flatten(2).unsqueeze(2), groups)


def _multiply(left: Tensor, right: Tensor, conjugate: bool) -> Tensor:
    if left.is_complex():
        return left * (right.conj_physical() if conjugate else right)
    sign = 1 if conjugate else -1
    product = left * right[:, :1]
    product[:, 0] += left[:, 1] * right[:, 1] * sign
    product[:, 1] -= left[:, 0] * right[:, 1] * sign
    return product


def _matmul(
    left: Tensor, right: Tensor, conjugate: Literal["left", "right"] | None, onto: Tensor | None = None
) -> Tensor:
    # (planes, matrices, a, b) x (planes, matrices, b, c) -> (planes, matrices, a, c)
    if left.is_complex():
        left, right = left.conj() if conjugate == "left" else left, right.conj() if conjugate == "right" else right
        product = torch.matmul(left, right)
        return product if onto is None else onto + product
    imaginary = [(left[1], right[0]), (left[0], right[1])]
    if conjugate == "left":
        imaginary.reverse()
    product = torch.stack([torch.bmm(left[0], right[0]), torch.bmm(*imaginary[0])])
    product = product if onto is None else onto + product
    product[0].baddbmm_(left[1], right[1], alpha=-1 if conjugate is None else 1)
    product[1].baddbmm_(*imaginary[1], alpha=1 if conjugate is None else -1)
    return product


def _by_group(spectrum: Tensor, groups: int) -> Tensor:
    # (batch, planes, frequencies, groups * channels) -> (planes, frequencies * groups, batch, channels), a view
    return torch.unflatten(spectrum, -1, (groups, -1)).permute(1, 2, 3, 0, 4).flatten(1, 2)


def _from_groups(spectrum: Tensor, groups: int) -> Tensor:
    # (planes, frequencies * groups, batch, channels) -> (batch, planes, frequencies, groups * channels)
    return torch.unflatten(spectrum, 1, (-1, groups)).permute(3, 0, 1, 2, 4).flatten(3)


def _matrix(*settings: Any) -> Tensor:
    # A traced matrix becomes part of the graph: torch 2.14's compiler refuses a function with several constants.
    return (_make_matrix if special_tensors() else _kept_matrix)(*settings)


@cached(maxsize=256)
def _kept_matrix(*settings: Any) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        on_cpu = (*settings[:-1], torch.device("cpu"))
        return _make_matrix(*on_cpu).to(settings[-1])


def _make_matrix(
    length: int, size: int, offset: int, last: bool, inverse: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # The last axis reads real cells: (2 * frequencies, size). The others read planes: (2 * length, 2 * size).
    frequency = torch.arange(kept_frequencies(length, last), device=device)
    cell = torch.arange(offset, offset + size, device=device)
    angle = (frequency[:, None] * cell % length).double() * (2 * math.pi / length)
    cosine, sine = angle.cos(), angle.sin()
    if inverse:
        # The half of the last axis that is not stored repeats the other one, except for frequency 0 and the middle.
        twice = torch.where((2 * frequency) % length == 0, 1.0, 2.0)[:, None] if last else 1.0
        cosine, sine = cosine * twice / length, sine * twice / length
    # e^(-i angle) as a map of (cell, plane) to (plane, frequency).
    if last:
        matrix = torch.cat([cosine, -sine])
    else:
        real, imaginary = torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)
        matrix = torch.cat([real.flatten(1), imaginary.flatten(1)])
    return (matrix.T if inverse else matrix).to(dtype).contiguous()
