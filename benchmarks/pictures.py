"""Draws the README's picture of speed from the newest result: `python -m benchmarks.pictures`."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .record import RESULTS, ROOT
from .tables import caption, newest_result

SPEED = ROOT / "docs" / "images" / "speed.png"
# In the order of the legend; torch's own first.
LABELS = {"torch": "F.conv2d", "direct": "direct", "depthwise": "depthwise", "fft": "fft", "auto": "auto"}


def draw_speed(result: Mapping[str, Any], path: Path) -> None:
    """Time against kernel size, a line for each method, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = [entry["kernel"] for entry in result["sizes"]]
    for method, label in LABELS.items():
        times = [statistics.median(entry["ms"][method]) for entry in result["sizes"]]
        own = method == "auto"
        axes.plot(sizes, times, "--" if own else "-", color="black" if own else None, marker="o", ms=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="kernel size, cells a side", ylabel="forward and backward, ms")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    threads = result["settings"]["threads"]
    axes.set_title(f"Depthwise layer on (4, 96, 56, 56), channels last, threads: {threads}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Description": caption(result)})


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the picture; returns the exit status."""
    result = newest_result("conv", RESULTS)
    if result is None:
        print("Nothing is measured: python -m benchmarks.run conv", file=sys.stderr)
        return 1
    draw_speed(result, SPEED)
    print(f"Written to {SPEED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
