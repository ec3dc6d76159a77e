"""Pictures: functions that take data and an Axes."""

from .._extras import needed_by

with needed_by("torchdcls.plots", "train"):
    from .curves import draw_accuracy
    from .delays import draw_delay_field, draw_delays, draw_raster
    from .kernels import draw_kernel, draw_positions
    from .styles import line_styles

__all__ = [
    "draw_accuracy",
    "draw_delay_field",
    "draw_delays",
    "draw_kernel",
    "draw_positions",
    "draw_raster",
    "line_styles",
]
