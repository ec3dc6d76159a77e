"""Draws pictures of pages from the newest results: `python -m benchmarks.pictures`.

Speed, fine-tuning, settings, and the accuracy of comparisons on images. Their positions and kernels are not among
their results: they come from the run itself, by `python -m benchmarks.publish`.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.settings.page import draw as settings_figure

from . import kept_weights
from .evidence import picture
from .record import RESULTS, ROOT
from .tables import caption, newest_result

IMAGES = ROOT / "docs" / "images"
# In the order of the legend; torch's own first.
LABELS = {"torch": "F.conv2d", "direct": "direct", "native": "native", "fft": "fft", "auto": "auto"}


def draw_speed(result: Mapping[str, Any], path: Path) -> None:
    """Time against kernel size, a line for each method, both axes logarithmic."""
    from matplotlib.figure import Figure

    from torchdcls.plots import line_styles

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    sizes = [entry["kernel"] for entry in result["sizes"]]
    for (method, label), style in zip(LABELS.items(), line_styles(len(LABELS)), strict=True):
        times = [statistics.median(entry["ms"][method]) for entry in result["sizes"]]
        if method == "auto":
            style |= {"color": "black", "markerfacecolor": "white", "linestyle": "--"}
        axes.plot(sizes, times, label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="kernel size, cells a side", ylabel="forward and backward, ms")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    threads = result["settings"]["threads"]
    axes.set_title(f"Depthwise layer on (4, 96, 56, 56), channels last, threads: {threads}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Description": caption(result)})


def draw_comparisons(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy by epoch on each data set, as `torchdcls compare` draws it."""
    from torchdcls_train.comparison.images.pictures import accuracy_figure
    from torchdcls_train.comparison.images.result import ImagesResult
    from torchdcls_train.comparison.result import result_from

    for each in result["comparisons"]:
        place = path.with_name(picture(each["data"]["name"], path.name))
        figure = accuracy_figure(result_from(ImagesResult, each))
        figure.savefig(place, dpi=120, metadata={"Description": caption(each)})


PICTURES: dict[str, tuple[str, Callable[[Mapping[str, Any], Path], None]]] = {
    "speed.png": ("conv", draw_speed),
    "accuracy.png": ("comparison", draw_comparisons),
    "settings.png": ("settings", lambda result, path: settings_figure(result["records"]).savefig(path, dpi=120)),
    "fine-tuning.png": ("fine-tuning", kept_weights.draw),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the pictures for which there are results; returns the exit status."""
    status = 0
    for name, (benchmark, draw) in PICTURES.items():
        result = newest_result(benchmark, RESULTS)
        if result is None:
            print(f"{name}: nothing is measured for it, no result file '{benchmark}-*.json'", file=sys.stderr)
            status = 1
        else:
            draw(result, IMAGES / name)
            print(f"Written to {IMAGES / name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
