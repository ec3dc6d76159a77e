"""Dilated Convolution with Learnable Spacings (DCLS) for PyTorch."""

from .nn import Dcls1d, Dcls2d, Dcls3d
from .ops import (
    construct_kernel,
    dcls_conv1d,
    dcls_conv2d,
    dcls_conv3d,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
)
from .profiles import Profile

__version__ = "0.1.0"

__all__ = [
    "Dcls1d",
    "Dcls2d",
    "Dcls3d",
    "Profile",
    "__version__",
    "construct_kernel",
    "dcls_conv1d",
    "dcls_conv2d",
    "dcls_conv3d",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
]
