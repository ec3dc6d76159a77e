"""Describes a model and previews its conversions with their costs; nothing is converted or trained."""

from .inspect import Conversion, Layer, ModelInfo, inspect_model
from .receptive_field import ReceptiveField, receptive_field

__all__ = ["Conversion", "Layer", "ModelInfo", "ReceptiveField", "inspect_model", "receptive_field"]
