"""Dilated convolutions with learnable spacings as modules."""

from .dcls import Dcls1d, Dcls2d, Dcls3d, DclsNd
from .layer import DclsLayer
from .transpose import DclsTranspose1d, DclsTranspose2d, DclsTranspose3d, DclsTransposeNd

__all__ = [
    "Dcls1d",
    "Dcls2d",
    "Dcls3d",
    "DclsLayer",
    "DclsNd",
    "DclsTranspose1d",
    "DclsTranspose2d",
    "DclsTranspose3d",
    "DclsTransposeNd",
]
