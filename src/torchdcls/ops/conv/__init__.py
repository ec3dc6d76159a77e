"""Convolving with a large kernel, whoever made it."""

from .api import (
    explain_method,
    large_kernel_conv,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
)
from .posing import Padding, padding_pairs
from .select import METHODS, Method

__all__ = [
    "METHODS",
    "Method",
    "Padding",
    "explain_method",
    "large_kernel_conv",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
    "padding_pairs",
]
