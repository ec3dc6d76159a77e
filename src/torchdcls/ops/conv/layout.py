"""Memory formats of maps, by permuted views: these also work under vmap, which knows no `memory_format`."""

from torch import Tensor


def is_channels_last(input: Tensor) -> bool:
    """Whether channels lie closest together in memory, and only they can be said to."""
    return input.dim() > 3 and not input.is_contiguous() and input.movedim(1, -1).is_contiguous()


def to_channels_last(input: Tensor) -> Tensor:
    """The same (batch, channels, *map) with channels closest together in memory."""
    return input.movedim(1, -1).contiguous().movedim(-1, 1)
