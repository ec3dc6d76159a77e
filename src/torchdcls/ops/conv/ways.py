"""All ways to convolve. One more is a file with its record, and its name here."""

from typing import Literal

from .direct import DIRECT
from .fft import FFT
from .native import NATIVE
from .triton import TRITON
from .way import Way

# The first is torch's own: it runs whatever torch runs, and is what one would have had.
WAYS: tuple[Way, ...] = (DIRECT, NATIVE, FFT, TRITON)
# What a caller may say.
Method = Literal["auto", "direct", "native", "fft", "triton"]
METHODS: tuple[str, ...] = ("auto", *(way.name for way in WAYS))


def named(name: str) -> Way:
    """The way to convolve of that name."""
    return next(way for way in WAYS if way.name == name)
