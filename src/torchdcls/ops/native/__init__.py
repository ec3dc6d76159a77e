"""Compiled kernels for CPUs."""

from .library import missing, status

__all__ = ["missing", "status"]
