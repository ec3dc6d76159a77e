"""Convolution with a large kernel."""

from .api import large_kernel_conv, large_kernel_conv_transpose
from .methods import METHOD_NAMES, MethodName
from .posing import Padding, check_output_padding, output_padding_for, padding_pairs

__all__ = [
    "METHOD_NAMES",
    "MethodName",
    "Padding",
    "check_output_padding",
    "large_kernel_conv",
    "large_kernel_conv_transpose",
    "output_padding_for",
    "padding_pairs",
]
