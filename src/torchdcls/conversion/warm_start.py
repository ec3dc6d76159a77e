"""DCLS layers that start from the kernels of the convolutions that they replace."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn import DclsNd
from .fit import Grid, fit, left_by_count


@torch.no_grad()
def warm_start_(layers: Sequence[DclsNd], kernels: Sequence[Tensor]) -> list[float]:
    """Gives layers the elements with which they make dense kernels as well as they can, in place.

    The middles of old and new kernels are on each other, as the padding of a converted layer has it. Elements beyond
    the number of an old kernel's taps get weight 0 and stay where they are.

    Args:
        layers: Layers alike in everything but their weights, which share position and sigma if they are several.
        kernels: The dense kernel of each, (out_channels, in_channels/groups, *kernel size).

    Returns:
        For each layer the norm of the difference of its kernel and the old one over the norm of the old one; taps that
        do not fit into the new kernel count as missing. 0 for a kernel of zeros.
    """
    layer = layers[0]
    placed = [_placed(kernel, layer.dilated_kernel_size) for kernel in kernels]
    rows, grid = _rows(layer, kernels, placed)
    elements, weight = fit(rows, layer.kernel_count, grid)

    count = weight.shape[-1]
    shape = (*layer.weight.shape[:-1], count)
    layer.position[..., :count] = elements.position.reshape(-1, *shape).to(layer.position)
    if layer.sigma is not None:
        layer.sigma[..., :count] = elements.sigma.reshape(-1, *shape).to(layer.sigma)
    for each, own in zip(layers, weight, strict=True):
        each.weight.zero_()
        each.weight[..., :count] = own.reshape(shape).to(each.weight)
    return [_residual(*of_layer) for of_layer in zip(layers, kernels, placed, strict=True)]


@torch.no_grad()
def residuals_by_count(layers: Sequence[DclsNd], kernels: Sequence[Tensor]) -> list[list[float]]:
    """For each layer the largest residuals with 1, 2, ... elements, up to one for each tap.

    Args:
        layers, kernels: As for `warm_start_`.
    """
    placed = [_placed(kernel, layers[0].dilated_kernel_size) for kernel in kernels]
    left = left_by_count(*_rows(layers[0], kernels, placed))
    missed = [_missed(kernel, own) for kernel, own in zip(kernels, placed, strict=True)]
    return [
        [_share(error + lost, whole) for error in errors]
        for (lost, whole), errors in zip(missed, left.T.tolist(), strict=True)
    ]


def _rows(layer: DclsNd, kernels: Sequence[Tensor], placed: Sequence[Tensor]) -> tuple[Tensor, Grid]:
    """The rows to fit, (layers, rows, *cells), and their grid."""
    # Each tap of a dense axis has elements of its own: it is a row like a channel. Along learned axes a row has the
    # cells that old and new kernel both have.
    dense = [axis for axis in range(layer.dims) if axis not in layer.learned_dims]
    rows = torch.stack(list(placed)).permute(0, 1, 2, *(3 + axis for axis in (*dense, *layer.learned_dims)))
    starts, stops = [], []
    for at, axis in enumerate(layer.learned_dims, start=3 + len(dense)):
        taps, cells = kernels[0].shape[2 + axis], layer.dilated_kernel_size[axis]
        first = _offset(taps, cells)
        starts.append(max(first, 0))
        stops.append(min(first + taps, cells))
        rows = rows.narrow(at, starts[-1], stops[-1] - starts[-1])
    return rows.flatten(1, 2 + len(dense)), Grid(layer.learned_size, tuple(starts), tuple(stops), layer.interpolation)


def _offset(taps: int, cells: int) -> int:
    # Every padding from `select.converted_padding` is this much larger before the feature map than the old one.
    return (cells - 1) // 2 - (taps - 1) // 2


def _placed(kernel: Tensor, new: Sequence[int]) -> Tensor:
    """A kernel padded with zeros or cut to another size, in float64."""
    # Apple's GPUs have no float64.
    kernel = kernel.detach().to("cpu" if kernel.device.type == "mps" else kernel.device).double()
    pads = []
    for taps, cells in zip(kernel.shape[2:], new, strict=True):
        first = _offset(taps, cells)
        pads.append((first, cells - taps - first))
    return F.pad(kernel, [cells for pair in reversed(pads) for cells in pair])


def _residual(layer: DclsNd, old: Tensor, placed: Tensor) -> float:
    missed, whole = _missed(old, placed)
    return _share(float((layer.kernel().to(placed) - placed).square().sum()) + missed, whole)


def _missed(old: Tensor, placed: Tensor) -> tuple[float, float]:
    """The squared norms of the taps that do not fit into a new kernel, and of the old kernel."""
    old = old.to(placed)
    return float((old - _placed(placed, old.shape[2:])).square().sum()), float(old.square().sum())


def _share(squared_error: float, whole: float) -> float:
    return math.sqrt(squared_error / whole) if whole > 0 else 0.0
