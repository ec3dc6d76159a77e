"""Plain convolutions instead of a model's DCLS layers, for deployment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .. import _checks
from ..nn import DclsLayer
from ..ops.conv import Padding
from ..ops.kernel import clamp_position_, construct_kernel
from ..ops.tracing import forward_pre_hooks
from .report import by_axis, counted
from .swap import convolution_like, swap_modules_

# What decides what a layer computes from its elements: a subclass that has one of its own is no plain convolution.
_COMPUTING = ("__call__", "forward", "kernel", "_kept_kernel", "_taps", "_enter", "_delayed", "_leave")
# Hooks that compute an element from others before each forward, as torch did before it had parametrizations.
_COMPUTED_BY_HOOK = (WeightNorm, SpectralNorm, BasePruningMethod)


@dataclass(frozen=True)
class Fused:
    """A layer that was fused.

    Attributes:
        name: The layer.
        old_kernel_size: Size of its dense kernel.
        new_kernel_size: Size of the convolution's kernel, without empty borders.
        difference: Norm of the change of the dense kernel, by rounding and cutting, over the norm of the kernel.
        clamped: Elements whose nearest cell is outside the grid, moved to the grid's edge.
    """

    name: str
    old_kernel_size: tuple[int, ...]
    new_kernel_size: tuple[int, ...]
    difference: float
    clamped: int = 0


@dataclass(frozen=True)
class FuseReport:
    """The result of `torchdcls.fuse`.

    Attributes:
        fused: Layers that are plain convolutions now, in the model's order.
        output_difference: Norm of the change of the model's output, over the norm of the output, for the example; None
            without an example.
    """

    fused: tuple[Fused, ...]
    output_difference: float | None

    @property
    def clamped(self) -> int:
        """Elements of all layers that were rounded to the grid's edge."""
        return sum(row.clamped for row in self.fused)

    def __str__(self) -> str:
        lines = [f"{counted(len(self.fused), 'layer')} fused"]
        if self.output_difference is not None:
            lines[0] += f", relative difference of the output: {self.output_difference:.2g}"
        width = max(len(row.name) for row in self.fused)
        for row in self.fused:
            sizes = f"{by_axis(row.old_kernel_size)} -> {by_axis(row.new_kernel_size)}"
            line = f"  {row.name:<{width}}  {sizes}  relative difference of the kernel: {row.difference:.2g}"
            lines.append(line + (f", {moved_onto_the_grid(row.clamped)}" if row.clamped else ""))
        return "\n".join(lines)


def moved_onto_the_grid(clamped: int) -> str:
    """The sentence of reports about elements that were rounded to the grid's edge."""
    return f"{counted(clamped, 'element')} off the grid moved to its edge"


@torch.no_grad()
def fuse(
    model: nn.Module,
    *,
    positions: Literal["exact", "round"] = "exact",
    tolerance: float = 0.0,
    example: Any = None,
) -> FuseReport:
    """Replaces DCLS layers by torch convolutions with the same kernels, in place.

    Kernels are cut to their support: empty cells at both ends of an axis are cut off, as many as padding allows.
    Stride, padding mode, groups, bias, device, dtype, training flag and requires_grad are kept. Tensors that a
    parametrization computes, such as weight_norm's weight, become the convolution's own. Hooks of the replaced layers
    are lost. Layers of `torchdcls.delays` become zero padding and a dense convolution, in a torch.nn.Sequential.
    Torch's convolutions reflect or wrap a feature map only once. With padding_mode "reflect" or "circular", keep the
    DCLS layer for feature maps that are smaller than the padding.

    Args:
        model: The model, which is changed in place.
        positions: "exact", or "round" to move elements to the nearest cell, where each is one tap whatever its spread,
            for hardware that needs integer offsets. Halves go to the even cell, as in torch.round. An element off the
            grid goes to the grid's edge; training leaves some there unless positions are clamped. The report
            counts them.
        tolerance: Cells up to this share of the layer's largest value count as empty.
        example: Input of the model, a tensor or a tuple of arguments, to report the change of the output. The model
            runs twice, without gradient, in its current mode.

    Returns:
        A report: layers, sizes, differences. `print` shows it.

    Raises:
        ValueError: The model has no DCLS layers, is itself one, has one of a subclass that computes something else, or
            delays with `time_first` or inside `RecurrentDelays`; or an argument is out of range. Nothing is changed.
        TypeError: An argument of a wrong type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torchdcls import Dcls2d, fuse
        >>> model = nn.Sequential(Dcls2d(8, 8, 4, padding="same", dilated_kernel_size=9, groups=8), nn.ReLU())
        >>> report = fuse(model, positions="round", example=torch.randn(1, 8, 16, 16))
        >>> type(model[0]).__name__, report.fused[0].old_kernel_size
        ('Conv2d', (9, 9))
    """
    _checks.module("model", model)
    _checks.one_of("positions", positions, ("exact", "round"))
    _checks.share("tolerance", tolerance)
    if isinstance(model, DclsLayer):
        raise ValueError(
            f"model: expected a module that contains DCLS layers, got a {type(model).__name__} itself, which cannot be "
            "replaced in place; put it into a torch.nn.Sequential"
        )
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DclsLayer)}
    if not layers:
        raise ValueError(f"model: expected a model with DCLS layers, got {type(model).__name__} without any")
    for name, module in model.named_modules():
        if (why := getattr(module, "why_not_plain", None)) is not None:
            found = f"{name} of {type(module).__name__}" if name else f"a {type(module).__name__}"
            raise ValueError(f"model: expected layers that torch's layers can replace, got {found}, which {why}")
    for name, layer in layers.items():
        _check_computes(name, layer)
    before = None if example is None else _output(model, example)

    rows = []
    fused: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        fused[layer], row = _convolution(name, layer, positions, tolerance)
        rows.append(row)
    swap_modules_(model, fused)
    after = None if example is None else _output(model, example)
    return FuseReport(tuple(rows), None if before is None or after is None else _relative(after - before, before))


def _check_computes(name: str, layer: DclsLayer) -> None:
    """Refuses a layer of a subclass that computes something else than its base class of this package."""
    package = __name__.partition(".")[0]
    kind = next(kind for kind in type(layer).__mro__ if kind.__module__.partition(".")[0] == package)
    # A layer may have a method itself, which replaces its class's.
    own = [
        method
        for method in _COMPUTING
        if method in vars(layer) or getattr(type(layer), method, None) is not getattr(kind, method, None)
    ]
    if own:
        found = parametrize.type_before_parametrizations(layer).__name__
        raise ValueError(
            f"model: expected DCLS layers that convolve with the kernel of their elements, got {name} of {found}, "
            f"which has a {' and a '.join(own)} of its own; replace it by a torchdcls or torch layer first"
        )


# Each parametrization is computed once: it may be random, or take a step of an iteration each time.
@parametrize.cached()
def _convolution(
    name: str, layer: DclsLayer, positions: Literal["exact", "round"], tolerance: float
) -> tuple[nn.Module, Fused]:
    with torch.enable_grad():  # whether what is computed can learn
        for hook in forward_pre_hooks(layer):
            if isinstance(hook, _COMPUTED_BY_HOOK):
                hook(layer, None)
        weight, bias = layer.weight, layer.bias
    exact = layer.kernel()
    size = layer.dilated_kernel_size
    kernel, clamped = exact, 0
    if positions == "round":
        if not layer.position.isfinite().all():
            raise ValueError(
                f"position: expected finite positions in {name or type(layer).__name__} to round, got others"
            )
        nearest = layer.position.round()
        position = clamp_position_(nearest.clone(), layer.learned_size)
        clamped = int((position != nearest).any(0).sum())
        # On a cell a bilinear element is one tap.
        position = position.expand(-1, *weight.shape)  # delays may belong to several synapses
        kernel = construct_kernel(weight, position, None, size, "bilinear", learned_dims=layer.learned_dims)
    cut = _empty_borders(kernel, tolerance)
    padding: Padding
    if isinstance(layer.padding, str):
        padding = layer.padding
        cut = cut if padding == "same" else (0,) * len(cut)
    else:
        pads = _checks.integers("padding", layer.padding, len(size), 0)
        cut = tuple(min(cells, pad) for cells, pad in zip(cut, pads, strict=True))
        padding = tuple(pad - cells for pad, cells in zip(pads, cut, strict=True))
    for axis, cells in enumerate(cut, start=2):
        kernel = kernel.narrow(axis, cells, kernel.shape[axis] - 2 * cells)
    kept = F.pad(kernel, [cells for cells in reversed(cut) for _ in range(2)])
    convolution = convolution_like(layer, kernel.shape[2:], padding, "meta")
    convolution.weight = nn.Parameter(kernel.contiguous(), requires_grad=weight.requires_grad)
    if bias is not None and not isinstance(bias, nn.Parameter):
        bias = nn.Parameter(bias.detach(), requires_grad=bias.requires_grad)
    convolution.bias = bias
    row = Fused(name, size, tuple(kernel.shape[2:]), _relative(kept - exact, exact), clamped)
    return layer.with_plain(convolution), row


def _empty_borders(kernel: Tensor, tolerance: float) -> tuple[int, ...]:
    """Cells that can be cut off both ends of each axis; one is left."""
    full = (kernel.abs() > tolerance * kernel.abs().max()).flatten(0, 1).any(0)
    borders = []
    for axis in range(full.dim()):
        others = [other for other in range(full.dim()) if other != axis]
        held = (full.any(others) if others else full).nonzero().flatten()
        size = full.shape[axis]
        first, last = (int(held[0]), int(held[-1])) if len(held) else (size // 2, size // 2)
        borders.append(min(first, size - 1 - last, (size - 1) // 2))
    return tuple(borders)


def _output(model: nn.Module, example: Any) -> Tensor:
    output = model(*example) if isinstance(example, Sequence) else model(example)
    if not isinstance(output, Tensor):
        raise ValueError(f"example: expected a model that returns a tensor, got {type(output).__name__}; leave it out")
    return output


def _relative(change: Tensor, whole: Tensor) -> float:
    return float(change.double().norm() / whole.double().norm().clamp_min(torch.finfo(torch.float64).tiny))
