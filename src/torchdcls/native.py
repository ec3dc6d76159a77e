"""The compiled kernels of CPUs, see `status`."""

from .ops.native import status

__all__ = ["status"]
