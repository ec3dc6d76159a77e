"""The kernel as a product of factors, one per axis, and its gradients.

With u = (cell - position) / scale, factor = profile(u), mass the product of the factors' sums over the cells, and
share = weight / (mass + epsilon):

    kernel[y, x] = sum_k share[k] * factor_y[k, y] * factor_x[k, x]

Nothing but the elements is kept for backward: to make the factors again costs less than to keep them. On GPUs a program
of `triton/` makes each kernel, and one its gradients: a hundred launches would take longer than what they do.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..profiles import Profile
from .tracing import as_read, batched, owned, shape_of, special_tensors
from .triton.support import can_construct

# Keeps the normaliser of an element far off the grid from dividing by zero; part of the published definition.
EPSILON = 1e-7
# Kernels of more elements are made in parts, each of so many cells of a factor.
PART_CELLS = 2**20


def separable_kernel(
    weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: Sequence[int], profile: Profile
) -> Tensor:
    """Kernel over the learned axes.

    Args:
        weight: (..., n).
        position: (axes, ..., n). Unit: grid cells.
        inverse: (axes, ..., n), one over the scale; None for the profile's smallest scale.
        sizes: Cells along each axis.
        profile: The interpolation.

    Returns:
        (..., *sizes).

    Gradients:
        To weight, position and inverse, of any order.
    """
    if special_tensors():
        return _kernel(weight, position, inverse, sizes, profile)
    kernel: Tensor = _Separable.apply(weight, position, inverse, tuple(sizes), profile)  # type: ignore[no-untyped-call]
    return kernel


def _kernel(weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: Sequence[int], profile: Profile) -> Tensor:
    factors = [profile.function(distance) for distance in _distances(position, inverse, sizes, profile)]
    return _Products(weight, factors).kernel()


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
    # So far off that the square of distance over scale would overflow, an element is moved to where it does not: there
    # is as little of it there, and 0 * infinity would be its gradient. Where the scale too is infinite, NaN stays.
    most = math.sqrt(torch.finfo(position.dtype).max) / 2
    if inverse is None:
        return position.clamp(-most * profile.smallest_scale, most * profile.smallest_scale)
    limit = most / inverse.detach()
    return position.clamp(-limit, limit)


class _Products:
    """What weights and factors, each (..., n, cells), make on the way to a kernel."""

    def __init__(self, weight: Tensor, factors: Sequence[Tensor]) -> None:
        self.factors = factors
        self.sizes = [shape_of(factor)[-1] for factor in factors]
        self.masses = [factor.sum(-1) for factor in factors]
        self.mass = math.prod(self.masses[1:], start=self.masses[0]) + EPSILON
        self.share = weight / self.mass  # one division per element, not one per cell
        # The largest axis stays alone on the right: what the others make together on the left is then the smallest.
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
    # Many tiny matrix products are slow, and where nothing is summed there is no need of them.
    return left * right if shape_of(left)[-1] == 1 else left @ right


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: tuple[int, ...], profile: Profile
    ) -> Tensor:
        ctx.save_for_backward(weight, position, inverse)
        ctx.sizes, ctx.profile = sizes, profile
        if can_construct(weight, sizes, profile):
            from .triton.launch import construct

            return construct(weight, position, inverse, sizes, profile, EPSILON)
        elements = _parts(weight, position, inverse, sizes)
        if len(elements) == 1:
            return owned(_kernel(weight, position, inverse, sizes, profile))
        kernel = weight.new_empty(*weight.shape[:-1], *sizes)
        for part, made in zip(elements, torch.split(kernel, len(elements[0][0])), strict=True):
            made.copy_(_kernel(*part, sizes, profile))
        return kernel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, position, inverse = ctx.saved_tensors
        if not (torch.is_grad_enabled() or special_tensors() or batched(gradients[0])):
            weight, gradient = as_read(weight), as_read(gradients[0])
            if can_construct(weight, ctx.sizes, ctx.profile):
                from .triton.launch import gradients as made_by_triton

                settings = ctx.sizes, ctx.profile, EPSILON
                return *made_by_triton(weight, position, inverse, *settings, gradient), None, None
            elements = _parts(weight, position, inverse, ctx.sizes)
            if len(elements) == 1:
                return *_gradients(*elements[0], ctx.sizes, ctx.profile, gradient), None, None
            along = torch.split(gradient, len(elements[0][0]))
            parts = (_gradients(*part, ctx.sizes, ctx.profile, own) for part, own in zip(elements, along, strict=True))
            to_weight, *others = zip(*parts, strict=True)
            to_others = (None if each[0] is None else torch.cat(each, 1) for each in others)
            return torch.cat(to_weight), *to_others, None, None

        def kernel(weight: Tensor, position: Tensor, inverse: Tensor | None) -> Tensor:
            return _kernel(weight, position, inverse, ctx.sizes, ctx.profile)

        return *gradients_by_autograd(kernel, ctx.saved_tensors, ctx.needs_input_grad, gradients), None, None


def gradients_by_autograd(
    kernel: Callable[..., Tensor],
    elements: Sequence[Tensor | None],
    wanted: Sequence[bool],
    gradients: Sequence[Tensor],
) -> list[Tensor | None]:
    """Gradients through the steps of `kernel(*elements)`: to be differentiated again, or of more than numbers."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        made_again = kernel(*elements)
    leaves = [tensor for tensor, want in zip(elements, wanted, strict=False) if tensor is not None and want]
    made = iter(torch.autograd.grad(made_again, leaves, gradients, create_graph=again))
    return [next(made) if want else None for want in wanted[: len(elements)]]


def _parts(
    weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: Sequence[int]
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    # Of the first axis of the weight, so that what is made on the way stays in cache.
    rows = weight.shape[0] if weight.dim() > 1 else 1
    step = max(1, PART_CELLS // max(1, weight.numel() // max(1, rows) * max(sizes)))
    if step >= rows:
        return [(weight, position, inverse)]
    inverses = [None] * rows if inverse is None else torch.split(inverse, step, 1)
    return list(zip(torch.split(weight, step), torch.split(position, step, 1), inverses, strict=False))


def _gradients(
    weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: tuple[int, ...], profile: Profile, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
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
    to_inverse = None if inverse is None else torch.empty_like(inverse)
    least = torch.finfo(position.dtype).tiny
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
        if inverse is not None and to_inverse is not None:
            # At an infinite scale both are 0, as is the gradient of sigma.
            to_inverse[axis] = (to_distance * distance).sum(-1) / inverse[axis].clamp_min(least)
    return to_weight, to_position, to_inverse
