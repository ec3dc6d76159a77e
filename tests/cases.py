"""What the tests share: interpolations written out a second time, elements, the oracle's answers, and the bounds.

Bounds come from the data. Two computations in float64 may differ by rounding: some units in the last place of the
largest number in play. A computation in lower precision may err twice as much as the plain one in that precision.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdcls import Profile, construct_kernel
from torchdcls.ops.conv import METHODS
from torchdcls.ops.reference import reference_convolution, reference_kernel

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# Rounding units that two float64 computations of the same sums may differ by: the sums here have some hundred terms.
ROUNDING_UNITS = 64


def hat(u: Tensor) -> Tensor:
    return (1 - u.abs()).clamp(min=0)


def bell(u: Tensor) -> Tensor:
    return (-(u**2) / 2).exp()


def cauchy(u: Tensor) -> Tensor:
    return 1 / (1 + u * u)


@dataclass(frozen=True)
class Spread:
    """An interpolation as the package takes it, and the same written out apart from the package."""

    interpolation: str | Profile
    function: Callable[[Tensor], Tensor]
    smallest_scale: float
    start: float | None


SPREADS = {
    "bilinear": Spread("bilinear", hat, 1.0, None),
    "triangle": Spread("triangle", hat, 1.0, 0.0),
    "gaussian": Spread("gaussian", bell, 0.27, 0.23),
    "own": Spread(Profile(cauchy, 0.3, 0.2, "cauchy"), cauchy, 0.3, 0.2),
    "own-fixed": Spread(Profile(cauchy, 0.8, None, "fixed"), cauchy, 0.8, None),
}


@dataclass(frozen=True)
class Elements:
    """Elements of a kernel, and the kernel by the package and by the oracle."""

    spread: Spread
    size: tuple[int, ...]
    learned: tuple[int, ...]
    weight: Tensor
    position: Tensor
    sigma: Tensor | None

    def leaves(self) -> dict[str, Tensor]:
        named = {"weight": self.weight, "position": self.position, "sigma": self.sigma}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def with_leaves(self, **leaves: Tensor) -> "Elements":
        return replace(self, **leaves)

    def to(self, dtype: torch.dtype) -> "Elements":
        """The same numbers in another dtype, as new leaves."""
        return replace(self, **{name: leaf.detach().to(dtype).requires_grad_() for name, leaf in self.leaves().items()})

    def kernel(self) -> Tensor:
        return construct_kernel(
            self.weight, self.position, self.sigma, self.size, self.spread.interpolation, learned_dims=self.learned
        )

    def oracle(self) -> Tensor:
        scale = torch.full_like(self.position, self.spread.smallest_scale)
        if self.sigma is not None:
            scale = scale + self.sigma.abs()
        learned_size = [self.size[axis] for axis in self.learned]
        kernel = reference_kernel(self.weight, self.position, scale, learned_size, self.spread.function)
        made = [axis for axis in range(len(self.size)) if axis not in self.learned] + list(self.learned)
        return kernel.permute(0, 1, *(2 + made.index(axis) for axis in range(len(self.size))))


def make_elements(
    spread: str,
    size: Sequence[int],
    learned: Sequence[int] | None = None,
    channels: tuple[int, int] = (2, 2),
    count: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Elements:
    """Random elements over the whole grid and a little beyond its far end, away from every profile's kinks."""
    draw = torch.Generator().manual_seed(seed)
    learned = tuple(range(len(size))) if learned is None else tuple(learned)
    dense = [cells for axis, cells in enumerate(size) if axis not in learned]
    shape = (*channels, *dense, count)

    def uniform(low: float, high: float, shape: Sequence[int]) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=draw, dtype=torch.float64)

    weight = uniform(-1, 1, shape)
    cells = [uniform(0, size[axis], shape).floor() - size[axis] // 2 for axis in learned]
    position = torch.stack(cells) + uniform(0.3, 0.45, (len(learned), *shape))
    sigma = None
    if SPREADS[spread].start is not None:
        sign = torch.randint(0, 2, position.shape, generator=draw) * 2 - 1
        sigma = uniform(0.05, 0.2, position.shape) * sign
    return Elements(SPREADS[spread], tuple(size), learned, weight, position, sigma).to(dtype)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers of a seed of their own, as a leaf."""
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(dtype).requires_grad_()


def padding_pairs(padding: int | Sequence[int] | str, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """What torch's `padding` means, as zeros before and after each axis."""
    if padding == "valid":
        return [(0, 0) for _ in kernel]
    if padding == "same":
        return [((taps - 1) // 2, taps // 2) for taps in kernel]
    each = [padding] * len(kernel) if isinstance(padding, int) else padding
    return [(cells, cells) for cells in each]


def oracle_convolution(input, weight, bias=None, stride=1, padding=0, groups=1) -> Tensor:
    """The oracle's convolution with torch's ways of saying stride and padding, batched or not."""
    kernel = weight.shape[2:]
    stride = (stride,) * len(kernel) if isinstance(stride, int) else stride
    if input.dim() < weight.dim():
        return oracle_convolution(input.unsqueeze(0), weight, bias, stride, padding, groups).squeeze(0)
    return reference_convolution(input, weight, bias, stride, padding_pairs(padding, kernel), groups)


# What runs on CPU; the tests of "triton" need a GPU or Triton's interpreter, and stand by themselves.
CPU_METHODS = tuple(method for method in METHODS if method != "triton")


def answers(call: Callable[[], Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The output of a call, and the gradient to every leaf for a fixed random cotangent."""
    output = call()
    cotangent = normal(*output.shape, seed=7, dtype=output.dtype).detach().to(output.device)
    gradients = torch.autograd.grad(output, list(leaves.values()), cotangent)
    return {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


def assert_equal_to_rounding(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Same names, shapes and dtypes; numbers equal to rounding of the largest number in play."""
    assert actual.keys() == expected.keys()
    unit = max(1.0, *map(largest, expected.values())) * torch.finfo(expected["output"].dtype).eps
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        assert actual[name].dtype == wanted.dtype, name
        error = largest(actual[name] - wanted)
        assert error <= ROUNDING_UNITS * unit, f"{name}: off by {error / unit:.3g} rounding units"


def assert_as_exact_as(actual: dict[str, Tensor], plain: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """Errs at most twice as much as the plain computation in the same dtype, plus a rounding unit.

    Errors are relative to the largest number of each answer, and the worst of a call's answers counts: which answer
    comes out worst is chance.
    """

    def worst(given: dict[str, Tensor]) -> float:
        return max(largest(given[name].double() - wanted) / largest(wanted) for name, wanted in truth.items())

    assert {name: actual[name].dtype for name in truth} == {name: plain[name].dtype for name in truth}
    allowed = 2 * worst(plain) + torch.finfo(plain["output"].dtype).eps
    assert worst(actual) <= allowed, f"errs by {worst(actual):.3g}, allowed {allowed:.3g}"


def grid(size: Sequence[int]) -> list[tuple[int, ...]]:
    """Every cell, as positions from the origin."""
    return list(itertools.product(*(range(-(cells // 2), cells - cells // 2) for cells in size)))
