"""Whole delays, for an evaluation or for good."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..optim import layers_of
from .layer import DelayLayer


def delay_layers(model: nn.Module) -> dict[str, DelayLayer]:
    """The delay layers of a model, by name; at least one."""
    return layers_of(model, DelayLayer, "layers of delays")  # type: ignore[type-abstract]


@contextmanager
def rounded_delays(model: nn.Module) -> Iterator[None]:
    """In this context, the delay layers of a model delay by whole steps, and elements have no width.

    Delays are clamped to the window, then rounded, halves to even positions. No parameter changes: a state dict that is
    saved inside is that of the unrounded model, and a copy made inside is not rounded. Weights keep their gradients,
    delays have none.

    Args:
        model: A model with delay layers, or an average of one.

    Raises:
        ValueError: The model has no delay layers, or delays that are not finite.
        TypeError: The model is not a module.

    Example:
        >>> import torch
        >>> from torchdcls.delays import AxonalDelays, rounded_delays
        >>> layer = AxonalDelays(2, 2, max_delay=3, init=torch.tensor([0.2, 2.9]))
        >>> with rounded_delays(layer):
        ...     print(layer.delay.flatten().tolist())
        [0.0, 3.0]
    """
    layers = list(_finite_layers(model).values())
    for layer in layers:
        layer.rounding.contexts += 1
    try:
        yield
    finally:
        for layer in layers:
            layer.rounding.contexts -= 1


def round_delays_(model: nn.Module) -> None:
    """Rounds the delays of a model for good, as inside `rounded_delays`, and its positions with them, in place.

    The state dict of such a layer only loads into a layer that is rounded too.

    Args:
        model: A model with delay layers.

    Raises:
        ValueError: The model has no delay layers, or delays that are not finite or cannot be set.
        TypeError: The model is not a module.
    """
    layers = _finite_layers(model)
    with rounded_delays(model):
        for layer in layers.values():
            layer.delay = layer.delay
    for layer in layers.values():
        layer.rounding.final = True


def _finite_layers(model: nn.Module) -> dict[str, DelayLayer]:
    layers = delay_layers(model)
    for name, layer in layers.items():
        if not layer.position.isfinite().all():
            raise ValueError(f"model: expected finite delays to round, got others in {name or type(layer).__name__}")
    return layers
