"""Conversion of models: DCLS layers in the place of their convolutions, and plain convolutions again."""

from .fuse import Fused, FuseReport, fuse
from .replace import convert, parameter_count
from .report import ConversionReport, Replaced, Skipped

__all__ = ["ConversionReport", "FuseReport", "Fused", "Replaced", "Skipped", "convert", "fuse", "parameter_count"]
