"""Images to train and to validate on: where they come from, in which order, and what is done to them."""

from .image_set import ImageData, ImageSet
from .in_memory import load_data

__all__ = ["ImageData", "ImageSet", "load_data"]
