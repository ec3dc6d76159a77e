"""Recurrent layers with learned delays."""

from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops.tracing import special_tensors
from .blocks import FiltersAtOnce, Reach, block_length
from .layer import DelayLayer
from .state import DelayState

# (current, state) -> (spikes, state), with a state of None at first.
Neuron = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True, eq=False)
class RecurrentState:
    """The state of `RecurrentDelays` between two parts of a sequence.

    Args:
        neuron: The neurons' own state.
        feedback: (batch, neurons), or without batch. The feedback at the next step.
        delays: The feedback of later steps.
    """

    neuron: Any
    feedback: Tensor
    delays: DelayState


class RecurrentDelays(nn.Module):
    """Neurons with recurrent connections, each with a weight and a learned delay.

    With neurons `f`, and the delay layer `D`, which returns the sum that is due at each step:

        spikes[t] = f(input[t] + feedback[t]),  feedback[t + 1] = D(spikes)[t]

    A spike with delay `d` returns `d + 1` steps later, as there is no feedback within a step. Sums over past spikes are
    computed for blocks of steps by FFT, whatever the delays' `method` is. Where no spike arrives, the feedback is
    therefore close to 0, not exactly 0, and a NaN spreads to later steps.

    Args:
        delays: `AxonalDelays`, `SynapticDelays` or `DendriticDelays` with equal numbers of inputs and outputs and
            without `tail`. This layer has the same `time_first`.
        neuron: Function or module, called at each step as `neuron(current, state)`, with current (batch, neurons) and
            state None at first. It returns spikes of the same shape and its next state, as norse's cells do. Before
            each sequence, call `reset_mem` of snnTorch's neurons. SpikingJelly's neurons keep their state: wrap them in
            a module that returns `(neuron(current), None)`. A module is trained with the layer.

    Raises:
        ValueError: Delays between other numbers of neurons, or with a tail.
        TypeError: Delays of another type, or neurons that cannot be called.

    Gradients:
        To input, state, and the parameters of delays and neurons. Gradients of delays cannot be differentiated again;
        others can.

    Source:
        The update order is that of DelRec, whose delays are synaptic or axonal with "triangle" interpolation.

    Example:
        >>> import torch
        >>> from torchdcls.delays import AxonalDelays, RecurrentDelays
        >>> def leaky(current, voltage):
        ...     voltage = current if voltage is None else 0.9 * voltage + current
        ...     return torch.tanh(voltage), voltage
        >>> layer = RecurrentDelays(AxonalDelays(8, 8, max_delay=10), leaky)
        >>> spikes, state = layer(torch.randn(4, 8, 50))
        >>> spikes.shape
        torch.Size([4, 8, 50])
    """

    # See `torchdcls.fuse`.
    why_not_plain = "feeds its delays back step by step; take its weights and delays out by SynapseTable"

    def __init__(self, delays: DelayLayer, neuron: Neuron) -> None:
        super().__init__()
        _checks.of_type("delays", delays, DelayLayer, "a layer of delays")
        _checks.of_type("neuron", neuron, Callable, "a function of a current and a state")  # type: ignore[arg-type]
        if delays.in_features != delays.out_features:
            raise ValueError(
                f"delays: expected as many inputs as outputs, got {delays.in_features} and {delays.out_features}"
            )
        if delays.tail:
            raise ValueError(f"delays: expected no tail, as spikes come back within the sequence, got {delays.tail}")
        self.delays = delays
        self.neuron = neuron

    def forward(self, input: Tensor, state: RecurrentState | None = None) -> tuple[Tensor, RecurrentState]:
        """Spikes of a sequence, or of a part that follows another.

        Args:
            input: Currents, (batch, neurons, time), with `time_first` (time, batch, neurons). The batch axis may be
                missing.
            state: The state that the previous part returned. None: this is the first part.

        Returns:
            Spikes in the layout of `input`, and the state for the next part.

        Raises:
            ValueError: `input` has another shape or dtype than expected, or no time step, `state` belongs to other
                inputs, or spikes have another shape.
            TypeError: `input` is not a tensor, `state` not a state, or a neuron does not return spikes and a state.
        """
        _checks.of_type("state", state, (RecurrentState, NoneType), "a state that forward returned")
        currents = self.delays.neurons_then_time(input).movedim(-1, 0)
        if state is not None and state.feedback.shape != currents.shape[1:]:
            raise ValueError(
                f"state: expected one of these inputs, {tuple(currents.shape[1:])}, got {tuple(state.feedback.shape)}"
            )
        run = _Run(self.delays, self.neuron, state)
        spikes = run.sequence(currents)
        return torch.stack(spikes, 0 if self.delays.time_first else -1), run.end


class _Run:
    """The run of a part of a sequence."""

    def __init__(self, delays: DelayLayer, neuron: Neuron, state: RecurrentState | None) -> None:
        self._delays = delays
        self._neuron = neuron
        self._start = state
        self._state = None if state is None else state.neuron
        self._spikes: list[Tensor] = []

    def sequence(self, currents: Tensor) -> list[Tensor]:
        """Spikes of all steps of currents, (time, ..., neurons); `end` is then the state for the next part."""
        self._currents = currents.unbind(0)
        filters = self._delays.filters()
        dtype, filters = filters.dtype, filters.to(torch.promote_types(filters.dtype, torch.float32))
        steps, lags, shape = len(currents), filters.shape[-1], (*currents.shape[1:-1], len(filters))
        block = block_length(lags, steps)
        lengths = [len(range(first, min(first + block, steps))) for first in range(0, steps, block)]
        known: list[Tensor] = []
        at_once = torch.is_grad_enabled() and filters.requires_grad and not special_tensors()
        sizes = (steps + lags, *shape)
        fresh = FiltersAtOnce.apply(filters, known, sizes) if at_once else filters.new_zeros(sizes)
        *parts, after = torch.split(fresh, [*lengths, lags])
        self._reaches = {half: Reach(filters, half, half, at_once) for half in _halves(block)}
        beyond = Reach(filters, block, lags, at_once)

        nothing = filters.new_zeros((1, *shape))
        pending = nothing.expand(lags, *shape)
        if self._start is not None:
            before = self._delays.pending_of(self._start.delays, nothing[0])
            pending = torch.cat((nothing, before.movedim(-1, 0).to(filters.dtype)))
        entered = []
        for length, part in zip(lengths, parts, strict=True):
            due, later = torch.split(pending, [length, lags - length])
            entered.append(torch.stack(self._block(due + part)))
            later = torch.cat((later, nothing.expand(length, *shape)))
            pending = later + beyond(entered[-1].to(filters.dtype), lags)
        known.append(torch.cat([each.detach() for each in entered]))
        pending = (pending + after).to(dtype)
        feedback = self._delays.left(pending[0])
        self.end = RecurrentState(self._state, feedback, DelayState(pending[1:].movedim(0, -1)))
        return self._spikes

    def _block(self, due: Tensor) -> list[Tensor]:
        """The input of the delays at each of these steps, from the sums that earlier steps make due at them."""
        if len(due) == 1:
            return [self._step(due[0])]
        half = _halves(len(due))[-1]
        now, later = torch.split(due, [half, len(due) - half])
        entered = self._block(now)
        return entered + self._block(later + self._reaches[half](torch.stack(entered).to(due.dtype), len(later)))

    def _step(self, due: Tensor) -> Tensor:
        current = self._currents[len(self._spikes)]
        if self._spikes:
            feedback = self._delays.left(due.to(self._delays.weight.dtype))
        else:
            feedback = current.new_zeros(current.shape) if self._start is None else self._start.feedback
        returned = self._neuron(current + feedback, self._state)
        if not isinstance(returned, tuple) or len(returned) != 2:
            count = f" of {len(returned)}" if isinstance(returned, tuple) else ""
            raise _checks.WrongTypeError(
                f"neuron: expected it to return (spikes, state), got {type(returned).__name__}{count}"
            )
        spikes, self._state = returned
        if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
            found = spikes.dtype if isinstance(spikes, Tensor) else type(spikes).__name__
            raise _checks.WrongTypeError(f"neuron: expected spikes as floating-point numbers, got {found}")
        if spikes.shape != current.shape:
            raise ValueError(f"neuron: expected spikes {tuple(current.shape)}, got shape {tuple(spikes.shape)}")
        self._spikes.append(spikes)
        return self._delays.entered(spikes)


def _halves(steps: int) -> list[int]:
    """The powers of 2 that are less than a number of steps."""
    return [1 << power for power in range((steps - 1).bit_length())]
