"""Functions: tensors in, tensors out."""

from .caches import clear_caches
from .conv import (
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
from .dcls_conv import (
    dcls_conv,
    dcls_conv1d,
    dcls_conv2d,
    dcls_conv3d,
    dcls_conv_transpose,
    dcls_conv_transpose1d,
    dcls_conv_transpose2d,
    dcls_conv_transpose3d,
)
from .kernel import construct_kernel

__all__ = [
    "clear_caches",
    "construct_kernel",
    "dcls_conv",
    "dcls_conv1d",
    "dcls_conv2d",
    "dcls_conv3d",
    "dcls_conv_transpose",
    "dcls_conv_transpose1d",
    "dcls_conv_transpose2d",
    "dcls_conv_transpose3d",
    "explain_method",
    "large_kernel_conv",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
    "large_kernel_conv_transpose",
    "large_kernel_conv_transpose1d",
    "large_kernel_conv_transpose2d",
    "large_kernel_conv_transpose3d",
]
