"""Convolving with a large kernel, whoever made it."""

from .api import (
    explain_method,
    large_kernel_conv,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
    large_kernel_conv_transpose,
    large_kernel_conv_transpose1d,
    large_kernel_conv_transpose2d,
    large_kernel_conv_transpose3d,
)
from .posing import Padding, check_output_padding, output_padding_for, padding_pairs
from .ways import METHODS, Method

__all__ = [
    "METHODS",
    "Method",
    "Padding",
    "check_output_padding",
    "explain_method",
    "large_kernel_conv",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
    "large_kernel_conv_transpose",
    "large_kernel_conv_transpose1d",
    "large_kernel_conv_transpose2d",
    "large_kernel_conv_transpose3d",
    "output_padding_for",
    "padding_pairs",
]
