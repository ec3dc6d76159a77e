"""Convolutions drawn at random: what the cost rule is fitted on, and what it is then tried on."""

import math
import random
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchdcls.ops.conv.posing import pose
from torchdcls.ops.conv.problem import Problem

# Of the draw that the rule is fitted on; what it is tried on has another.
FIT_SEED = 0
# Bounds that keep a measurement of all methods within minutes.
MOST_TAPS, MOST_CELLS, MOST_WEIGHTS = 1_500_000_000, 8_000_000, 20_000_000


@dataclass(frozen=True)
class Shape:
    """A convolution of stride 1 with "same" padding."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    map: tuple[int, ...]
    kernel: tuple[int, ...]
    channels_last: bool

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.map)), "x".join(map(str, self.kernel))
        last = ", channels last" if self.channels_last else ""
        return (
            f"batch {self.batch}, {self.in_channels} to {self.out_channels} channels, groups {self.groups}, "
            f"map {sizes[0]}, kernel {sizes[1]}{last}"
        )

    @property
    def padding(self) -> tuple[int, ...]:
        return tuple(taps // 2 for taps in self.kernel)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weight and gradient of the output, in float32."""
        input = torch.randn(self.batch, self.in_channels, *self.map)
        weight = torch.randn(self.weight_shape)
        gradient = torch.randn(self.batch, self.out_channels, *self.map)
        if self.channels_last:
            last = torch.channels_last if len(self.map) == 2 else torch.channels_last_3d
            input, gradient = input.to(memory_format=last), gradient.to(memory_format=last)
        return input, weight, gradient

    def problem(self) -> tuple[Problem, Tensor, Tensor, Tensor]:
        """The problem as a method gets it, with the tensors of it."""
        input, weight, gradient = self.tensors()
        weight, problem = pose(input, weight, None, 1, self.padding, self.groups)
        return problem, input, weight, gradient

    def problem_alone(self) -> Problem:
        """The problem without numbers."""
        with torch.device("meta"):
            input, weight, _ = self.tensors()
            _, problem = pose(input, weight, None, 1, self.padding, self.groups)
        return replace(problem, device="cpu")

    def to_json(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Shape":
        """From a result file."""
        return cls(**{**fields, "map": tuple(fields["map"]), "kernel": tuple(fields["kernel"])})


def draw_shapes(count: int, seed: int) -> list[Shape]:
    """Shapes from 1-D to 3-D, depthwise to dense, batch 1 to 64, 3 taps to more than the map."""
    draw = random.Random(seed)
    shapes: list[Shape] = []
    while len(shapes) < count:
        shape = _draw(draw)
        maps = shape.batch * math.prod(shape.map)
        weights = shape.out_channels * shape.in_channels // shape.groups * math.prod(shape.kernel)
        if (
            maps * weights <= MOST_TAPS
            and maps * max(shape.in_channels, shape.out_channels) <= MOST_CELLS
            and weights <= MOST_WEIGHTS
        ):
            shapes.append(shape)
    return shapes


def _draw(draw: random.Random) -> Shape:
    dims = draw.choices((1, 2, 3), (25, 55, 20))[0]
    least_map, most_map, most_taps = {1: (16, 4000, 257), 2: (5, 128, 51), 3: (4, 24, 17)}[dims]

    def between(least: int, most: int) -> int:
        return round(math.exp(draw.uniform(math.log(least), math.log(most))))

    side, taps = between(least_map, most_map), between(3, most_taps)
    square = draw.random() < 0.7
    map = tuple(side if square else between(least_map, most_map) for _ in range(dims))
    kernel = tuple((taps if square else between(3, most_taps)) // 2 * 2 + 1 for _ in range(dims))
    if dims > 1 and draw.random() < 0.15:  # thin: long along one axis
        across = draw.randrange(dims)
        kernel = tuple(kernel[axis] if axis == across else 1 for axis in range(dims))
    kind = draw.choices(("depthwise", "grouped", "dense"), (60, 15, 25))[0]
    if kind == "depthwise":
        inputs = outputs = groups = between(8, 768)
    elif kind == "grouped":
        groups = draw.choice((2, 4, 8, 16))
        inputs, outputs = groups * between(2, 32), groups * between(2, 32)
    else:
        groups, inputs, outputs = 1, between(4, 512), between(4, 512)
    return Shape(between(1, 64), inputs, outputs, groups, map, kernel, dims > 1 and draw.random() < 0.5)
