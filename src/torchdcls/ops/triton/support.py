"""Which kernels are made by Triton."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...profiles import Profile
from ..gpu import missing, power_above

# What `kernels` calls GAUSSIAN, and what it is otherwise.
FORMS = ("gaussian", "triangle")
# What a program of one kernel keeps in registers: the kernel's cells, and the factors of all elements along an axis.
MOST_CELLS, MOST_FACTORS = 2**10, 2**11


def can_construct(weight: Tensor, sizes: Sequence[int], profile: Profile) -> bool:
    """Whether kernels of these elements are made by Triton: on GPUs, in float32, of a known device form."""
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
    """The power of two that holds a size; matrix products have no fewer than 16 rows and columns."""
    return max(16, power_above(size))
