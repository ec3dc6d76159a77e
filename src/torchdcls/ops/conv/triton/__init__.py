"""Depthwise convolution in Triton: `method="triton"`.

Device code (`kernels`), how work is divided among programs (`configurations`), which division is taken (`tuning`),
launches (`launch`), and the operators that torch's compiler sees (`operators`). The first launch imports Triton.
"""

from .configurations import Banded, BandedWeightGradient, Multiplied
from .tuning import pinned

__all__ = ["Banded", "BandedWeightGradient", "Multiplied", "pinned"]
