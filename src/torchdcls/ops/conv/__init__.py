"""Convolving with a large kernel, whoever made it."""

from .api import large_kernel_conv, large_kernel_conv_transpose
from .posing import Padding, check_output_padding, output_padding_for, padding_pairs
from .ways import METHODS, Method

__all__ = [
    "METHODS",
    "Method",
    "Padding",
    "check_output_padding",
    "large_kernel_conv",
    "large_kernel_conv_transpose",
    "output_padding_for",
    "padding_pairs",
]
