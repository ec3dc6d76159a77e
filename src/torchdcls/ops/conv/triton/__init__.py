"""Depthwise convolution in Triton: `method="triton"`.

Device code (`kernels`), how work is divided among programs (`configurations`), which division is taken (`tuning`),
launches (`launch`), and its record (`method`). The first launch imports Triton.
"""

from .configurations import Banded, BandedWeightGradient, Multiplied
from .method import TRITON
from .tuning import pinned

__all__ = ["TRITON", "Banded", "BandedWeightGradient", "Multiplied", "pinned"]
