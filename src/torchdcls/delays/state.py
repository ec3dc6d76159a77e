"""The state of a stream of time steps between two of its parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..ops.tracing import version


class Source:
    """Versions of tensors, and settings: equal as long as a result of them stays the same."""

    def __init__(self, tensors: Sequence[Tensor], settings: tuple[Any, ...]) -> None:
        self._kept = [tensor.detach() for tensor in tensors]  # so that no other tensor takes their memory
        self._key = settings, [(version(tensor), tensor.data_ptr()) for tensor in tensors]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self._key == other._key

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class DelayState:
    """State of a stream: the sums that past inputs add to later outputs. See `SynapticDelays.step` and `stream`.

    Args:
        pending: (batch, neurons, max_delay), or without batch; entry `k` is due `k` steps from now. Neurons are the
            outputs of synaptic delays; of axonal and dendritic ones, those with delays, `kernel_count` times.
        taps, source: The kernel of a step, and the parameters that it was made from. None: they are made again.
    """

    pending: Tensor
    taps: Tensor | None = field(default=None, repr=False)
    source: Source | None = field(default=None, repr=False)

    def detach(self) -> "DelayState":
        """The same state without the graph that led to it, for truncated backpropagation through time."""
        return DelayState(self.pending.detach())
