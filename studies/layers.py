"""What replaces a model's depthwise layers: the layers that a study compares, and its controls."""

from collections.abc import Callable

import torch
from torch import nn

from torchdcls.conversion import convert, select
from torchdcls.conversion.swap import swap_modules_
from torchdcls.nn.init import PositionInit
from torchdcls.optim import dcls_layers
from torchdcls_train.comparison.models import DenseConv2d
from torchdcls_train.comparison.small import comparison_model, weight_std

from .cells import Cell
from .config import BASELINE, PLACED, TAPS


def build(cell: Cell, channels: int, classes: int) -> tuple[nn.Module, int | None]:
    """The model of a cell.

    Weights of all layers but the depthwise ones are the same for all models of one seed. "frozen" is "gaussian" with
    positions that stay at random places; its weights and spreads learn. Its size and start are chosen for itself.
    "dense" has every tap of its extent and more parameters than the baseline; "dilated" has 5x5 taps spread evenly.

    Returns:
        The model on the CPU, and its elements or taps per kernel.

    Raises:
        ValueError: Its layers cannot be replaced so.
    """
    torch.manual_seed(cell.seed)
    model = comparison_model(cell.model, channels, classes, cell.image_size)
    if cell.method == BASELINE:
        return model, None
    assert cell.kernel_size is not None
    if cell.method in PLACED:
        report = convert(
            model,
            dilated_kernel_size=cell.kernel_size,
            kernel_count="iso" if cell.kernel_count is None else cell.kernel_count,
            interpolation="gaussian" if cell.method == "frozen" else cell.method,  # type: ignore[arg-type]
            position_init=_position_init(cell),
            weight_std=weight_std(model),
        )
        if cell.method == "frozen":
            for layer in dcls_layers(model):
                layer.position.requires_grad_(False)
        return model, report.kernel_count
    size = cell.kernel_size
    if cell.method == "dense":
        _replace(
            model,
            lambda old: DenseConv2d(old.in_channels, old.out_channels, size, padding="same", groups=old.groups),
        )
        return model, size**2
    dilation = (size - 1) // (TAPS - 1)
    _replace(
        model,
        lambda old: nn.Conv2d(
            old.in_channels, old.out_channels, TAPS, dilation=dilation, padding="same", groups=old.groups
        ),
    )
    return model, TAPS**2


def _position_init(cell: Cell) -> PositionInit:
    assert cell.kernel_size is not None and cell.start is not None
    if cell.start == 0:
        return "normal", 0.5
    # No further than the kernel's edge, where the positions of a large radius would all be clamped to it.
    edge = (cell.kernel_size - 1) / 2
    return "uniform", edge if cell.start == "whole" else min(float(cell.start), edge)


def _replace(model: nn.Module, make: Callable[[nn.Conv2d], nn.Conv2d]) -> None:
    """Puts new convolutions in the place of depthwise ones, which `convert` would take too; biases are kept."""
    others: dict[nn.Module, nn.Module] = {}
    std = weight_std(model)
    for old in model.modules():
        if type(old) is nn.Conv2d and select.default_reason(old) is None:
            others[old] = new = make(old)
            if std is not None:
                nn.init.trunc_normal_(new.weight, std=std, a=-2 * std, b=2 * std)
            new.bias = old.bias
    swap_modules_(model, others)
