"""What a study came to: methods side by side, and accuracy against a choice."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes


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
        axes.plot([], [], color="tab:blue", linewidth=3, label="95 % interval")
        axes.plot([], [], color="tab:blue", linewidth=1, label="corrected for all comparisons")
        # Above, for intervals may reach anywhere.
        axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axes.set_xticks(range(len(differences)), list(differences), rotation=30, ha="right")
    axes.set_ylabel("difference (points)\nabove 0: the first is better")
    axes.grid(axis="y", alpha=0.3)


def draw_sweep(axes: Axes, lines: Mapping[str, Mapping[Any, Sequence[float]]], label: str) -> None:
    """Draws a line through means and a dot for each seed.

    Against numbers; where some values are names, all are at equal distances, the names behind the numbers, and dashes
    stand for means, as nothing lies between.

    Args:
        axes: Where to draw.
        lines: For each line its values, numbers or names, and what was measured at each.
        label: What is measured.
    """
    known: dict[Any, None] = {value: None for points in lines.values() for value in points}
    order = sorted(known, key=lambda value: (isinstance(value, str), value if not isinstance(value, str) else 0))
    ticks = [float(number) if isinstance(order[-1], str) else float(value) for number, value in enumerate(order)]
    for name, points in lines.items():
        places = [place for place, value in zip(ticks, order, strict=True) if value in points]
        groups = [points[value] for value in order if value in points]
        means = [sum(group) / len(group) for group in groups]
        style = ("", "_") if isinstance(order[-1], str) else ("-", "")
        (line,) = axes.plot(places, means, linestyle=style[0], marker=style[1], markersize=14, label=name)
        for place, group in zip(places, groups, strict=True):
            axes.plot([place] * len(group), group, "o", color=line.get_color(), alpha=0.5, markersize=4)
    names = [value if isinstance(value, str) else f"{value:g}" for value in order]
    axes.set_xticks(ticks, names, fontsize="small")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
