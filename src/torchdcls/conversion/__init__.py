"""Conversion of models: convolutions replaced by DCLS layers, and plain convolutions again."""

from .fuse import Fused, FuseReport, fuse
from .replace import convert, parameter_count
from .report import ConversionReport, Replaced, Skipped

__all__ = ["ConversionReport", "FuseReport", "Fused", "Replaced", "Skipped", "convert", "fuse", "parameter_count"]
