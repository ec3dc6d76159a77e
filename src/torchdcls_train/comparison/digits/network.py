"""Spiking networks that differ in the delays of their synapses alone."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls.delays import SynapticDelays
from torchdcls.ops.conv import MethodName

from ..config import Delays

# Share of its potential that a neuron keeps in a step.
_KEPT = 0.9
_THRESHOLD = 1.0
_DROPOUT = 0.25
# Steepness of the surrogate of the threshold's derivative, that of an arc tangent.
_STEEPNESS = 5.0
_HIDDEN_LAYERS = 2


class _Fire(torch.autograd.Function):
    """Spikes of leaky integrate-and-fire neurons that start again from 0 after a spike, from currents (time, ...)."""

    @staticmethod
    def forward(ctx: Any, current: Tensor) -> Tensor:
        potential = torch.empty_like(current)
        left = torch.zeros_like(current[0])
        for step, now in enumerate(current):
            before = torch.add(now, left, out=potential[step])
            left = torch.where(before < _THRESHOLD, before, 0.0).mul_(_KEPT)
        ctx.save_for_backward(potential)
        return (potential >= _THRESHOLD).to(current.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (potential,) = ctx.saved_tensors
        half = _STEEPNESS / 2
        gradient = gradient * (half / (1 + (math.pi * half * (potential - _THRESHOLD)).square()))
        # No gradient passes through the restart.
        kept = (potential < _THRESHOLD).to(potential.dtype) * _KEPT
        for step in range(len(gradient) - 2, -1, -1):
            gradient[step].addcmul_(kept[step], gradient[step + 1])
        return gradient


class DenseDelays(nn.Module):
    """Causal convolution over time with a weight for each delay: (batch, in, time) to (batch, out, time)."""

    def __init__(self, in_features: int, out_features: int, max_delay: int) -> None:
        super().__init__()
        self.max_delay = max_delay
        self.conv = nn.Conv1d(in_features, out_features, max_delay + 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """The delayed and weighted input."""
        output: Tensor = self.conv(F.pad(input, (self.max_delay, 0)))
        return output


class DigitNetwork(nn.Module):
    """Two layers of spiking neurons, and one that integrates its input and never fires.

    Args:
        kind: The delays of its synapses.
        widths: Neurons of the input and of each layer.
        max_delay: The largest delay. Unit: steps.

    Attributes:
        delays: The synapses of each layer.
    """

    def __init__(self, kind: Delays, widths: tuple[int, int, int, int], max_delay: int) -> None:
        super().__init__()
        sizes = pairwise(widths)
        self.delays = nn.ModuleList(_synapses(kind, *size, max_delay) for size in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:-1])

    def forward(self, spikes: Tensor) -> Tensor:
        """Logarithms of the probabilities of classes.

        Args:
            spikes: (batch, inputs, time).

        Returns:
            (batch, classes), those of the mean over time.
        """
        for layer in range(_HIDDEN_LAYERS):
            spikes = F.dropout(self.fired(spikes, layer), _DROPOUT, self.training)
        driven = self.delays[_HIDDEN_LAYERS](spikes)
        potential = driven @ _leak(driven)
        logarithms: Tensor = potential.softmax(1).mean(-1).log()
        return logarithms

    def fired(self, spikes: Tensor, layer: int) -> Tensor:
        """The spikes of one of the first two layers, from those of the one before: (batch, neurons, time)."""
        current = self.norms[layer](self.delays[layer](spikes))
        fired: Tensor = _Fire.apply(current.movedim(-1, 0).contiguous())
        return fired.movedim(0, -1)


def parameter_count(network: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def dense_width(inputs: int, hidden: int, classes: int, max_delay: int) -> int:
    """Neurons of a hidden layer with dense kernels, at most two numbers for each synapse of a network with `hidden`."""
    numbers = 2 * (inputs * hidden + hidden * hidden + hidden * classes)
    width = 1
    while (max_delay + 1) * (width + 1) * (inputs + width + 1 + classes) <= numbers:
        width += 1
    return width


def _synapses(kind: Delays, before: int, after: int, max_delay: int) -> nn.Module:
    if kind == "dense":
        return DenseDelays(before, after, max_delay)
    # On a CPU and with so many neurons this is the fastest way to train.
    fastest: MethodName = "fft"
    if kind != "none" and kind != "fixed":
        return SynapticDelays(before, after, max_delay, interpolation=kind, method=fastest)
    if kind == "none":
        layer = SynapticDelays(before, after, 0, interpolation="bilinear")
    else:
        whole = torch.randint(max_delay + 1, (after, before, 1))
        layer = SynapticDelays(before, after, max_delay, interpolation="bilinear", init=whole, method=fastest)
    layer.position.requires_grad_(False)
    return layer


def _leak(driven: Tensor) -> Tensor:
    """What is left at each step of what came in at each step, (time, time), for neurons that never fire."""
    step = torch.arange(driven.shape[-1], device=driven.device)
    passed = step - step[:, None]
    return torch.where(passed >= 0, (1 - _KEPT) * _KEPT ** passed.clamp_min(0).to(driven.dtype), 0.0)
