"""The sizes of one convolution call."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

# A convolution is one trilinear form of input, weight and gradient of the output. Each map gives one of the three from
# the others: the output, its gradient in the input, its gradient in the weight.
Map = Literal["convolve", "transpose", "correlate"]


@dataclass(frozen=True)
class Problem:
    """The sizes of one convolution call, and of what tensors; `padding` holds (before, after) pairs.

    A transposed convolution is posed as the convolution that it is the transpose of.
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
        """Zeros before each axis; how many come after it follows from the sizes."""
        return [before for before, _ in self.padding]

    @property
    def depthwise(self) -> bool:
        """Whether every channel is convolved by itself, with one filter."""
        return self.in_channels == self.groups == self.out_channels

    def fields(self) -> tuple[Any, ...]:
        """What `Problem(*fields)` makes it from."""
        return tuple(getattr(self, name) for name in _NAMES)

    def with_kernel(self, kernel: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> "Problem":
        """The same problem with another kernel size and padding."""
        return replace(self, kernel=kernel, padding=padding)


_NAMES = tuple(field.name for field in fields(Problem))
