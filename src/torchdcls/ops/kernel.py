"""Making a dense kernel out of elements, for any number of axes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from ..profiles import Interpolation, Profile
from . import fused, separable
from .autocast import autocast_disabled
from .fused import can_fuse
from .tracing import numbers_when_run, shape_of, special_tensors, with_numbers
from .triton.support import can_construct


def construct_kernel(
    weight: Tensor,
    position: Tensor,
    sigma: Tensor | None,
    size: int | Sequence[int],
    interpolation: Interpolation | Profile = "gaussian",
    *,
    learned_dims: Sequence[int] | None = None,
) -> Tensor:
    """Constructs the dense kernel of elements at real-valued positions.

    With `g` the profile, `c = size // 2` the origin, and all products over the learned axes `d`:

        kernel[x] = sum_k weight[k] * prod_d g((x_d - c_d - position[d, k]) / scale[d, k])
                    / (1e-7 + the same product, summed over the grid)

    Both products separate over the axes: the kernel is a batched matrix product of one factor per axis. No tensor of
    kernel size times kernel count is made.

    Args:
        weight: (out_channels, in_channels/groups, *dense sizes, kernel_count). Dense sizes are those of the axes that
            are not learned, each tap of which has elements of its own.
        position: (learned axes, *weight.shape). Unit: grid cells; origin: cell `size // 2`. Along an axis of size `s`
            the grid is [-(s // 2), s - 1 - s // 2]. Axes in torch's order: depth, height, width.
        sigma: The shape of `position`; scale is the profile's smallest scale plus |sigma|. None for "bilinear".
        size: Kernel size, one integer for all axes or one per axis, dense axes included.
        interpolation: "bilinear", "triangle", "gaussian" or a `torchdcls.Profile`.
        learned_dims: Axes along which positions are learned, ascending as in `position`. None: all.

    Returns:
        (out_channels, in_channels/groups, *size), dtype of `weight`. Computed in float32 at least, also under autocast.

    Raises:
        ValueError: Shapes or sizes that do not fit, or an unknown interpolation.
        TypeError: An argument of a wrong type.

    Gradients:
        To weight, position and sigma, of any order.

    Source:
        Khalfaoui-Hassani et al., arXiv:2306.00817, sections 2 and 3; arXiv:2112.03740 for "bilinear".

    Example:
        >>> import torch
        >>> weight, position = torch.ones(1, 1, 1), torch.tensor([[[[0.5]]], [[[-1.0]]]])
        >>> construct_kernel(weight, position, None, 3, "bilinear")[0, 0]
        tensor([[0.0000, 0.0000, 0.0000],
                [0.5000, 0.0000, 0.0000],
                [0.5000, 0.0000, 0.0000]])
    """
    profile = _checks.profile(interpolation)
    _checks.tensors(weight=weight, position=position, sigma=sigma, optional=("sigma",))
    if not isinstance(size, Sequence):
        size = _checks.integers("size", size, element_axes(weight, position), 1)
    size = _checks.integers("size", size, max(len(size), 1), 1)
    learned = _checks.axes(learned_dims, len(size))
    dense = tuple(dim for dim in range(len(size)) if dim not in learned)
    dense_sizes = tuple(size[dim] for dim in dense)
    with_numbers(_checks.elements, weight, position, sigma, len(learned), dense_sizes, profile)

    with autocast_disabled(weight.device.type):
        dtype = torch.promote_types(torch.promote_types(weight.dtype, position.dtype), torch.float32)
        own_weight, position = weight.to(dtype), position.to(dtype)
        sigma = None if sigma is None else sigma.to(dtype)
        kernel = learned_kernel(own_weight, position, sigma, tuple(size[dim] for dim in learned), profile)
        # (out, in/groups, *dense, *learned) -> axes in their own order.
        kernel = kernel.permute(0, 1, *(2 + (*dense, *learned).index(dim) for dim in range(len(size))))
        return kernel.to(weight.dtype).contiguous()


def learned_kernel(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: tuple[int, ...], profile: Profile
) -> Tensor:
    """The kernel over the learned axes, (..., *sizes), of weight (..., n), and position and sigma (axes, ..., n)."""
    fuses = can_fuse(weight, position, sigma, profile)
    if not fuses and special_tensors():
        return separable.separable_kernel(weight, position, sigma, sizes, profile)
    kernel: Tensor = _Kernel.apply(weight, position, sigma, sizes, profile, fuses)  # type: ignore[no-untyped-call]
    return kernel


class _Kernel(torch.autograd.Function):
    # Keeps the elements alone: to make the factors again costs less than to keep them.
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        position: Tensor,
        sigma: Tensor | None,
        sizes: tuple[int, ...],
        profile: Profile,
        fuses: bool,
    ) -> Tensor:
        ctx.save_for_backward(weight, position, sigma)
        ctx.sizes, ctx.profile, ctx.fuses = sizes, profile, fuses
        maker = fused if fuses else _other_maker(weight, sizes, profile)
        kernel: Tensor = maker.construct(weight, position, sigma, sizes, profile)
        return kernel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, position, sigma = ctx.saved_tensors
        if not torch.is_grad_enabled() and numbers_when_run(*gradients):
            maker = fused if ctx.fuses else _other_maker(weight, ctx.sizes, ctx.profile)
            settings = ctx.sizes, ctx.profile, *gradients
            return *maker.gradients(weight, position, sigma, *settings), None, None, None
        # Gradients that are differentiated again, or are more than numbers, go through the steps.
        again, wanted = torch.is_grad_enabled(), ctx.needs_input_grad[:3]
        with torch.enable_grad():
            kernel = separable.separable_kernel(weight, position, sigma, ctx.sizes, ctx.profile)
        leaves = [tensor for tensor, want in zip((weight, position, sigma), wanted, strict=True) if want]
        made = iter(torch.autograd.grad(kernel, leaves, gradients, create_graph=again))
        return *(next(made) if want else None for want in wanted), None, None, None


def _other_maker(weight: Tensor, sizes: tuple[int, ...], profile: Profile) -> Any:
    # A module with `construct` and `gradients`, as `fused` is.
    if can_construct(weight, sizes, profile):
        from .triton import launch

        return launch
    return separable


def element_axes(weight: Tensor, position: Tensor) -> int:
    """The number of a kernel's axes, learned and dense, by the shapes of its elements; at least 1."""
    _checks.tensors(weight=weight, position=position)
    # weight: two axes of channels, the dense axes, the elements; position: the learned axes.
    return max(shape_of(position)[0] + weight.dim() - 3, 1) if position.dim() and weight.dim() > 2 else 1


def clamp_position_(position: Tensor, size: Sequence[int]) -> Tensor:
    """Moves positions, (learned axes, ...), that are off the grid of this size to its nearest edge, in place."""
    with torch.no_grad():
        for axis, cells in enumerate(size):
            position[axis].clamp_(-(cells // 2), cells - 1 - cells // 2)
    return position
