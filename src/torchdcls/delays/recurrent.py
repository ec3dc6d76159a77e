"""Spikes that come back after learned delays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from .layer import DelayLayer
from .state import DelayState

# (current, state) -> (spikes, state), with a state of None at first.
Neuron = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True, eq=False)
class RecurrentState:
    """What `RecurrentDelays` keeps from one part of a sequence to the next.

    Args:
        neuron: The neurons' own state.
        feedback: (batch, neurons), or without batch. What arrives at the next step.
        delays: What arrives later.
    """

    neuron: Any
    feedback: Tensor
    delays: DelayState


class RecurrentDelays(nn.Module):
    """Neurons whose spikes come back to them, weighted, after learned delays.

    With neurons `f` and the delay layer `D`, which at each step gives what is due:

        spikes[t] = f(input[t] + feedback[t]),  feedback[t + 1] = D(spikes)[t]

    A delay of `d` brings a spike back `d + 1` steps later, as there is no way back within a step. What is on its way is
    kept as sums that are due, so that a step costs the same at any time, and the taps of the delays are made once for
    all steps of a call.

    Args:
        delays: `AxonalDelays`, `SynapticDelays` or `DendriticDelays` with as many inputs as outputs and no `tail`. Its
            `time_first` holds for this layer.
        neuron: Called at each step with the current, (batch, neurons), and its state, None at first; returns spikes of
            the same shape and its next state, as cells of norse do. Those of snnTorch do too, but with None they
            continue the sequence before: call their `reset_mem` first. Those of spikingjelly keep their state
            themselves: wrap them in a module that returns `(neuron(current), None)`. A module is trained with the
            layer.

    Raises:
        ValueError: Delays between other numbers of neurons, or with a tail.
        TypeError: Delays of another type, or neurons that cannot be called.

    Source:
        The order of things is that of DelRec, whose delays are synaptic or axonal with "triangle" interpolation.

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
        if not isinstance(delays, DelayLayer):
            raise _checks.WrongTypeError(f"delays: expected a layer of delays, got {type(delays).__name__}")
        if not callable(neuron):
            raise _checks.WrongTypeError(
                f"neuron: expected what can be called with a current and a state, got {neuron!r}"
            )
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
            input: Currents, (batch, neurons, time), with `time_first` (time, batch, neurons); either without batch.
            state: What the part before gave back. None: there was none, and silence.

        Returns:
            Spikes in the layout of `input`, and the state for the next part.

        Raises:
            ValueError: Another shape or dtype, no time step, a state of other inputs, or spikes of another shape.
            TypeError: No tensor, no state, or a neuron that does not return spikes and a state.
        """
        if state is not None and not isinstance(state, RecurrentState):
            raise _checks.WrongTypeError(f"state: expected what forward gave back, got {type(state).__name__}")
        currents = self.delays.neurons_then_time(input)
        neuron, pending = (None, None) if state is None else (state.neuron, state.delays)
        feedback = currents.new_zeros(currents.shape[:-1]) if state is None else state.feedback
        if feedback.shape != currents.shape[:-1]:
            raise ValueError(
                f"state: expected one of these inputs, {tuple(currents.shape[:-1])}, got {tuple(feedback.shape)}"
            )
        taps = self.delays.step_taps()
        outputs = []
        for current in currents.unbind(-1):
            returned = self.neuron(current + feedback, neuron)
            if not isinstance(returned, tuple) or len(returned) != 2:
                count = f" of {len(returned)}" if isinstance(returned, tuple) else ""
                raise _checks.WrongTypeError(
                    f"neuron: expected it to return (spikes, state), got {type(returned).__name__}{count}"
                )
            spikes, neuron = returned
            if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
                found = spikes.dtype if isinstance(spikes, Tensor) else type(spikes).__name__
                raise _checks.WrongTypeError(f"neuron: expected spikes as floating-point numbers, got {found}")
            if spikes.shape != current.shape:
                raise ValueError(f"neuron: expected spikes {tuple(current.shape)}, got shape {tuple(spikes.shape)}")
            outputs.append(spikes)
            feedback, pending = self.delays.step_with(taps, spikes, pending)
        time = 0 if self.delays.time_first else -1
        assert pending is not None  # there was a step
        return torch.stack(outputs, time), RecurrentState(neuron, feedback, pending)
