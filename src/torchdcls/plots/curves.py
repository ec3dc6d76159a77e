"""How a run went, by epoch."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator


def draw_accuracy(axes: Axes, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draws accuracy by epoch: one line per method, and a band from the worst to the best seed.

    Args:
        axes: Where to draw.
        curves: For each method its seeds' accuracies, one number per epoch. Unit: percent.
    """
    for method, seeds in curves.items():
        columns = list(zip(*seeds, strict=True))
        epochs = range(1, len(columns) + 1)
        (line,) = axes.plot(epochs, [sum(column) / len(column) for column in columns], marker="o", label=method)
        if len(seeds) > 1:
            lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
            axes.fill_between(epochs, lowest, highest, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(title="mean and range of seeds" if any(len(seeds) > 1 for seeds in curves.values()) else None)
