"""Which kernels Triton makes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...profiles import Profile
from ..gpu import missing, power_above

# The forms of `kernels` with GAUSSIAN and without.
FORMS = ("gaussian", "triangle")
# Limits of what a program keeps in registers: the cells of its kernel, and the factors of all elements along an axis.
MOST_CELLS, MOST_FACTORS = 2**10, 2**11


def can_construct(weight: Tensor, sizes: Sequence[int], profile: Profile) -> bool:
    """Whether Triton makes kernels of these elements: on GPUs, in float32, with a known device form."""
    return (
        weight.device.type == "cuda"
        and weight.dtype == torch.float32
        and len(sizes) <= 2
        and math.prod(map(block, sizes)) <= MOST_CELLS
        and block(weight.shape[-1]) * block(max(sizes)) <= MOST_FACTORS
        and profile.device_form in FORMS
        and missing("cuda") is None
    )


def block(size: int) -> int:
    """The next power of two, at least the 16 rows and columns of a matrix product."""
    return max(16, power_above(size))
