"""Fewer synapses, fewer delays, and delays near whole steps."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import _checks
from ..ops.tracing import own_parameters
from .rounding import delay_layers

DelayChoice = Literal["random", "learned"]
_CHOICES: tuple[DelayChoice, ...] = get_args(DelayChoice)


class _Mask(nn.Module):
    def right_inverse(self, masked: Tensor) -> Tensor:
        """An original with this masked tensor."""
        return masked


class FixedMask(_Mask):
    """A parametrization: entries outside a mask are `value`, and do not learn."""

    mask: Tensor

    def __init__(self, mask: Tensor, value: float) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.value = value

    def forward(self, original: Tensor) -> Tensor:
        """The masked tensor, in the shape of the original."""
        return torch.where(self.mask, original, self.value)


class LearnedMask(_Mask):
    """A parametrization: the entries with the largest scores stay, the others are `value`.

    A score has the gradient of a factor on the distance of its entry to `value`, also if the entry is not active.
    """

    active: Tensor

    def __init__(self, like: Tensor, active: int, value: float) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.rand_like(like.detach()))
        self.register_buffer("active", torch.tensor(active, device=like.device))
        self.value = value

    def forward(self, original: Tensor) -> Tensor:
        """The masked tensor, in the shape of the original."""
        rank = self.score.detach().flatten().argsort(descending=True).argsort().reshape(original.shape)
        masked = torch.where(rank < self.active, original, self.value)
        return masked + (self.score - self.score.detach()) * (original.detach() - self.value)


def sparsify_weights_(model: nn.Module, active: float) -> None:
    """Keeps a random share of the synapses of each delay layer; the weights of the others are 0 for good.

    A parametrization then computes `weight` (torch.nn.utils.parametrize), and its mask is in the state dict. To load
    one, sparsify the new model first. Removing the parametrization leaves plain weights, with which `step` is faster.

    Args:
        model: A model with delay layers.
        active: The share of each layer that stays, from 0 to 1.

    Raises:
        ValueError: `active` out of range, no delay layers, or a layer that is sparse already.
        TypeError: `model` is not a module, or `active` not a number.
    """
    share = _share(active)
    layers = delay_layers(model)
    for name, layer in layers.items():
        _check_plain(name, layer, "weight")
    for layer in layers.values():
        mask = FixedMask(_drawn(layer.weight, share), 0.0)
        parametrize.register_parametrization(layer, "weight", mask)


def sparsify_delays_(model: nn.Module, active: float, choice: DelayChoice = "random") -> None:
    """Keeps a share of the delays of each layer; the others are 0 and do not learn.

    A parametrization then computes `position` (torch.nn.utils.parametrize), and its mask or scores are in the state
    dict. To load one, sparsify the new model first, in the same way. Setting `delay` leaves inactive delays at 0.
    Removing the parametrization leaves plain positions, with which `step` is faster.

    Args:
        model: A model with delay layers.
        active: The share of each layer that is learned, from 0 to 1.
        choice: "random": drawn once. "learned": always those with the largest scores. Scores learn with the positions,
            at the learning rate that `param_groups` gives these.

    Raises:
        ValueError: `active` out of range, an unknown choice, no delay layers, or a layer that is sparse already.
        TypeError: `model` is not a module, or `active` not a number.

    Example:
        >>> from torchdcls.delays import SynapticDelays, sparsify_delays_
        >>> layer = SynapticDelays(10, 10, max_delay=24)
        >>> sparsify_delays_(layer, active=0.2)
        >>> layer.delay.count_nonzero().item()
        20
    """
    share = _share(active)
    _checks.one_of("choice", choice, _CHOICES)
    layers = delay_layers(model)
    for name, layer in layers.items():
        _check_plain(name, layer, "position")
    for layer in layers.values():
        position, undelayed = layer.position, float(layer.undelayed)
        mask: nn.Module
        if choice == "learned":
            mask = LearnedMask(position, round(share * position.numel()), undelayed)
        else:
            mask = FixedMask(_drawn(position, share), undelayed)
        parametrize.register_parametrization(layer, "position", mask)


def integer_loss(model: nn.Module) -> Tensor:
    """Mean squared distance of delays to the nearest integers, averaged over the delay layers; 0 when all are whole.

    Add it to the loss late in training, so that rounding changes less.

    Returns:
        Scalar, float32 at least, from 0 to 0.25. Unit: steps squared.

    Raises:
        ValueError: The model has no delay layers.
        TypeError: The model is not a module.

    Gradients:
        To positions. Delays halfway between two integers are drawn to the even position.
    """
    losses = []
    for layer in delay_layers(model).values():
        delay = layer.delay
        losses.append((delay - delay.detach().round()).square().mean())
    return torch.stack(losses).mean()


def _share(active: float) -> float:
    share = _checks.at_least_0("active", active)
    if share > 1:
        raise ValueError(f"active: expected a share from 0 to 1, got {active!r}")
    return share


def _drawn(like: Tensor, share: float) -> Tensor:
    # Exactly this share: two masks are equally dense.
    count = like.numel()
    order = torch.randperm(count, device=like.device)
    return (order < round(share * count)).reshape(like.shape)


def _check_plain(name: str, layer: nn.Module, tensor: str) -> None:
    if tensor not in own_parameters(layer):
        raise ValueError(
            f"model: expected a plain {tensor} in {name or type(layer).__name__}, got one that is computed already"
        )
