"""The kernel as a product of factors, one per axis, and its gradients.

With u = (cell - position) / scale, factor = profile(u), mass the product of the factors' sums over the cells, and
share = weight / (mass + epsilon):

    kernel[y, x] = sum_k share[k] * factor_y[k, y] * factor_x[k, x]

By torch's operators: for tensors, profiles and devices that neither the compiled library nor Triton serves.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..profiles import Profile
from .tracing import as_read, owned, shape_of

# Keeps the mass of an element far off the grid above zero; part of the published definition.
EPSILON = 1e-7
# Kernels of many elements are made in parts, each with this many cells of a factor.
PART_CELLS = 2**20


def separable_kernel(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile
) -> Tensor:
    """The kernel of `kernel.learned_kernel` by steps that autograd differentiates, any number of times."""
    inverse = _inverse(sigma, profile)
    factors = [profile.function(distance) for distance in _distances(position, inverse, sizes, profile)]
    return _Products(weight, factors).kernel()


def _inverse(sigma: Tensor | None, profile: Profile) -> Tensor | None:
    # One over the scale; None for the smallest scale.
    return None if sigma is None else 1 / profile.scale(sigma)


def _distances(position: Tensor, inverse: Tensor | None, sizes: Sequence[int], profile: Profile) -> list[Tensor]:
    # (..., n, cells) for each axis, in units of the scale
    position = _near(position, inverse, profile)
    distances = []
    for axis, cells in enumerate(sizes):
        cell = torch.arange(cells, dtype=position.dtype, device=position.device) - cells // 2
        scale: Tensor | float = 1 / profile.smallest_scale if inverse is None else inverse[axis].unsqueeze(-1)
        distances.append((cell - position[axis].unsqueeze(-1)) * scale)
    return distances


def _near(position: Tensor, inverse: Tensor | None, profile: Profile) -> Tensor:
    # If the square of distance over scale would overflow, the element is moved closer: its factors are 0 there too, but
    # its gradient is not 0 * infinity. If the scale is infinite too, NaN stays.
    most = math.sqrt(torch.finfo(position.dtype).max) / 2
    if inverse is None:
        return position.clamp(-most * profile.smallest_scale, most * profile.smallest_scale)
    limit = most / inverse.detach()
    return position.clamp(-limit, limit)


class _Products:
    """The intermediate products of weights and factors, each (..., n, cells)."""

    def __init__(self, weight: Tensor, factors: Sequence[Tensor]) -> None:
        self.factors = factors
        self.sizes = [shape_of(factor)[-1] for factor in factors]
        self.masses = [factor.sum(-1) for factor in factors]
        self.mass = math.prod(self.masses[1:], start=self.masses[0]) + EPSILON
        self.share = weight / self.mass  # one division per element, not one per cell
        # The largest axis is alone on the right, so that the product of the others on the left is smallest.
        self.right = max(range(len(factors)), key=lambda axis: (self.sizes[axis], axis))
        self.others = [axis for axis in range(len(factors)) if axis != self.right]
        self.lefts = [self.share.unsqueeze(-1)]  # each (..., n, product of the sizes so far)
        for axis in self.others:
            self.lefts.append((self.lefts[-1].unsqueeze(-1) * factors[axis].unsqueeze(-2)).flatten(-2))

    def kernel(self) -> Tensor:
        """(..., *sizes)."""
        kernel = _product(self.lefts[-1].transpose(-2, -1), self.factors[self.right])
        *channels, _, last = shape_of(kernel)
        kernel = kernel.reshape(*channels, *(self.sizes[axis] for axis in self.others), last)
        return kernel.movedim(-1, self.right - len(self.sizes))


def _product(left: Tensor, right: Tensor) -> Tensor:
    # Many tiny matrix products are slow, and not needed for sums of one term.
    return left * right if shape_of(left)[-1] == 1 else left @ right


def construct(weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile) -> Tensor:
    """`separable_kernel` without a graph, and in parts where there are many elements."""
    parts = _parts(weight, position, sigma, sizes)
    if len(parts) == 1:
        return owned(separable_kernel(weight, position, sigma, sizes, profile))
    kernel = weight.new_empty(*weight.shape[:-1], *sizes)
    for part, made in zip(parts, torch.split(kernel, len(parts[0][0])), strict=True):
        made.copy_(separable_kernel(*part, sizes, profile))
    return kernel


def gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `construct` to weight, position and sigma."""
    weight, gradient = as_read(weight), as_read(gradient)
    parts = _parts(weight, position, sigma, sizes)
    if len(parts) == 1:
        return _gradients(weight, position, sigma, sizes, profile, gradient)
    along = torch.split(gradient, len(parts[0][0]))
    made = (_gradients(*part, sizes, profile, own) for part, own in zip(parts, along, strict=True))
    to_weight, *others = zip(*made, strict=True)
    return torch.cat(to_weight), *(None if each[0] is None else torch.cat(each, 1) for each in others)


def _parts(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int]
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    # Parts along the first axis of the weight, so that intermediate results stay in cache.
    rows = weight.shape[0] if weight.dim() > 1 else 1
    step = max(1, PART_CELLS // max(1, weight.numel() // max(1, rows) * max(sizes)))
    if step >= rows:
        return [(weight, position, sigma)]
    sigmas = [None] * rows if sigma is None else torch.split(sigma, step, 1)
    return list(zip(torch.split(weight, step), torch.split(position, step, 1), sigmas, strict=False))


def _gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    inverse = _inverse(sigma, profile)
    distances = _distances(position, inverse, sizes, profile)
    factors = [profile.function(distance) for distance in distances]
    products = _Products(weight, factors)
    right = products.right
    cells = math.prod(sizes[axis] for axis in products.others)
    rows = gradient.movedim(right - len(sizes), -1).reshape(*weight.shape[:-1], cells, sizes[right])

    # Through the matrix product, to each (..., n, cells).
    left = products.lefts[-1]
    to_factors = {right: _product(left, rows)}
    to_left = torch.matmul(factors[right], rows.transpose(-2, -1))
    for axis, left in zip(reversed(products.others), reversed(products.lefts[:-1]), strict=True):
        to_left = to_left.reshape(*to_left.shape[:-1], to_left.shape[-1] // sizes[axis], sizes[axis])
        to_factor = to_left * left.unsqueeze(-1)
        to_factors[axis] = to_factor.squeeze(-2) if left.shape[-1] == 1 else to_factor.sum(-2)
        to_left = to_left.mul_(factors[axis].unsqueeze(-2)).sum(-1)

    # Through the share of each element and its mass.
    to_weight = to_left.squeeze(-1) / products.mass
    to_mass = -to_weight * products.share
    to_position = torch.empty_like(position)
    to_sigma = None if sigma is None else torch.empty_like(sigma)
    for axis, distance in enumerate(distances):
        to_own_mass = math.prod((mass for other, mass in enumerate(products.masses) if other != axis), start=to_mass)
        to_factor = to_factors[axis].add_(to_own_mass.unsqueeze(-1))
        if profile.slope is None:
            with torch.enable_grad():
                leaf = distance.detach().requires_grad_()
                (to_distance,) = torch.autograd.grad(profile.function(leaf), leaf, to_factor)
        else:
            to_distance = to_factor.mul_(profile.slope(distance, factors[axis]))
        scale: Tensor | float = 1 / profile.smallest_scale if inverse is None else inverse[axis]
        to_position[axis] = to_distance.sum(-1) * -scale
        if sigma is not None and to_sigma is not None:
            to_scale = (to_distance * distance).sum(-1) * -scale
            to_sigma[axis] = torch.where(sigma[axis] < 0, -to_scale, to_scale)
    return to_weight, to_position, to_sigma
