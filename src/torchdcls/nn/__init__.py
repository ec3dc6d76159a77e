"""Dilated convolutions with learnable spacings as modules."""

from .dcls import Dcls1d, Dcls2d, Dcls3d, DclsNd

__all__ = ["Dcls1d", "Dcls2d", "Dcls3d", "DclsNd"]
