"""Depthwise convolution in Triton: `method="triton"`.

`kernels` has the device code, `configurations` the ways to divide work among programs, `tuning` the choice among these,
`launch` the launches, and `method` the record. The first launch imports Triton.
"""

from .configurations import Banded, BandedWeightGradient, Multiplied
from .method import TRITON
from .tuning import pinned

__all__ = ["TRITON", "Banded", "BandedWeightGradient", "Multiplied", "pinned"]
