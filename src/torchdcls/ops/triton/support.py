"""Where Triton's programs can run, and which kernels are made by them."""

import math
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ...profiles import Profile
from ..tracing import constant_when_compiled

# Of NVIDIA GPUs: those with matrix products of bfloat16.
LEAST_CAPABILITY = (8, 0)
# What a program of one kernel keeps in registers: the kernel's cells, and the factors of all elements along an axis.
MOST_CELLS, MOST_FACTORS = 2**10, 2**11


def can_construct(weight: Tensor, sizes: Sequence[int], profile: Profile) -> bool:
    """Whether kernels of these elements are made by Triton: on GPUs, in float32, of a profile with a device form."""
    return (
        weight.device.type == "cuda"
        and weight.dtype == torch.float32
        and len(sizes) <= 2
        and math.prod(map(block, sizes)) <= MOST_CELLS
        and block(weight.shape[-1]) * block(max(sizes)) <= MOST_FACTORS
        and profile.device_form is not None
        and missing("cuda") is None
    )


def block(size: int) -> int:
    """The power of two that holds a size; matrix products have no fewer than 16 rows and columns."""
    return max(16, 1 << (size - 1).bit_length())


@constant_when_compiled
def missing(device: str) -> str | None:
    """Why Triton's programs cannot run on a device, or None if they can."""
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


def interpreted() -> bool:
    """Whether Triton's programs run in its interpreter, on CPU tensors: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@cache  # it looks through all of the search path
def _installed() -> bool:
    return find_spec("triton") is not None


@cache  # asking takes longer than all else that is checked
def _too_old() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < LEAST_CAPABILITY
