"""The record of a method of convolution: its three maps, what it cannot run, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .problem import Map, Problem

# What is made at once: a map, or both gradients of a convolution.
Part = Map | Literal["gradients"]


def nothing_against(problem: Problem) -> str | None:
    """The reason against a problem of a method that has none."""
    return None


@dataclass(frozen=True)
class Method:
    """A method of convolution. Tensors are plain, of one dtype and device; `problem` holds their sizes.

    Args:
        name: What a caller says.
        convolve: Output of (input, weight, bias or None, problem).
        transpose: Gradient of the input, of (gradient of the output, weight, problem).
        correlate: Gradient of the weight, of (input, gradient of the output, problem).
        gradients: Both gradients of (input, weight, gradient, problem), where that is less work than one and the other.
        unsupported: Why it cannot run a problem, or None; also the error of a caller who names it.
        undesired: Why "auto" leaves it out although it can, or None.
        operations: Names and numbers of the operations of a part; `rates.json` has nanoseconds of each, on CPU.
        handicap: Factor on what is expected of it, before it is compared.
        own_half: Whether it takes float16 and bfloat16 as they come, and sums in float32. Others are given float32.
        any_size: Whether one node of a compiled graph serves maps of any size.
        caution: What a caller should know of its results.
    """

    name: str
    convolve: Callable[[Tensor, Tensor, Tensor | None, Problem], Tensor]
    transpose: Callable[[Tensor, Tensor, Problem], Tensor]
    correlate: Callable[[Tensor, Tensor, Problem], Tensor]
    gradients: Callable[[Tensor, Tensor, Tensor, Problem], tuple[Tensor, Tensor]] | None = None
    unsupported: Callable[[Problem], str | None] = nothing_against
    undesired: Callable[[Problem], str | None] = nothing_against
    operations: Callable[[Problem, Part], dict[str, float]] | None = None
    handicap: float = 1.0
    own_half: bool = False
    any_size: bool = False
    caution: str = ""
