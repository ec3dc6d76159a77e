"""The definitions in plain loops, for tests of layers and kernels of your own; compare in float64."""

from .ops.reference import reference_convolution, reference_kernel

__all__ = ["reference_convolution", "reference_kernel"]
