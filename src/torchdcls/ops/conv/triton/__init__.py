"""Depthwise convolution in Triton: `method="triton"`.

Device code (`kernels`), how work is divided among programs (`configurations`), which division is taken (`tuning`),
launches (`launch`), and its record (`way`). The first launch imports Triton.
"""

from .configurations import Banded, BandedWeightGradient, Multiplied
from .tuning import pinned
from .way import TRITON

__all__ = ["TRITON", "Banded", "BandedWeightGradient", "Multiplied", "pinned"]
