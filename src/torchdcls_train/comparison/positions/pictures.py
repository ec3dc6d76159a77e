"""The pictures of a comparison of interpolations, drawn from its results alone."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from torchdcls_results import half_interval

from ..report import save_figures
from .findings import mean_found, place_title, places
from .result import Cell, PositionsResult
from .task import FOUND, Teacher, distances

_STYLES: dict[str, dict[str, Any]] = {
    "bilinear": {"color": "black", "marker": "o"},
    "triangle": {"color": "#e69f00", "marker": "v"},
    "triangle-2": {"color": "#d55e00", "marker": "^"},
    "gaussian": {"color": "#56b4e9", "marker": "s"},
    "gaussian-1": {"color": "#0072b2", "marker": "D"},
    "gaussian-3": {"color": "#332288", "marker": "P"},
    "gaussian-annealed": {"color": "#009e73", "marker": "X", "linestyle": "--"},
}
_RINGS = 3
# The animation: milliseconds of a frame, and of the last one.
_FRAME, _LAST_FRAME = 80, 2500


def draw_pictures(folder: Path, result: PositionsResult) -> list[Path]:
    """Draws what there are results for; returns the files."""
    if not result.runs:
        return []
    paths = save_figures(folder, {"found.png": found_figure(result), "curves.png": curves_figure(result)})
    animation = Animation(result)
    frames = [animation.image(frame) for frame in range(animation.frames)]
    # One palette for all frames, or colors flicker.
    palette = frames[-1].quantize(64)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME] * (len(small) - 1) + [_LAST_FRAME]
    small[0].save(folder / "travel.gif", save_all=True, append_images=small[1:], duration=durations, loop=0)
    animation.figure.savefig(folder / "travel.png", dpi=160)
    return [*paths, folder / "travel.gif", folder / "travel.png"]


def found_figure(result: PositionsResult) -> Any:
    """Share of taps found against their distance from the center, a panel for each of inputs and starts."""
    figure, panels = _panels(result, 1)
    edges = np.linspace(0, result.config.reach, _RINGS + 1)
    for column, (place, students) in enumerate(places(result).items()):
        axes = panels[0][column]
        for number, student in enumerate(students):
            rings = _shares_by_ring(result, (*place, student), edges)
            # Beside each other, for intervals overlap.
            shift = (number - (len(students) - 1) / 2) * 0.06 * (edges[1] - edges[0])
            centers = (edges[:-1] + edges[1:]) / 2 + shift
            means = [100 * statistics.mean(ring) if ring else np.nan for ring in rings]
            halves = [100 * half_interval(ring) if len(ring) > 1 else 0 for ring in rings]
            axes.errorbar(centers, means, halves, label=student, capsize=2, linewidth=1.4, **_STYLES[student])
        axes.set_xticks(edges)
        axes.set_xlabel("distance of the tap from the center (cells)")
        axes.set_ylim(-3, 103)
    panels[0][0].set_ylabel("taps found (%)")
    _finish(figure, panels, "Taps found by distance: mean over kernels and its 95 % interval")
    return figure


def curves_figure(result: PositionsResult) -> Any:
    """Loss and share of taps found by update: mean over seeds, and a band from the lowest to the highest."""
    figure, panels = _panels(result, 2)
    for column, (place, students) in enumerate(places(result).items()):
        for student in students:
            curves, style = [run.curve for run in result.runs if run.cell == (*place, student)], _STYLES[student]
            updates = [moment.update for moment in curves[0]]
            found = np.array([[100 * moment.found for moment in curve] for curve in curves])
            loss = np.array([[moment.loss for moment in curve] for curve in curves])
            for row, values in enumerate((found, loss)):
                panels[row][column].plot(updates, values.mean(0), label=student, linewidth=1.4, markersize=4, **style)
                panels[row][column].fill_between(
                    updates, values.min(0), values.max(0), color=style["color"], alpha=0.1, linewidth=0
                )
        panels[0][column].set_ylim(-3, 103)
        panels[1][column].set_yscale("log")
        panels[1][column].set_xlabel("update")
    panels[0][0].set_ylabel("taps found (%)")
    panels[1][0].set_ylabel("loss over the teacher's power")
    _finish(figure, panels, "Progress: mean and range of seeds")
    return figure


class Animation:
    """The paths of one kernel's elements: a panel for each student, taps as rings, elements as dots.

    Args:
        result: With a run at least.

    Attributes:
        figure: As it is after the last frame that was asked for.
        frames: Number of frames.
    """

    def __init__(self, result: PositionsResult) -> None:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        assert result.travel is not None
        shown, taps = result.travel, result.teachers[0]
        self._updates, self.frames = shown.updates, len(shown.updates)
        # student: (frames, row and column and weight, elements)
        self._paths = {student: np.array(path) for student, path in shown.paths.items()}
        self._means = {student: mean_found(result, (*shown.place, student)) for student in shown.paths}
        position = torch.tensor(taps.position)[:, shown.kernel, None]
        weight = torch.tensor(taps.weight)[shown.kernel, None]
        self._teacher = Teacher(position, weight, result.config.dilated_kernel_size)
        signs = weight[0].numpy()
        columns = min(3, len(self._paths) + 1)  # more cannot be read at the width of a telephone
        rows = -(-(len(self._paths) + 1) // columns)
        self.figure = Figure(
            figsize=(2.1 * columns, 2.8 * rows + 0.6), dpi=90, layout=ConstrainedLayoutEngine(h_pad=0.08, hspace=0.08)
        )
        self._heading = self.figure.suptitle("", fontsize="x-large")
        panels = list(self.figure.subplots(rows, columns, squeeze=False).flat)
        self._panels = panels[: len(self._paths)]
        self._count = len(signs)
        self._title = f"{place_title(shown.place)}: {self._count} taps to find"
        edge = self._teacher.size / 2
        self._artists = []
        for axes in self._panels:
            axes.set(xlim=(-edge, edge), ylim=(edge, -edge), xticks=[], yticks=[], aspect="equal")
            axes.scatter(
                *position[:, 0].flip(0).numpy(), s=110, facecolors="none", edgecolors=_colors(signs), linewidths=1.8
            )
            ways = [axes.plot([], [], color="0.6", linewidth=1, zorder=1)[0] for _ in signs]
            self._artists.append((ways, axes.scatter(0 * signs, 0 * signs, zorder=3, linewidths=0)))
        for axes in panels[len(self._paths) :]:
            axes.set_axis_off()
        _explain(panels[-1])
        self._show(self.frames - 1)
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def image(self, frame: int) -> Image.Image:
        """The picture of one frame."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self._show(frame)
        canvas: Any = FigureCanvasAgg(self.figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

    def _show(self, frame: int) -> None:
        for axes, (student, path), (ways, dots) in zip(self._panels, self._paths.items(), self._artists, strict=True):
            for number, way in enumerate(ways):
                way.set_data(path[: frame + 1, 1, number], path[: frame + 1, 0, number])
            *_, weight = now = path[frame]
            dots.set_offsets(now[1::-1].T)
            dots.set_sizes(8 + 50 * np.minimum(np.abs(weight), 1.5))
            dots.set_facecolor(_colors(weight))
            position, strength = torch.from_numpy(now[:2, None]).float(), torch.from_numpy(now[2:]).float()
            found = int((distances(position, strength, self._teacher) < FOUND).sum())
            axes.set_title(f"{student}\n{found} of {self._count} found", fontsize="large")
            axes.set_xlabel(f"all kernels: {self._means[student]:.0f} %", fontsize="large")
        self._heading.set_text(f"{self._title}\nupdate {self._updates[frame]}")


def _colors(weight: np.ndarray) -> list[str]:
    return ["#cc3311" if value > 0 else "#0077bb" for value in weight]


def _explain(axes: Any) -> None:
    from matplotlib.lines import Line2D

    signs = dict(zip(("positive", "negative"), _colors(np.array([1, -1])), strict=True))
    looks: dict[str, dict[str, Any]] = {
        "tap": {"markersize": 10, "markerfacecolor": "none"},
        "element": {"markersize": 6},
    }
    marks = [
        Line2D([], [], linestyle="", marker="o", color=color, label=f"{what}, {sign}", **look)
        for what, look in looks.items()
        for sign, color in signs.items()
    ]
    marks.append(Line2D([], [], color="0.6", linewidth=1, label="path of an element"))
    legend = axes.legend(handles=marks, loc="center", frameon=False, fontsize="medium", title="area: |weight|")
    legend.get_title().set_fontsize("medium")


def _shares_by_ring(result: PositionsResult, cell: Cell, edges: np.ndarray) -> list[list[float]]:
    """For each ring around the center the share of taps found, of each kernel that has a tap there."""
    shares: list[list[float]] = [[] for _ in edges[1:]]
    for run in result.runs:
        if run.cell != cell:
            continue
        away = np.hypot(*np.array(result.teachers[run.seed].position))
        found = np.array(run.distance) < FOUND
        ring = np.clip(np.digitize(away, edges, right=True) - 1, 0, len(shares) - 1)
        for number, of_ring in enumerate(shares):
            inside = ring == number
            of_ring.extend(float(hit[here].mean()) for hit, here in zip(found, inside, strict=True) if here.any())
    return shares


def _panels(result: PositionsResult, rows: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    columns = list(places(result))
    figure = Figure(figsize=(3.2 * len(columns) + 1.8, 2.9 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, len(columns), squeeze=False, sharey="row")
    for axes, place in zip(panels[0], columns, strict=True):
        axes.set_title(place_title(place), fontsize="medium")
    return figure, panels


def _finish(figure: Any, panels: Any, title: str) -> None:
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
