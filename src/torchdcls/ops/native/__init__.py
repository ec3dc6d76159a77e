"""Compiled kernels for CPUs: the library, and what calls it with tensors."""

from .library import missing, status

__all__ = ["missing", "status"]
