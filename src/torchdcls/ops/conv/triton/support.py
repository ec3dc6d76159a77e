"""What the Triton method can run, and where."""

import os
from functools import cache
from importlib.util import find_spec

import torch

from ...tracing import constant_when_compiled
from ..problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Of NVIDIA GPUs: those with matrix products of bfloat16.
LEAST_CAPABILITY = (8, 0)


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
    return _missing(problem.device)


@constant_when_compiled
def _missing(device: str) -> str | None:
    if not _installed():
        return "Triton is not installed (it comes with torch for CUDA)"
    if device == "cpu":
        return None if interpreted() else "on CPU it runs under Triton's interpreter alone (TRITON_INTERPRET=1)"
    if device == "meta":
        return None
    if torch.version.hip is not None:
        return "it is made for NVIDIA GPUs"
    if device != "cuda":
        return f"it runs on CUDA, not on {device}"
    if _too_old():
        major, minor = LEAST_CAPABILITY
        return f"it needs a GPU of compute capability {major}.{minor} or above"
    return None


@cache  # it looks through all of the search path
def _installed() -> bool:
    return find_spec("triton") is not None


@cache  # asking takes longer than all else that is checked
def _too_old() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < LEAST_CAPABILITY


def interpreted() -> bool:
    """Whether Triton's programs run in its interpreter, on CPU tensors: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
