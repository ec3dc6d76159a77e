"""Whether tensors are plain numbers in memory, and what a compiler takes for a constant."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def special_tensors() -> bool:
    """Whether a compiler traces tensors now, or they carry more than numbers (torch.func, forward differentiation)."""
    return torch.compiler.is_compiling() or wrapped_tensors()


def wrapped_tensors() -> bool:
    """Whether operations give tensors now that must not be kept: duals, torch.func's, those without numbers (fake)."""
    return (
        torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    )


def sizes_are_known(sizes: Sequence[int]) -> bool:
    """Whether these are numbers, and do not stand for whatever a compiled graph or an exported program will meet."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value  # comes with the compiler

    return not torch.compiler.is_exporting() and all(has_static_value(size) for size in sizes)


def constant_when_compiled(function: Function) -> Function:
    """Has `torch.compile` call a function of constants while it traces, and keep what it gives.

    What `torch.compiler.assume_constant_result` does, without importing the compiler together with this package.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
