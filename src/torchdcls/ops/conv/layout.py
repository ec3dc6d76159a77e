"""Memory formats of maps, by permuted views: these also work under vmap, which lacks `memory_format`."""

from torch import Tensor


def is_channels_last(input: Tensor) -> bool:
    """Whether channels lie closest together in memory, and no other axis can be said to."""
    return input.dim() > 3 and not input.is_contiguous() and input.movedim(1, -1).is_contiguous()


def to_channels_last(input: Tensor) -> Tensor:
    """The same (batch, channels, *map) with channels closest together in memory."""
    return input.movedim(1, -1).contiguous().movedim(-1, 1)


def is_like_channels_last(input: Tensor) -> bool:
    """Whether torch's convolutions would return channels_last: strides grow in the order of that format.

    This is the rule of `suggest_memory_format` in torch, which allows gaps between channels.
    """
    if input.dim() < 4 or 0 in input.shape or input.stride(1) == 0:
        return False
    least = 0
    for axis in (1, *range(input.dim() - 1, 1, -1), 0):
        if input.stride(axis) < least or (axis == 0 and least == input.stride(1)):
            return False
        least = input.stride(axis) * input.shape[axis] if input.shape[axis] > 1 else input.stride(axis)
    return True
