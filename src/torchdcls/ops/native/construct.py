"""Kernels out of elements, and their gradients, by the compiled library: one call, and no tensor but its results."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...profiles import PROFILES, Profile, gaussian
from ..separable import EPSILON, separable_kernel
from ..tracing import constant_when_compiled, special_tensors
from .library import LENGTH, library

_LIBRARY: Any = torch.library.Library("torchdcls", "FRAGMENT")  # type: ignore[no-untyped-call]


class _Elements(ctypes.Structure):
    # A `td_elements`.
    _fields_ = (
        *((name, LENGTH) for name in ("profile", "kernels", "count", "axes")),
        ("size", LENGTH * 3),
        ("smallest_scale", ctypes.c_double),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("weight", "position", "sigma")),
    )


def can_construct(weight: Tensor, position: Tensor, sigma: Tensor | None, profile: Profile) -> bool:
    """Whether kernels of these elements are made by the compiled library: on CPU, of the package's interpolations.

    Where tensors are no numbers in memory (exported, traced, transformed by torch.func) torch's operators serve.
    """
    there = weight.device.type == "cpu" and weight.shape[-1] > 0
    return there and profile in PROFILES.values() and _usable(weight, position, sigma)


def _usable(*tensors: Tensor | None) -> bool:
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting() and _usable_when_compiled()
    known = Tensor, torch.nn.Parameter
    plain = all(tensor is None or type(tensor) in known for tensor in tensors)
    return plain and library() is not None and not special_tensors()


@constant_when_compiled
def _usable_when_compiled() -> bool:
    transformed = torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
    return library() is not None and not transformed


def native_kernel(
    weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: Profile
) -> Tensor:
    """Kernel over the learned axes, for what `can_construct`.

    Args:
        weight: (..., n), float32 or float64, as all tensors.
        position: (axes, ..., n). Unit: grid cells.
        sigma: The shape of `position`; None for the profile's smallest scale.
        sizes: Cells along each axis.
        profile: One of the package's interpolations.

    Returns:
        (..., *sizes).

    Gradients:
        To weight, position and sigma, of any order.
    """
    kernel: Tensor = _Native.apply(weight, position, sigma, tuple(sizes), profile)  # type: ignore[no-untyped-call]
    return kernel


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: tuple[int, ...], profile: Profile
    ) -> Tensor:
        ctx.save_for_backward(weight, position, sigma)
        ctx.sizes, ctx.profile = sizes, profile
        make = torch.ops.torchdcls.construct_kernel if torch.compiler.is_compiling() else _construct
        kernel: Tensor = make(weight, position, sigma, sizes, profile.name)
        return kernel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, position, sigma = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A gradient that is differentiated again goes through torch's operators.
            inverse = None if sigma is None else 1 / ctx.profile.scale(sigma)
            kernel = separable_kernel(weight, position, inverse, ctx.sizes, ctx.profile)
            wanted = ctx.needs_input_grad
            leaves = [tensor for tensor, want in zip(ctx.saved_tensors, wanted, strict=False) if want]
            made = iter(torch.autograd.grad(kernel, leaves, gradients, create_graph=True))
            return *(next(made) if want else None for want in wanted[:3]), None, None
        compiling = torch.compiler.is_compiling()
        differentiate = torch.ops.torchdcls.construct_kernel_gradients if compiling else _differentiate
        to_weight, to_position, *to_sigma = differentiate(
            weight, position, sigma, gradients[0], ctx.sizes, ctx.profile.name
        )
        return to_weight, to_position, to_sigma[0] if to_sigma else None, None, None


def _construct(weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: str) -> Tensor:
    kernel = _made_kernel(weight, position, sigma, sizes, profile)
    weight, position, sigma = _contiguous(weight, position, sigma)
    _call("td_construct", weight, position, sigma, sizes, profile, kernel)
    return kernel


def _differentiate(
    weight: Tensor, position: Tensor, sigma: Tensor | None, gradient: Tensor, sizes: Sequence[int], profile: str
) -> list[Tensor]:
    made = _made_gradients(weight, position, sigma, gradient, sizes, profile)
    weight, position, sigma = _contiguous(weight, position, sigma)
    _call("td_construct_gradients", weight, position, sigma, sizes, profile, gradient.contiguous(), *made)
    return made


def _call(
    name: str,
    weight: Tensor,
    position: Tensor,
    sigma: Tensor | None,
    sizes: Sequence[int],
    profile: str,
    *others: Tensor,
) -> None:
    kernels, count = weight.shape[:-1].numel(), weight.shape[-1]
    known = PROFILES[profile]
    elements = _Elements(
        known.function is gaussian,
        *(kernels, count, len(sizes), (LENGTH * 3)(*sizes)),
        *(known.smallest_scale, EPSILON),
        *(None if tensor is None else tensor.data_ptr() for tensor in (weight, position, sigma)),
    )
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in others]
    if sigma is None and len(others) > 1:
        pointers.append(ctypes.c_void_p())
    if getattr(library(), name)(weight.dtype == torch.float64, ctypes.byref(elements), *pointers):
        raise MemoryError(f"{name}: no memory for a kernel of size {tuple(sizes)}")


def _contiguous(weight: Tensor, position: Tensor, sigma: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return weight.contiguous(), position.contiguous(), None if sigma is None else sigma.contiguous()


# What the operators make, without making it: for torch's compiler.


def _made_kernel(weight: Tensor, position: Tensor, sigma: Tensor | None, sizes: Sequence[int], profile: str) -> Tensor:
    return weight.new_empty((*weight.shape[:-1], *sizes))


def _made_gradients(
    weight: Tensor, position: Tensor, sigma: Tensor | None, gradient: Tensor, sizes: Sequence[int], profile: str
) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (weight, position, sigma) if tensor is not None]


def _register(name: str, arguments: str, run: Any, made: Any) -> None:
    _LIBRARY.define(f"{name}({arguments}")
    _LIBRARY.impl(name, run, "CPU")
    torch.library.register_fake(f"torchdcls::{name}", made, lib=_LIBRARY)


_TENSORS = "Tensor weight, Tensor position, Tensor? sigma"
_register("construct_kernel", f"{_TENSORS}, int[] sizes, str profile) -> Tensor", _construct, _made_kernel)
_register(
    "construct_kernel_gradients",
    f"{_TENSORS}, Tensor gradient, int[] sizes, str profile) -> Tensor[]",
    _differentiate,
    _made_gradients,
)
