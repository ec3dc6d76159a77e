"""Convolving with a large kernel, whoever made it."""

from .api import (
    Padding,
    large_kernel_conv,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
    padding_pairs,
)
from .select import Method

__all__ = [
    "Method",
    "Padding",
    "large_kernel_conv",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
    "padding_pairs",
]
