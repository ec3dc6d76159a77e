"""Where Triton's programs can run: for making kernels and for convolving."""

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch

from .caches import cached
from .tracing import constant_when_compiled

# The first NVIDIA GPUs with matrix products of bfloat16.
LEAST_CAPABILITY = (8, 0)


@constant_when_compiled
def missing(device: str) -> str | None:
    """Why Triton's programs cannot run on a device, or None if they can."""
    if device == "cpu" and not interpreted():
        return "on CPU it runs only in Triton's interpreter (TRITON_INTERPRET=1)"
    if not _installed():
        return "Triton is not installed (it comes with torch for CUDA)"
    if device in ("cpu", "meta"):
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


def current(device: torch.device) -> AbstractContextManager[object]:
    """A context that makes a device the current one, on which Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def power_above(size: int) -> int:
    """The smallest power of two of at least `size`."""
    return 1 << max(0, size - 1).bit_length()


@cached(maxsize=1)  # it looks through all of the search path
def _installed() -> bool:
    return find_spec("triton") is not None


@cached(maxsize=1)  # asking takes longer than all else that is checked
def _too_old() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < LEAST_CAPABILITY
