"""How a run went, by epoch."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .styles import line_styles


def draw_accuracy(axes: Axes, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draws accuracy by epoch: one line per method, and a band from the worst to the best seed.

    Args:
        axes: Where to draw.
        curves: For each method its seeds' accuracies, one number per epoch. Unit: percent.
    """
    for (method, seeds), style in zip(curves.items(), line_styles(len(curves)), strict=True):
        columns = list(zip(*seeds, strict=True))
        epochs = range(1, len(columns) + 1)
        axes.plot(epochs, [sum(column) / len(column) for column in columns], label=method, **style)
        if len(seeds) > 1:
            lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
            axes.fill_between(epochs, lowest, highest, color=style["color"], alpha=0.12, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    several = any(len(seeds) > 1 for seeds in curves.values())
    # Beside, for lines may lie anywhere.
    title = "mean and range of seeds" if several else "one seed each"
    axes.legend(title=title, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
