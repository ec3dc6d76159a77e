"""Models of the papers, through timm."""

from .small import SmallModel, small_model

__all__ = ["SmallModel", "small_model"]
