"""The pictures of a study, drawn from its records."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchdcls_results import model_title

from .conclusions import counted
from .config import BASELINE, Start
from .results import Results
from .schedule import SWEEPS, Sweep

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
    """Draws what there are finished cells for.

    Args:
        results: What the study came to.
        folder: Where the PNG files go.
        prefix: Of their names.

    Returns:
        The files: `accuracy.png`, and one for each sweep.
    """
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
    from .axes import draw_differences, draw_seeds

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
        draw_differences(
            axes[1][column], {name: (it.mean, it.interval, it.corrected) for name, it in differences.items()}
        )
    return figure


def _sweep(results: Results, sweep: Sweep) -> Any:
    """Accuracy against what is swept over, and its time below; None before there are any."""
    from .axes import draw_sweep

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")
