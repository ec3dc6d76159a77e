"""What a study came to: methods side by side, and accuracy against a choice."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from torchdcls.plots.styles import line_styles


def draw_seeds(axes: Axes, accuracies: Mapping[str, Sequence[float]]) -> None:
    """Draws a dot for each seed and a bar for their mean, method by method.

    Args:
        axes: Where to draw.
        accuracies: For each method its seeds' accuracies. Unit: percent.
    """
    for place, values in enumerate(accuracies.values()):
        axes.plot([place] * len(values), values, "o", color="tab:blue", alpha=0.5, markersize=4)
        if values:
            axes.hlines(sum(values) / len(values), place - 0.3, place + 0.3, color="black")
    axes.plot([], [], "o", color="tab:blue", alpha=0.5, markersize=4, label="one seed")
    axes.plot([], [], color="black", label="mean")
    axes.legend(fontsize="small", ncols=2)
    axes.set_xticks(range(len(accuracies)), list(accuracies), rotation=30, ha="right")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(axis="y", alpha=0.3)


def draw_differences(
    axes: Axes, differences: Mapping[str, tuple[float, tuple[float, float], tuple[float, float]]]
) -> None:
    """Draws differences with two intervals each, the narrower one bold, and a line at 0.

    The bold ones fit in; others that reach far beyond them go off the edge.

    Args:
        axes: Where to draw.
        differences: Mean, interval and corrected interval by name. Unit: percentage points.
    """
    for place, (mean, interval, corrected) in enumerate(differences.values()):
        axes.vlines(place, *corrected, color="tab:blue", linewidth=1)
        axes.vlines(place, *interval, color="tab:blue", linewidth=3)
        axes.plot(place, mean, "o", color="black", markersize=4)
    axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
    if differences:
        furthest = max(abs(end) for _, interval, _ in differences.values() for end in interval)
        if furthest:
            axes.set_ylim(-2.5 * furthest, 2.5 * furthest)
        axes.plot([], [], "o", color="black", markersize=4, label="mean")
        axes.plot([], [], color="tab:blue", linewidth=3, label="95 % interval")
        axes.plot([], [], color="tab:blue", linewidth=1, label="corrected for all comparisons")
        # Above, for intervals may reach anywhere.
        axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    axes.set_xticks(range(len(differences)), list(differences), rotation=30, ha="right")
    axes.set_ylabel("difference (points)\nabove 0: the first is better")
    axes.grid(axis="y", alpha=0.3)


def draw_sweep(axes: Axes, lines: Mapping[str, Mapping[Any, Sequence[float]]], label: str) -> None:
    """Draws a line through means and a dot for each seed.

    Against numbers; where some values are names, all are at equal distances, the names behind the numbers, and dashes
    stand for means, as nothing lies between, and lines stand side by side.

    Args:
        axes: Where to draw.
        lines: For each line its values, numbers or names, and what was measured at each.
        label: What is measured.
    """
    known: dict[Any, None] = {value: None for points in lines.values() for value in points}
    order = sorted(known, key=lambda value: (isinstance(value, str), value if not isinstance(value, str) else 0))
    ticks = [float(number) if isinstance(order[-1], str) else float(value) for number, value in enumerate(order)]
    named = isinstance(order[-1], str)
    for number, ((name, points), style) in enumerate(zip(lines.items(), line_styles(len(lines)), strict=True)):
        beside = 0.12 * (number - (len(lines) - 1) / 2) if named else 0.0
        places = [place + beside for place, value in zip(ticks, order, strict=True) if value in points]
        groups = [points[value] for value in order if value in points]
        means = [sum(group) / len(group) for group in groups]
        color, marker = style["color"], style["marker"]
        means_drawn = {"linestyle": "", "marker": "_", "markersize": 14} if named else {"linewidth": style["linewidth"]}
        axes.plot(places, means, color=color, label=f"{name}, mean", **means_drawn)
        for place, group in zip(places, groups, strict=True):
            first = f"{name}, one seed" if place == places[0] else None
            axes.plot([place] * len(group), group, marker, color=color, alpha=0.5, markersize=4, label=first)
    names = [value if isinstance(value, str) else f"{value:g}" for value in order]
    axes.set_xticks(ticks, names, fontsize="small")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
