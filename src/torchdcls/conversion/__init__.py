"""Conversion of models: DCLS layers in the place of their convolutions."""

from .replace import convert, parameter_count
from .report import ConversionReport, Replaced, Skipped

__all__ = ["ConversionReport", "Replaced", "Skipped", "convert", "parameter_count"]
