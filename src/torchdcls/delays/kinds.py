"""Layers of learned delays: DCLS layers over time whose positions are read and set as delays in steps.

They differ from `torchdcls.Dcls1d` in three ways: an output never depends on later inputs. Positions off the window
count as its nearest end, but keep their gradients. Delays belong to synapses, axons or dendrites, by class.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.delayed import can_delay, delayed_sums
from ..ops.tracing import special_tensors
from .layer import DelayLayer


class SynapticDelays(DelayLayer):
    """A delay for each synapse: each pair of an input and an output neuron.

    Maps (batch, in_features, time) to (batch, out_features, time + tail). See `__init__` for arguments and attributes.

    Source:
        Hammouamri et al., arXiv:2306.17670.

    Example:
        >>> import torch, torchdcls
        >>> from torchdcls.delays import SynapticDelays
        >>> layer = SynapticDelays(2, 1, max_delay=3, init=torch.tensor([[0.0, 2.0]]), interpolation="bilinear")
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> layer(torch.tensor([[1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]])).round().tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0]]

        Delays learn faster than weights, 100 times in the authors' code:

        >>> groups = torchdcls.param_groups(layer, lr=1e-3, weight_decay=1e-5, position_lr_scale=100.0)
        >>> [group["lr"] for group in groups]
        [0.001, 0.1]
    """

    delay_axes = (0, 1)

    def kernel(self) -> Tensor:
        """The dense kernel of a cross-correlation, (out_features, in_features, max_delay + 1), oldest input first."""
        return self._taps(self.weight)

    filters = kernel

    def _delayed(self, neurons: Tensor, after: int) -> Tensor:
        if self.rounding.is_on and self.method == "auto" and can_delay(neurons, self.weight):
            delay = self._kept(self._whole_delays, *self._settings(), "delays")
            return delayed_sums(neurons, self.weight, delay, self.max_delay, neurons.shape[-1] + after)
        return super()._delayed(neurons, after)

    def _whole_delays(self) -> Tensor:
        # Clamped only to stay within memory, see `_taps`.
        return self.delay.int().clamp(0, self.max_delay)

    def _leave(self, delayed: Tensor) -> Tensor:
        return delayed if self.bias is None else delayed + self.bias.unsqueeze(-1)

    def _step_due(self, neurons: Tensor, taps: Tensor) -> Tensor:
        flat = _rows_of_active(neurons, taps) if _is_sparse(neurons) else neurons @ taps
        return flat.reshape(*neurons.shape[:-1], self.out_channels, self.max_delay + 1)


class _SharedDelays(DelayLayer):
    """Delays that all synapses of a neuron share: each channel is delayed, and one matrix product mixes them."""

    def kernel(self) -> Tensor:
        """The dense kernel of a cross-correlation, (out_features, in_features, max_delay + 1), oldest input first.

        It is for other programs; the layer itself does not use it.
        """
        taps = self.filters().reshape(*self.position.shape[1:], self.max_delay + 1)
        return (self.weight.unsqueeze(-1) * taps).sum(-2)

    def filters(self) -> Tensor:
        """The delays with weight 1, (the delays, 1, max_delay + 1), the oldest step first."""
        ones = torch.ones((1, math.prod(self.delay_shape), 1), dtype=self.position.dtype, device=self.position.device)
        return self._taps(ones).transpose(0, 1).to(self.weight.dtype)

    def _delayed(self, neurons: Tensor, after: int) -> Tensor:
        if self.rounding.is_on:
            padded = F.pad(neurons, (self.max_delay, after))
            return _shifted(padded, self.delay.flatten().long(), self.max_delay)
        return super()._delayed(neurons, after)

    def _step_due(self, neurons: Tensor, taps: Tensor) -> Tensor:
        return neurons.unsqueeze(-1) * taps.view(-1, self.max_delay + 1)


class AxonalDelays(_SharedDelays):
    """A delay for each input neuron, before its synapses: channels are shifted, then one matrix product mixes them.

    Maps (batch, in_features, time) to (batch, out_features, time + tail). See `__init__` for arguments and attributes.

    Example:
        >>> import torch
        >>> from torchdcls.delays import AxonalDelays
        >>> layer = AxonalDelays(140, 256, max_delay=24, tail=12)
        >>> layer.delay.shape, layer(torch.randn(4, 140, 100)).shape
        (torch.Size([140, 1]), torch.Size([4, 256, 112]))
    """

    delay_axes = (1,)

    def _enter(self, neurons: Tensor) -> Tensor:
        return neurons if self.kernel_count == 1 else neurons.repeat_interleave(self.kernel_count, -2)

    def _leave(self, delayed: Tensor) -> Tensor:
        return _mixed(delayed, self.weight.flatten(1), self.bias)


class DendriticDelays(_SharedDelays):
    """A delay for each output neuron, after its synapses: one matrix product mixes channels, then each is shifted.

    Maps (batch, in_features, time) to (batch, out_features, time + tail). See `__init__` for arguments and attributes.

    Example:
        >>> import torch
        >>> from torchdcls.delays import DendriticDelays
        >>> layer = DendriticDelays(140, 256, max_delay=24, time_first=True)
        >>> layer.delay.shape, layer(torch.randn(100, 4, 140)).shape
        (torch.Size([256, 1]), torch.Size([100, 4, 256]))
    """

    delay_axes = (0,)

    def _enter(self, neurons: Tensor) -> Tensor:
        return _mixed(neurons, self.weight.transpose(1, 2).flatten(0, 1))

    def _leave(self, delayed: Tensor) -> Tensor:
        own = delayed.reshape(*delayed.shape[:-2], self.out_channels, self.kernel_count, delayed.shape[-1]).sum(-2)
        return own if self.bias is None else own + self.bias.unsqueeze(-1)


def _mixed(neurons: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A matrix product over neurons at each step: (batch, in, time) -> (batch, out, time)."""
    if neurons.shape[-1] == 1:  # a step of a stream
        return F.linear(neurons.squeeze(-1), weight, bias).unsqueeze(-1)
    return F.conv1d(neurons, weight.unsqueeze(-1), bias)


def _shifted(padded: Tensor, delay: Tensor, before: int) -> Tensor:
    """Channels, (..., channels, before + time), each delayed by whole steps: (..., channels, time)."""
    index = torch.arange(padded.shape[-1] - before, device=padded.device) + (before - delay.unsqueeze(-1))
    return padded.gather(-1, index.expand(*padded.shape[:-1], -1))


def _is_sparse(neurons: Tensor) -> bool:
    # Whether reading single rows is less than one matrix product reads.
    if neurons.requires_grad or neurons.device.type != "cpu" or neurons.dtype.itemsize < 4 or special_tensors():
        return False
    return 2 * int(neurons.count_nonzero()) < neurons.shape[-1]


def _rows_of_active(neurons: Tensor, rows: Tensor) -> Tensor:
    """`neurons @ rows`, which only reads the rows of inputs other than 0."""
    batch = neurons.reshape(-1, neurons.shape[-1])
    active = batch != 0
    starts = F.pad(active.sum(-1).cumsum(0), (1, 0))[:-1]
    values = batch[active]
    made = F.embedding_bag(active.nonzero()[:, 1], rows, starts, mode="sum", per_sample_weights=values)
    return made.reshape(*neurons.shape[:-1], rows.shape[-1])
