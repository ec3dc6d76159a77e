"""Which convolutions the Triton method can run."""

import torch

from ...gpu import missing
from ..problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def unsupported(problem: Problem) -> str | None:
    """Why Triton cannot run a depthwise problem, or None if it can."""
    if len(problem.kernel) == 3:
        return "it convolves along one or two axes, and the kernel has three"
    if any(step != 1 for step in problem.stride):
        waste = "spread the input among zeros" if problem.transposed else "throw most of them away"
        return f"it makes every output, and stride {problem.stride} would {waste}"
    if problem.dtype not in DTYPES:
        return f"it knows no {problem.dtype}"
    if torch.autograd.forward_ad._current_level >= 0:
        return "it has no forward-mode derivative"
    return missing(problem.device)
