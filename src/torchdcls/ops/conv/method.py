"""The record of a method of convolution: its three maps, what it cannot run, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .problem import Map, Problem

# What is computed at once: a map, or both gradients of a convolution.
Part = Map | Literal["gradients"]


def nothing_against(problem: Problem) -> str | None:
    """No reason against any problem."""
    return None


@dataclass(frozen=True)
class Method:
    """A method of convolution. Tensors are plain, of one dtype and device; `problem` holds their sizes.

    Args:
        name: The value of `method=`.
        convolve: Output of (input, weight, bias or None, problem).
        transpose: Gradient of the input, of (gradient of the output, weight, problem).
        correlate: Gradient of the weight, of (input, gradient of the output, problem).
        gradients: Both gradients of (input, weight, gradient, problem), if together they are less work.
        unsupported: Why it cannot run a problem, or None. Naming the method then raises an error with this reason.
        undesired: Why "auto" does not take it although it can run, or None.
        operations: How many of which operations a part takes; `rates.json` has the nanoseconds of each, on CPU.
        handicap: Factor on its expected time when "auto" compares.
        own_half: Whether it takes float16 and bfloat16, and sums in float32. Other methods are given float32.
        any_size: Whether one node of a compiled graph serves maps of any size.
        caution: What `explain_method` says about its results.
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
