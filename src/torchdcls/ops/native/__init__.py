"""Compiled kernels for CPUs: the library, and what calls it with tensors."""

from .library import library, status

__all__ = ["library", "status"]
