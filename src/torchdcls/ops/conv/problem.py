"""The sizes of one convolution call."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

# What a convolution consists of; "gradients" are both at once.
Part = Literal["output", "input gradient", "weight gradient", "gradients"]


@dataclass(frozen=True)
class Problem:
    """The sizes of one convolution call, and of what tensors; `padding` holds (before, after) pairs.

    Where `transposed`, the call asks for the transpose of this convolution: it gives what would be the output, and gets
    what would be the gradient of the input.
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
    transposed: bool = False

    @property
    def outputs(self) -> tuple[int, ...]:
        """Map size of the output."""
        rows = zip(self.map, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + sum(pads) - taps) // step + 1 for size, taps, step, pads in rows)

    @property
    def depthwise(self) -> bool:
        """Whether every channel is convolved by itself, with one filter."""
        return self.in_channels == self.groups == self.out_channels

    def fields(self) -> tuple[Any, ...]:
        """What `Problem(*fields)` makes it from."""
        return (
            self.batch,
            self.in_channels,
            self.out_channels,
            self.groups,
            self.map,
            self.kernel,
            self.stride,
            self.padding,
            self.device,
            self.dtype,
            self.channels_last,
            self.transposed,
        )

    def with_kernel(self, kernel: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> "Problem":
        """The same problem with another kernel size and padding."""
        return replace(self, kernel=kernel, padding=padding)

    def turned(self) -> "Problem":
        """The problem whose output is the gradient of this one's input, for stride 1."""
        padding = tuple((taps - 1 - a, taps - 1 - b) for taps, (a, b) in zip(self.kernel, self.padding, strict=True))
        return replace(
            self, in_channels=self.out_channels, out_channels=self.in_channels, map=self.outputs, padding=padding
        )
