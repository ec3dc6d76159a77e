"""What any training loop needs for DCLS parameters."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import _checks
from .nn import DclsLayer

_Layer = TypeVar("_Layer", bound=DclsLayer)
# The norms whose parameters may have several axes.
_NORMS = (nn.LayerNorm, nn.RMSNorm)


def layers_of(model: nn.Module, kind: type[_Layer], plural: str) -> dict[str, _Layer]:
    """The layers of a kind in a model, by name; an error calls them `plural` if there are none."""
    _checks.module("model", model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kind)}
    if not layers:
        raise ValueError(f"model: expected a model with {plural}, got {type(model).__name__} without any")
    return layers


def dcls_layers(model: nn.Module) -> list[DclsLayer]:
    """The DCLS layers of a model, of which there is at least one."""
    return list(layers_of(model, DclsLayer, "DCLS layers").values())


def param_groups(
    model: nn.Module, lr: float, weight_decay: float, position_lr_scale: float = 5.0
) -> list[dict[str, Any]]:
    """Parameter groups for any torch optimizer, by the papers' recipe.

    Positions and sigmas, or the tensors from which a parametrization computes them, learn at `position_lr_scale` times
    the base learning rate, without weight decay. Biases, parameters of norms, and other parameters of at most one axis
    have no weight decay either. A parameter that several layers share appears once; frozen parameters do not appear.

    Args:
        model: Any model, with or without DCLS layers.
        lr: Base learning rate.
        weight_decay: Weight decay of all other parameters.
        position_lr_scale: Learning rate of positions and sigmas over `lr`. The papers use 5 for images. For layers of
            `torchdcls.delays`, whose positions move by tens of steps, use about 100, as SNN-delays.

    Returns:
        Up to three groups (weights, no decay, positions) with "params", "lr" and "weight_decay".

    Raises:
        ValueError: A number below 0 or not finite.
        TypeError: The model is not a module, or another argument is not a number.

    Source:
        Khalfaoui-Hassani et al., arXiv:2306.00817.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls2d, param_groups
        >>> model = Dcls2d(8, 8, 5, dilated_kernel_size=9, groups=8)
        >>> optimizer = torch.optim.AdamW(param_groups(model, lr=1e-3, weight_decay=0.05))
        >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        [(0.001, 0.05), (0.001, 0.0), (0.005, 0.0)]
    """
    _checks.module("model", model)
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("position_lr_scale", position_lr_scale)):
        _checks.at_least_0(name, value)
    weights: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    positions: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    layers = [module for module in model.modules() if isinstance(module, DclsLayer)]
    placing = {source for layer in layers for source in layer.position_sources()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            if parameter in placing:
                positions.append(parameter)
            elif parameter.dim() <= 1 or name == "bias" or isinstance(module, _NORMS):
                undecayed.append(parameter)
            else:
                weights.append(parameter)
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": undecayed, "lr": lr, "weight_decay": 0.0},
        {"params": positions, "lr": lr * position_lr_scale, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def clamp_positions_(model: nn.Module) -> None:
    """Moves every position of a model back onto its grid, in place. Call it after each optimizer step for "bilinear".

    Raises:
        ValueError: The model has no DCLS layers, or positions are off the grid and a parametrization without
            `right_inverse` computes them.
        TypeError: The model is not a module.
    """
    for layer in dcls_layers(model):
        layer.clamp_position_()


def repulsion_loss(model: nn.Module) -> Tensor:
    """Repulsive loss of elements that overlap: 0 if all elements of each kernel are at least a cell apart.

    For each layer, with `d_ij` the distance of elements i and j and `n` the kernel count:

        2 sum_{i<j} max(0, 1 - d_ij) / (n (n - 1)), averaged over pairs of channels (and taps of dense axes)

    then averaged over layers; positions that layers share count once. The papers add its square to the loss of
    bilinear models, after epoch 20 of 300.

    Args:
        model: A model with DCLS layers.

    Returns:
        Scalar, float32 at least. Layers of one element count as 0.

    Raises:
        ValueError: The model has no DCLS layers.
        TypeError: The model is not a module.

    Gradients:
        To positions. Elements at exactly the same place have none.

    Source:
        Khalfaoui-Hassani et al., arXiv:2112.03740, section 4, and the authors' training code.
    """
    losses = []
    for position in {layer.position: None for layer in dcls_layers(model)}:
        # position: (axes, ..., n) -> points: (..., n, axes)
        points = position.movedim(0, -1)
        count = points.shape[-2]
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        crowding = torch.relu(1 - distance).triu(diagonal=1).sum((-2, -1))
        losses.append(2 * crowding.mean() / max(count * (count - 1), 1))
    return torch.stack(losses).mean()
