"""Kernels and their gradients on CPU, each by one call of the compiled library, without intermediate tensors."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..profiles import Profile
from .native.library import LENGTH, library, missing
from .separable import EPSILON
from .tracing import as_read, define_operator, numbers_when_run

# What `csrc/torchdcls.h` calls them.
FORMS = {"triangle": 0, "gaussian": 1}
MOST_AXES = 3


class _Elements(ctypes.Structure):
    # A `td_elements`.
    _fields_ = (
        *((name, LENGTH) for name in ("profile", "kernels", "count", "axes")),
        ("size", LENGTH * MOST_AXES),
        *((name, ctypes.c_double) for name in ("smallest_scale", "epsilon")),
        *((name, ctypes.c_void_p) for name in ("weight", "position", "sigma")),
    )


def can_fuse(weight: Tensor, position: Tensor, sigma: Tensor | None, profile: Profile) -> bool:
    """Whether the compiled library can make the kernel: on CPU, of up to 3 axes, with a known device form."""
    return (
        weight.device.type == "cpu"
        and profile.device_form in FORMS
        and missing() is None
        and numbers_when_run(weight, position, sigma)
        and weight.shape[-1] > 0
        and position.shape[0] <= MOST_AXES
    )


def construct(weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile) -> Tensor:
    """The kernel of `kernel.learned_kernel`, for what `can_fuse`."""
    # Torch's compiler sees an operator; called from Python, one would take longer than a small kernel.
    make = torch.ops.torchdcls.construct_kernel if torch.compiler.is_compiling() else _construct
    kernel: Tensor = make(weight, position, sigma, sizes, profile.device_form, profile.smallest_scale)
    return kernel


def gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `construct` to weight, position and sigma."""
    make = torch.ops.torchdcls.construct_kernel_gradients if torch.compiler.is_compiling() else _gradients
    made = make(weight, position, sigma, gradient, sizes, profile.device_form, profile.smallest_scale)
    return *made, *([None] if sigma is None else [])


# Arguments are those of the schemas below: the elements, then the settings.
def _construct(*arguments: Any) -> Tensor:
    kernel = _like_kernel(*arguments)
    _call("td_construct", *arguments, kernel)
    return kernel


def _gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, gradient: Tensor, *settings: Any
) -> list[Tensor]:
    made = _like_gradients(weight, position, sigma, gradient, *settings)
    others = as_read(gradient), *made, *([None] if sigma is None else [])
    _call("td_construct_gradients", weight, position, sigma, *settings, *others)
    return made


def _call(name: str, *arguments: Any) -> None:
    elements, (sizes, form, smallest_scale), others = arguments[:3], arguments[3:6], arguments[6:]
    read = [None if tensor is None else as_read(tensor) for tensor in elements]
    weight = read[0]
    assert weight is not None
    described = _Elements(
        *(FORMS[form], weight.shape[:-1].numel(), weight.shape[-1], len(sizes)),
        *((LENGTH * MOST_AXES)(*sizes), smallest_scale, EPSILON),
        *map(_pointer, read),
    )
    call = getattr(library(), name)
    if call(weight.dtype == torch.float64, ctypes.byref(described), *map(_pointer, others)):
        raise RuntimeError(f"out of memory: the compiled library could not hold kernels of {tuple(sizes)}")


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _like_kernel(weight: Tensor, position: Tensor, sigma: Tensor | None, *settings: Any) -> Tensor:
    return weight.new_empty(_checked_shape(weight, position, sigma, *settings))


def _like_gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, gradient: Tensor, *settings: Any
) -> list[Tensor]:
    _check_like(weight, _checked_shape(weight, position, sigma, *settings), gradient=gradient)
    return [tensor.new_empty(tensor.shape) for tensor in (weight, position, sigma) if tensor is not None]


def _checked_shape(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], form: str, smallest_scale: float
) -> tuple[int, ...]:
    # Of the kernel.
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"weight: expected torch.float32 or torch.float64, got {weight.dtype}")
    if weight.dim() == 0 or weight.shape[-1] == 0:
        raise ValueError(f"weight: expected shape (..., n) of at least one element, got {tuple(weight.shape)}")
    if not 1 <= len(sizes) <= MOST_AXES or min(sizes) < 1:
        raise ValueError(f"sizes: expected 1 to {MOST_AXES} integers of at least 1, got {tuple(sizes)}")
    if form not in FORMS:
        raise ValueError(f"form: expected {' or '.join(map(repr, FORMS))}, got {form!r}")
    _check_like(weight, (len(sizes), *weight.shape), position=position, sigma=sigma)
    return (*weight.shape[:-1], *sizes)


def _check_like(weight: Tensor, shape: tuple[int, ...], **tensors: Tensor | None) -> None:
    dtype, device = weight.dtype, weight.device
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype or tensor.device != device):
            expected, got = (f"{one.dtype} on {one.device}" for one in (weight, tensor))
            raise ValueError(f"{name}: expected shape {shape}, {expected}, got {tuple(tensor.shape)}, {got}")


_ELEMENTS, _SETTINGS = "Tensor weight, Tensor position, Tensor? sigma", "int[] sizes, str form, float smallest_scale"
define_operator(f"construct_kernel({_ELEMENTS}, {_SETTINGS}) -> Tensor", _construct, _like_kernel)
define_operator(
    f"construct_kernel_gradients({_ELEMENTS}, Tensor gradient, {_SETTINGS}) -> Tensor[]", _gradients, _like_gradients
)
