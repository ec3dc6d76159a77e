"""Launches of the device code that makes kernels out of elements, and their gradients."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...profiles import Profile
from ..gpu import current
from ..tracing import as_read
from . import kernels
from .support import block

# Enough to keep everything that `can_construct` accepts in registers.
WARPS = 4


def construct(weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile) -> Tensor:
    """The kernel of `kernel.learned_kernel`, for what `support.can_construct`."""
    kernel = weight.new_empty((*weight.shape[:-1], *sizes))
    _launch(kernels.construct, (weight, position, sigma), (kernel,), sizes, profile)
    return kernel


def gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `construct` to weight, position and sigma."""
    made = tuple(None if each is None else each.new_empty(each.shape) for each in (weight, position, sigma))
    _launch(kernels.construct_gradients, (weight, position, sigma, gradient), made, sizes, profile)
    return made


def constants(elements: int, sizes: Sequence[int], profile: Profile, scales: bool) -> dict[str, Any]:
    """The constants of a program."""
    rows, columns = _both_axes(sizes)
    return {
        "TWO": len(sizes) == 2,
        "SCALES": scales,
        "SMALLEST": profile.smallest_scale,
        "GAUSSIAN": profile.device_form == "gaussian",
        "ELEMENTS": block(elements),
        "DOWN": block(rows),
        "ACROSS": block(columns),
    }


def _launch(
    function: Any, read: Sequence[Tensor | None], made: Sequence[Tensor | None], sizes: Sequence[int], profile: Profile
) -> None:
    # A program for each kernel reads weight, position and sigma, and others. Without sigma its pointers are not used.
    weight, _, sigma, *_ = read
    assert weight is not None
    elements, count = weight.shape[-1], weight.shape[:-1].numel()
    if count:
        with current(weight.device):
            tensors = *(None if each is None else as_read(each) for each in read), *made
            known = constants(elements, sizes, profile, sigma is not None)
            numbers = elements, *_both_axes(sizes), weight.numel()
            function[(count,)](
                *(weight if each is None else each for each in tensors), *numbers, **known, num_warps=WARPS
            )


def _both_axes(sizes: Sequence[int]) -> tuple[int, int]:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
