"""The pictures of a study, drawn from its records."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchdcls_results import model_title

from .conclusions import counted
from .config import BASELINE, Start
from .differences import Difference
from .results import Results
from .schedule import SWEEPS, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES: Mapping[Sweep, str] = {
    "kernel size": "kernel size (cells a side)",
    "kernel count": "elements per kernel",
    "start": "positions start within so many cells (0: normal of 0.5 cells)",
}


def digest(results: Results) -> str:
    """A hash of all that the pictures are drawn from, which they carry; it tells a stale one."""
    study, drawn = results.study, map(asdict, results.comparisons)
    # Not the whole header: what is only told, such as the note, is in no picture.
    settings = {name: value for name, value in study.header()["config"].items() if name != "note"}
    records = [settings, study.data.name, list(drawn), *map(asdict, results.schedule.used)]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def draw_study(results: Results, folder: Path, prefix: str = "") -> list[Path]:
    """Draws what there are finished cells for, and returns the PNG files: `accuracy.png`, and one for each sweep."""
    mark = {"Description": digest(results)}
    paths = []
    drawn = {"accuracy": _accuracy(results), **{sweep.replace(" ", "-"): _sweep(results, sweep) for sweep in SWEEPS}}
    for name, figure in drawn.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{prefix}{name}.png")
            figure.savefig(paths[-1], dpi=120, metadata=mark)
    return paths


def picture_names(results: Results) -> list[str]:
    """Which pictures `draw_study` draws of a study."""
    names = ["accuracy"] if any(final.accuracies for final in results.finals) else []
    return names + [sweep.replace(" ", "-") for sweep in SWEEPS if results.sweeps[sweep]]


def _accuracy(results: Results) -> Any:
    """Test accuracies above, paired differences below; None before there are any."""
    study, models = results.study, results.study.config.models
    if not any(final.accuracies for final in results.finals):
        return None
    figure, axes = _grid(2, len(models))
    epochs = counted(study.config.epochs, "epoch")
    figure.suptitle(f"{study.data.name}, {epochs}, {len(study.config.seeds)} seeds")
    for column, model in enumerate(models):
        of_model = [final for final in results.finals if final.model == model]
        draw_seeds(axes[0][column], {str(final.method): list(final.accuracies.values()) for final in of_model})
        axes[0][column].set_title(model_title(model))
        differences = {
            f"{found.method} - {found.other}": found.difference
            for found in results.comparisons
            if found.model == model and found.difference is not None
        }
        draw_differences(axes[1][column], differences)
    return figure


def _sweep(results: Results, sweep: Sweep) -> Any:
    """Accuracy against what is swept over, and its time below; None before there are any."""
    points = results.sweeps[sweep]
    if not points:
        return None
    models = list(dict.fromkeys(point.model for point in points))
    timed = sweep != "start" and results.speeds_compare
    figure, axes = _grid(1 + timed, len(models))
    for column, model in enumerate(models):
        accuracy: dict[str, dict[Start, Sequence[float]]] = {}
        times: dict[str, dict[Start, Sequence[float]]] = {}
        for point in (point for point in points if point.model == model):
            assert point.value is not None
            accuracy.setdefault(point.method, {})[point.value] = point.accuracies
            times.setdefault(point.method, {})[point.value] = [point.ms_per_image]
        draw_sweep(axes[0][column], accuracy, "validation accuracy (%)")
        if (plain := results.baselines.get(model)) is not None:
            label = f"{BASELINE}, one seed"
            axes[0][column].axhline(plain.accuracies[0], color="gray", linestyle="--", label=label)
            if timed:
                axes[1][column].axhline(plain.ms_per_image, color="gray", linestyle="--", label=BASELINE)
        axes[0][column].set_title(model_title(model))
        axes[0][column].legend()
        if timed:
            draw_sweep(axes[1][column], times, "training, ms an image")
        axes[-1][column].set_xlabel(_AXES[sweep])
    return figure


def _grid(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def draw_seeds(axes: "Axes", accuracies: Mapping[str, Sequence[float]]) -> None:
    """Draws a dot for each seed and a bar for their mean, method by method; accuracies in percent."""
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


def draw_differences(axes: "Axes", differences: Mapping[str, Difference]) -> None:
    """Draws differences with two intervals each, the narrower one bold, and a line at 0.

    The bold ones fit in; others that reach far beyond them go off the edge.
    """
    for place, found in enumerate(differences.values()):
        axes.vlines(place, *found.corrected, color="tab:blue", linewidth=1)
        axes.vlines(place, *found.interval, color="tab:blue", linewidth=3)
        axes.plot(place, found.mean, "o", color="black", markersize=4)
    axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
    if differences:
        furthest = max(abs(end) for found in differences.values() for end in found.interval)
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


def draw_sweep(axes: "Axes", lines: Mapping[str, Mapping[Any, Sequence[float]]], label: str) -> None:
    """Draws a line through means and a dot for each seed.

    Against numbers; where some values are names, all are at equal distances, the names behind the numbers, and dashes
    stand for means, as nothing lies between, and lines stand side by side.
    """
    from torchdcls.plots import line_styles

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
