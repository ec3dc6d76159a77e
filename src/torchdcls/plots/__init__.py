"""Pictures: functions that take data and an Axes."""

from .curves import draw_accuracy
from .kernels import draw_kernel, draw_positions

__all__ = ["draw_accuracy", "draw_kernel", "draw_positions"]
