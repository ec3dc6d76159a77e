"""What the tests share: interpolations written out a second time, elements, the oracle's answers, and the bounds.

Bounds come from the data. Two computations in float64 may differ by rounding: some units in the last place of the
largest number in play. A computation in lower precision may err twice as much as the plain one in that precision.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdcls import Profile, construct_kernel
from torchdcls.ops.conv import METHOD_NAMES
from torchdcls.ops.native import missing
from torchdcls.ops.reference import reference_convolution, reference_kernel

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# Rounding units that two float64 computations of the same sums may differ by: the sums here have some hundred terms.
ROUNDING_UNITS = 64


def hat(u: Tensor) -> Tensor:
    return torch.relu(1 - u.abs())  # of the derivatives at a kink, 0


def bell(u: Tensor) -> Tensor:
    return (-(u**2) / 2).exp()


def cauchy(u: Tensor) -> Tensor:
    return 1 / (1 + u * u)


def raised_cosine(u: Tensor) -> Tensor:
    return torch.where(u.abs() < 1, 0.5 * (1 + torch.cos(math.pi * u)), 0.0)


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
# Of compact support, but smooth: next to nothing is left of an element of which a cell is at the edge.
COMPACT = Spread(Profile(raised_cosine, 0.3, 0.2, "compact"), raised_cosine, 0.3, 0.2)


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
            scale = scale + torch.where(self.sigma < 0, -self.sigma, self.sigma)  # 1, and not 0, is its slope at 0
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


def padding_pairs(padding: int | Sequence[int | tuple[int, int]] | str, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """What torch's `padding` means, as zeros before and after each axis."""
    if padding == "valid":
        return [(0, 0) for _ in kernel]
    if padding == "same":
        return [((taps - 1) // 2, taps // 2) for taps in kernel]
    each = [padding] * len(kernel) if isinstance(padding, int) else padding
    return [cells if isinstance(cells, tuple) else (cells, cells) for cells in each]


def oracle_convolution(input, weight, bias=None, stride=1, padding=0, groups=1) -> Tensor:
    """The oracle's convolution with torch's ways of saying stride and padding, batched or not."""
    kernel = weight.shape[2:]
    stride = (stride,) * len(kernel) if isinstance(stride, int) else stride
    if input.dim() < weight.dim():
        return oracle_convolution(input.unsqueeze(0), weight, bias, stride, padding, groups).squeeze(0)
    return reference_convolution(input, weight, bias, stride, padding_pairs(padding, kernel), groups)


# Of tests of the compiled kernels, which an installation may be without.
needs_kernels = pytest.mark.skipif(missing() is not None, reason=missing() or "")
# What runs on CPU; the tests of "triton" need a GPU or Triton's interpreter, and stand by themselves.
CPU_METHODS = tuple(
    method for method in METHOD_NAMES if method != "triton" and (method != "native" or missing() is None)
)


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


# What a parameter may come to hold. All are float32's: the same numbers in float64.
SPECIAL_VALUES = {
    "0": 0.0,
    "-0": -0.0,
    "denormal": 1e-44,
    "tiny": -1e-30,
    "a kink": 1.0,
    "large": -1e4,
    "huge": 1e30,
    "largest": -3.4e38,
    "infinite": math.inf,
    "-infinite": -math.inf,
}
# Over its mass, which may be a thousandth, a weight has to be a number that float32 can hold.
SPECIAL_WEIGHTS = {name: value for name, value in SPECIAL_VALUES.items() if name != "largest"}


def with_special(elements: Elements, names: Sequence[str], value: float) -> Elements:
    """The elements, the second of each kernel with this value in the named parameters."""
    changed = {name: leaf.detach().clone() for name, leaf in elements.leaves().items()}
    for name in names:
        changed[name][..., min(1, elements.weight.shape[-1] - 1)] = value
    return elements.with_leaves(**{name: leaf.requires_grad_() for name, leaf in changed.items()})


def special_fault(elements: Elements) -> tuple[str | None, float]:
    """What is wrong with the kernel or a gradient, where the formula in float64 has a number that the dtype can hold.

    Returns:
        The fault or None; and the largest error beyond that of the plain computation, in rounding units of the numbers
        that an answer is a sum or a difference of.
    """
    plain, got = (answers(call, elements.leaves()) for call in (elements.oracle, elements.kernel))
    fault, worst = _fault(elements, got, plain, (1.0,))
    if fault is not None:
        # Rounding may take a cell to the other side of a kink, where the derivative is another.
        near = 8 * torch.finfo(elements.position.dtype).eps
        fault, worst = _fault(elements, got, plain, (1.0, 1 - near, 1 + near))
    return fault, worst


def _fault(
    elements: Elements, got: dict[str, Tensor], plain: dict[str, Tensor], nudges: Sequence[float]
) -> tuple[str | None, float]:
    exact = elements.to(torch.float64)
    nudged = [exact.with_leaves(position=(exact.position.detach() * by).requires_grad_()) for by in nudges]
    truths = [answers(one.oracle, one.leaves()) for one in nudged]
    worst = 0.0
    for name, given in got.items():
        several = torch.stack([truth[name] for truth in truths])
        held = several.isfinite().all(0) & several.to(given.dtype).isfinite().all(0)
        given, by_plain, wanted = given[held].double(), plain[name][held].double(), several[:, held]
        if not given.isfinite().all():
            return f"{name}: {given[~given.isfinite()][0]} where float64 has a number", math.inf
        off = (given - given.clamp(wanted.amin(0), wanted.amax(0))).abs()
        beyond = off - 2 * (by_plain - wanted[0]).abs().nan_to_num(0.0, 0.0)
        unit = torch.finfo(elements.weight.dtype).eps * _summands(exact, name)[held] + torch.finfo(got[name].dtype).tiny
        worst = max(worst, (beyond / unit).max().item() if len(unit) else 0.0)
    return (f"off by {worst:.3g} rounding units" if worst > ROUNDING_UNITS else None), worst


@torch.no_grad()
def _summands(elements: Elements, name: str) -> Tensor:
    """How large the numbers are that one answer of `answers` is a sum or a difference of."""
    weight, position = elements.weight.abs(), elements.position
    if name == "output":
        return torch.ones_like(elements.oracle()) * weight[weight.isfinite()].sum()
    scale = torch.full_like(position, elements.spread.smallest_scale)
    scale = scale if elements.sigma is None else scale + elements.sigma.abs()
    mass = torch.ones_like(weight)
    for axis, dim in enumerate(elements.learned):
        cell = torch.arange(elements.size[dim], dtype=torch.float64) - elements.size[dim] // 2
        distance = (cell - position[axis].unsqueeze(-1)) / scale[axis].unsqueeze(-1)
        mass = mass * elements.spread.function(distance).sum(-1)
    mass = mass.nan_to_num(1.0) + 1e-7
    return 8 / mass.clamp(max=1) if name == "weight" else 8 * weight / (mass * scale).clamp(max=1)
