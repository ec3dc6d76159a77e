"""The pictures of a study, drawn from its records."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..comparison.record import model_title
from .config import Start
from .plan import SWEEPS, Sweep
from .records import Study
from .results import comparisons, finals, sweep_points, used_ids

_AXES: Mapping[Sweep, str] = {
    "kernel size": "kernel size (cells a side)",
    "kernel count": "elements per kernel",
    "start": "where positions start: radius in cells (0: normal, 0.5)",
}


def digest(study: Study) -> str:
    """A hash of all that the pictures are drawn from, which they carry; it tells a stale one."""
    records = [study.header(), *(study.lines[id] for id in used_ids(study))]
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ...plots import draw_differences, draw_seeds, draw_sweep

    paths, models = [], study.config.models
    mark = {"Description": digest(study)}

    def grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Sequence[object]]]:
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)

    def save(figure: Figure, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{prefix}{name}.png")
        figure.savefig(paths[-1], dpi=120, metadata=mark)

    done = finals(study)
    if any(final.accuracies for final in done):
        figure, axes = grid(2, len(models), 5.0, 3.2)
        for column, model in enumerate(models):
            mine = {final.method: list(final.accuracies.values()) for final in done if final.model == model}
            draw_seeds(axes[0][column], mine)
            axes[0][column].set_title(model_title(model))  # type: ignore[attr-defined]
            differences = {
                f"{found.method} - {found.other}": (
                    found.difference.mean,
                    found.difference.interval,
                    found.difference.corrected,
                )
                for found in comparisons(study)
                if found.model == model and found.difference is not None
            }
            draw_differences(axes[1][column], differences)
        save(figure, "accuracy")
    for sweep in SWEEPS:
        points = sweep_points(study, sweep)
        if not points:
            continue
        swept = list(dict.fromkeys(point.model for point in points))
        timed = sweep != "start"
        figure, axes = grid(1 + timed, len(swept), 5.0, 3.0)
        for column, model in enumerate(swept):
            accuracy: dict[str, dict[Start, Sequence[float]]] = {}
            times: dict[str, dict[Start, Sequence[float]]] = {}
            for point in (point for point in points if point.model == model):
                accuracy.setdefault(point.method, {})[point.value] = point.accuracies
                times.setdefault(point.method, {})[point.value] = [point.ms_per_image]
            draw_sweep(axes[0][column], accuracy, "validation accuracy (%)")
            axes[0][column].set_title(model_title(model))  # type: ignore[attr-defined]
            axes[0][column].legend()  # type: ignore[attr-defined]
            if timed:
                draw_sweep(axes[1][column], times, "training, ms an image")
            axes[-1][column].set_xlabel(_AXES[sweep])  # type: ignore[attr-defined]
        save(figure, sweep.replace(" ", "-"))
    return paths
