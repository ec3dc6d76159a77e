"""Models of the papers, through timm."""

from .comparison import SMALL_MODELS, check_model, comparison_model

__all__ = ["SMALL_MODELS", "check_model", "comparison_model"]
