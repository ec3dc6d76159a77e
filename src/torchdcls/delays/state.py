"""What a stream of time steps keeps from one part to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..ops.tracing import version


class Source:
    """Tensors at this version, and settings: equal while nothing that is made of them would be different."""

    def __init__(self, tensors: Sequence[Tensor], settings: tuple[Any, ...]) -> None:
        self._kept = [tensor.detach() for tensor in tensors]  # so that no other tensor comes to stand where they do
        self._key = settings, [(version(tensor), tensor.data_ptr()) for tensor in tensors]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self._key == other._key

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class DelayState:
    """What inputs so far will still add to later outputs of a delay layer; see `SynapticDelays.step` and `stream`.

    Args:
        pending: (batch, neurons, max_delay), or without batch; entry `k` is due `k` steps from now. Neurons are the
            outputs of synaptic delays, and those that have the delays, `kernel_count` times, of others.
        taps, source: What a step made of the parameters, and of which ones; made again where they are missing.
    """

    pending: Tensor
    taps: Tensor | None = field(default=None, repr=False)
    source: Source | None = field(default=None, repr=False)

    def detach(self) -> "DelayState":
        """The same state without the graph that led to it, for truncated backpropagation through time."""
        return DelayState(self.pending.detach())
