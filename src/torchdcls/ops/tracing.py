"""Whether tensors are plain numbers in memory, and what a compiler takes for a constant."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def special_tensors() -> bool:
    """Whether a compiler traces tensors now, or they carry more than numbers (torch.func, forward differentiation)."""
    return (
        torch.compiler.is_compiling()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
    )


def constant_when_compiled(function: Function) -> Function:
    """Has `torch.compile` call a function of constants while it traces, and keep what it gives.

    What `torch.compiler.assume_constant_result` does, without importing the compiler together with this package.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
