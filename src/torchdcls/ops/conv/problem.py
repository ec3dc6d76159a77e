"""The sizes of one convolution call."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch

# A convolution is one trilinear form of input, weight and gradient of the output. Each map computes one of three things
# from two of these: the output, the gradient of the input, the gradient of the weight.
Map = Literal["convolve", "transpose", "correlate"]
MAPS: tuple[Map, ...] = get_args(Map)


@dataclass(frozen=True)
class Problem:
    """The sizes of one convolution call, with `padding` as (before, after) pairs.

    For a transposed convolution it is the convolution from its output to its input.
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    map: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    device: str
    dtype: torch.dtype
    channels_last: bool = False

    @property
    def outputs(self) -> tuple[int, ...]:
        """Map size of the output."""
        rows = zip(self.map, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + sum(pads) - taps) // step + 1 for size, taps, step, pads in rows)

    @property
    def before(self) -> list[int]:
        """Zeros before each axis."""
        return [before for before, _ in self.padding]

    @property
    def depthwise(self) -> bool:
        """Whether every channel is convolved by itself, with one filter."""
        return self.in_channels == self.groups == self.out_channels

    def fields(self) -> tuple[Any, ...]:
        """The values from which `Problem(*fields)` makes it."""
        return tuple(getattr(self, name) for name in _NAMES)


_NAMES = tuple(field.name for field in fields(Problem))
