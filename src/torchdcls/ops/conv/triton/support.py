"""Which convolutions the Triton method can run, and which are expected to pay."""

import torch

from ...gpu import missing
from ...tracing import differentiated_forwards
from ..operators import not_depthwise
from ..problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Taps along the longer axis between which "auto" takes it on CUDA: what counts of operations and bytes let expect, not
# a measurement.
LEAST_LENGTH, MOST_LENGTH = 9, 63


def unsupported(problem: Problem) -> str | None:
    """Why Triton cannot run a problem, or None if it can."""
    if not problem.depthwise:
        return not_depthwise(problem)
    if len(problem.kernel) == 3:
        return "it convolves along one or two axes, and the kernel has three"
    if any(step != 1 for step in problem.stride):
        return f"it makes every output, and stride {problem.stride} leaves most of them out"
    if problem.dtype not in DTYPES:
        return f"it knows no {problem.dtype}"
    if differentiated_forwards():
        return "it has no forward-mode derivative"
    return missing(problem.device)


def undesired(problem: Problem) -> str | None:
    """Why "auto" leaves Triton out although it can run, or None."""
    longest = max(problem.kernel)
    if problem.device == "cpu":
        return "its interpreter is for tests"
    if longest < LEAST_LENGTH:
        return f"torch's own is expected to be faster below {LEAST_LENGTH} taps along an axis"
    if longest > MOST_LENGTH:
        return f"spectra are expected to be faster beyond {MOST_LENGTH} taps along an axis"
    return None
