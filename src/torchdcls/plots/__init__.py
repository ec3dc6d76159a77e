"""Pictures: functions that take data and an Axes."""

from .._extras import needed_by

with needed_by("torchdcls.plots", "train"):
    from .curves import draw_accuracy
    from .kernels import draw_kernel, draw_positions
    from .studies import draw_differences, draw_seeds, draw_sweep
    from .styles import line_styles

__all__ = [
    "draw_accuracy",
    "draw_differences",
    "draw_kernel",
    "draw_positions",
    "draw_seeds",
    "draw_sweep",
    "line_styles",
]
