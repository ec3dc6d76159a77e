"""Launches of the device code that makes kernels out of elements, and their gradients."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...profiles import Profile
from ..gpu import current
from ..tracing import as_read
from . import kernels
from .support import block

# Enough for what `can_construct` lets through to stay in registers.
WARPS = 4


def construct(
    weight: Tensor, position: Tensor, inverse: Tensor | None, sizes: Sequence[int], profile: Profile, epsilon: float
) -> Tensor:
    """What `separable_kernel` gives, for what `support.can_construct`; `epsilon` is added to the mass of an element."""
    weight, position, inverse = as_read(weight), as_read(position), None if inverse is None else as_read(inverse)
    kernel = weight.new_empty((*weight.shape[:-1], *sizes))
    tensors = weight, position, weight if inverse is None else inverse, kernel
    _launch(
        kernels.construct, tensors, sizes, constants(weight.shape[-1], sizes, profile, inverse is not None, epsilon)
    )
    return kernel


def gradients(
    weight: Tensor,
    position: Tensor,
    inverse: Tensor | None,
    sizes: Sequence[int],
    profile: Profile,
    epsilon: float,
    gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `construct` to weight, position and inverse; `gradient` is without gaps."""
    weight, position, inverse = as_read(weight), as_read(position), None if inverse is None else as_read(inverse)
    to_weight, to_position = torch.empty_like(weight), torch.empty_like(position)
    to_inverse = None if inverse is None else torch.empty_like(inverse)
    given = weight, position, weight if inverse is None else inverse, gradient
    made = to_weight, to_position, to_weight if to_inverse is None else to_inverse
    known = constants(weight.shape[-1], sizes, profile, inverse is not None, epsilon)
    _launch(kernels.construct_gradients, (*given, *made), sizes, known)
    return to_weight, to_position, to_inverse


def constants(elements: int, sizes: Sequence[int], profile: Profile, scales: bool, epsilon: float) -> dict[str, Any]:
    """What programs are compiled for."""
    rows, columns = _both_axes(sizes)
    return {
        "TWO": len(sizes) == 2,
        "SCALES": scales,
        "INVERSE": 1 / profile.smallest_scale,
        "GAUSSIAN": profile.device_form == "gaussian",
        # As in `gaussian`: where the product of two factors would leave the range of normal numbers.
        "LEAST": 1.001 * math.sqrt(torch.finfo(torch.float32).tiny),
        "EPSILON": epsilon,
        "ELEMENTS": block(elements),
        "DOWN": block(rows),
        "ACROSS": block(columns),
    }


def _launch(function: Any, tensors: Sequence[Tensor], sizes: Sequence[int], known: dict[str, Any]) -> None:
    # A program a kernel. The first tensor holds the weights, (..., elements).
    weight = tensors[0]
    count = math.prod(weight.shape[:-1])
    if count:
        with current(weight.device):
            numbers = weight.shape[-1], *_both_axes(sizes), weight.numel()
            function[(count,)](*tensors, *numbers, **known, num_warps=WARPS)


def _both_axes(sizes: Sequence[int]) -> tuple[int, int]:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
