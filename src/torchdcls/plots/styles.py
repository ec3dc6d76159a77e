"""Lines that stay visible where they meet."""

from typing import Any

_MARKERS = "osD^vP"


def line_styles(count: int) -> list[dict[str, Any]]:
    """Keyword arguments of `Axes.plot` for each of several lines, in the order in which they are drawn.

    Each line is narrower than the line below it and has its own marker, so that lines on top of each other stay
    visible.
    """
    widths = [1.4 + 0.65 * (count - 1 - number) for number in range(count)]
    return [
        {
            "color": f"C{number % 10}",
            "linewidth": width,
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4 + width,
            "markerfacecolor": "white" if number % 2 else f"C{number % 10}",
            "markeredgewidth": 1.2,
        }
        for number, width in enumerate(widths)
    ]
