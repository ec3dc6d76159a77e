"""All methods of convolution. A new one is a file that ends with its record, and an entry here."""

from typing import Literal

from .direct import DIRECT
from .fft import FFT
from .method import Method
from .native import NATIVE
from .triton import TRITON

# The first is torch's own: it runs whatever torch runs. On CUDA `auto` takes the last with no reason against it.
METHODS: tuple[Method, ...] = (DIRECT, NATIVE, FFT, TRITON)
# What `method=` accepts.
MethodName = Literal["auto", "direct", "native", "fft", "triton"]
METHOD_NAMES: tuple[str, ...] = ("auto", *(method.name for method in METHODS))


def named(name: str) -> Method:
    """The record of this name."""
    return next(method for method in METHODS if method.name == name)
