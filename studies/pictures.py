"""The pictures of a study, drawn from its records."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchdcls_train.comparison.record import model_title

from .conclusions import speeds_compare
from .config import BASELINE, Start
from .plan import SWEEPS, Sweep
from .records import Study
from .results import comparisons, finals, sweep_baseline, sweep_points, used_ids

_AXES: Mapping[Sweep, str] = {
    "kernel size": "kernel size (cells a side)",
    "kernel count": "elements per kernel",
    "start": "positions start within so many cells (0: normal of 0.5 cells)",
}


def digest(study: Study) -> str:
    """A hash of all that the pictures are drawn from, which they carry; it tells a stale one."""
    drawn = [asdict(found) for found in comparisons(study)]
    # Not the whole header: what is only told, such as the note, is in no picture.
    settings = {name: value for name, value in study.header()["config"].items() if name != "note"}
    records = [settings, study.data["name"], drawn, *(study.lines[id] for id in used_ids(study))]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def draw_study(study: Study, folder: Path, prefix: str = "") -> list[Path]:
    """Draws what there are finished cells for.

    Args:
        study: The records.
        folder: Where the PNG files go.
        prefix: Of their names.

    Returns:
        The files: `accuracy.png`, and one for each sweep.
    """
    mark = {"Description": digest(study)}
    paths = []
    drawn = {"accuracy": _accuracy(study), **{sweep.replace(" ", "-"): _sweep(study, sweep) for sweep in SWEEPS}}
    for name, figure in drawn.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{prefix}{name}.png")
            figure.savefig(paths[-1], dpi=120, metadata=mark)
    return paths


def picture_names(study: Study) -> list[str]:
    """Which pictures `draw_study` draws of a study."""
    names = ["accuracy"] if any(final.accuracies for final in finals(study)) else []
    return names + [sweep.replace(" ", "-") for sweep in SWEEPS if sweep_points(study, sweep)]


def _accuracy(study: Study) -> Any:
    """Test accuracies above, paired differences below; None before there are any."""
    from .axes import draw_differences, draw_seeds

    models, done = study.config.models, finals(study)
    if not any(final.accuracies for final in done):
        return None
    figure, axes = _grid(2, len(models))
    epochs = "1 epoch" if study.config.epochs == 1 else f"{study.config.epochs} epochs"
    figure.suptitle(f"{study.data['name']}, {epochs}, {len(study.config.seeds)} seeds")
    for column, model in enumerate(models):
        of_model = [final for final in done if final.model == model]
        draw_seeds(axes[0][column], {str(final.method): list(final.accuracies.values()) for final in of_model})
        axes[0][column].set_title(model_title(model))
        differences = {
            f"{found.method} - {found.other}": found.difference
            for found in comparisons(study)
            if found.model == model and found.difference is not None
        }
        draw_differences(
            axes[1][column], {name: (it.mean, it.interval, it.corrected) for name, it in differences.items()}
        )
    return figure


def _sweep(study: Study, sweep: Sweep) -> Any:
    """Accuracy against what is swept over, and its time below; None before there are any."""
    from .axes import draw_sweep

    points = sweep_points(study, sweep)
    if not points:
        return None
    models = list(dict.fromkeys(point.model for point in points))
    timed = sweep != "start" and speeds_compare(study)
    figure, axes = _grid(1 + timed, len(models))
    for column, model in enumerate(models):
        accuracy: dict[str, dict[Start, Sequence[float]]] = {}
        times: dict[str, dict[Start, Sequence[float]]] = {}
        for point in (point for point in points if point.model == model):
            accuracy.setdefault(point.method, {})[point.value] = point.accuracies
            times.setdefault(point.method, {})[point.value] = [point.ms_per_image]
        draw_sweep(axes[0][column], accuracy, "validation accuracy (%)")
        if (plain := sweep_baseline(study, model)) is not None:
            label = f"{BASELINE}, one seed"
            axes[0][column].axhline(plain["validation"]["accuracy"], color="gray", linestyle="--", label=label)
            if timed:
                axes[1][column].axhline(1000 / plain["images_per_second"], color="gray", linestyle="--", label=BASELINE)
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
