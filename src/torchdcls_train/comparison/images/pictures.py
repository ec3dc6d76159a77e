"""The pictures of a comparison, drawn into its run folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchdcls.conversion import select
from torchdcls.nn import Dcls2d
from torchdcls_results import model_title

from ..report import save_figures
from .result import ImagesResult

# Elements of a stage that are drawn, and kernels of all stages together.
_SHOWN, _KERNELS = 600, 8


@dataclass(frozen=True)
class StageView:
    """What one stage has learned: positions and mean weight magnitudes of all its elements, and some of its kernels.

    Args:
        name: The stage.
        size: Kernel size, (height, width).
        position: (2, channels, kernel_count), or None for dense kernels. Unit: grid cells.
        weight: (channels, kernel_count), mean magnitude over the layers that share the positions; or None.
        kernels: (kernels, height, width), of the stage's first layer.
        start: `position` before training, where it is known.
    """

    name: str
    size: tuple[int, int]
    position: Tensor | None
    weight: Tensor | None
    kernels: Tensor
    start: Tensor | None = None


def stage_views(model: nn.Module, before: Sequence[StageView] = ()) -> list[StageView]:
    """Views of a model's stages, on the CPU: of its DCLS layers, or of the depthwise layers that they would replace.

    Args:
        model: The model.
        before: The model's views before training, from where its elements came.
    """
    starts = {view.name: view.position for view in before}
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Dcls2d) or (isinstance(module, nn.Conv2d) and select.default_reason(module) is None)
    }
    members_of: dict[str, list[nn.Module]] = {}
    for name, stage in select.stages(layers).items():
        members_of.setdefault(stage, []).append(layers[name])
    views = []
    for stage, members in members_of.items():
        first = members[0]
        with torch.no_grad():
            if isinstance(first, Dcls2d):
                kernel, position = first.kernel(), first.position[:, :, 0].cpu().clone()
                weights = torch.stack([layer.weight.abs() for layer in members if isinstance(layer, Dcls2d)])
                weight: Tensor | None = weights.mean(0)[:, 0].cpu()
            else:
                assert isinstance(first, nn.Conv2d)
                kernel, position, weight = first.weight.detach(), None, None
            height, width = kernel.shape[-2:]
            shown = kernel[: max(1, _KERNELS // len(members_of)), 0].cpu()
            views.append(StageView(stage, (height, width), position, weight, shown, starts.get(stage)))
    return views


def draw_pictures(folder: Path, result: ImagesResult, views: Mapping[str, list[StageView]]) -> list[Path]:
    """Draws accuracy by epoch, positions and kernels, of which there is something; returns the files.

    Args:
        folder: Where the PNG files go.
        result: The results.
        views: For each of the layers compared what the first finished seed has learned.
    """
    figures = {}
    if _curves(result):
        figures["accuracy.png"] = accuracy_figure(result)
    learned = {method: stages for method, stages in views.items() if stages[0].position is not None}
    if learned:
        figures["positions.png"] = _positions_figure(learned)
    if views:
        figures["kernels.png"] = _kernels_figure(views)
    return save_figures(folder, figures)


def accuracy_figure(result: ImagesResult) -> Any:
    """The picture of accuracy by epoch, of one at least; it says what it is worth."""
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_accuracy

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    draw_accuracy(axes, _curves(result))
    figure.suptitle(f"{model_title(result.config.model)}: test accuracy on {result.data.name}")
    axes.set_title(_worth(result), fontsize="small", color="tab:red" if result.notice else "black")
    return figure


def _positions_figure(learned: Mapping[str, Sequence[StageView]]) -> Any:
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_positions

    columns = len(next(iter(learned.values())))
    alone = columns == 1  # the layers of a single stage stand side by side
    across, down = (len(learned), 1) if alone else (columns, len(learned))
    figure = Figure(figsize=(2.6 * across + 0.6, 2.75 * down + 1), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    reach = _reach(learned)
    furthest = max(float(_moved(view).max()) for stages in learned.values() for view in stages)
    for row, (method, stages) in zip(grid.T if alone else grid, learned.items(), strict=True):
        for axes, view in zip(row, stages, strict=True):
            assert view.position is not None and view.weight is not None
            # More would hide each other.
            some = slice(None, None, math.ceil(view.weight.numel() / _SHOWN))
            position = view.position.flatten(1)[:, some]
            start = None if view.start is None else view.start.flatten(1)[:, some]
            ways = draw_positions(axes, position, view.weight.flatten()[some], view.size, start, furthest)
            moved = "" if start is None else f", median move {float(_moved(view).median()):.2f}"
            count = f"{position[0].numel():,} of {view.weight.numel():,}"
            axes.set_title(f"{method}, {view.name}\n{count}{moved}", fontsize="x-small")
            axes.tick_params(labelsize="x-small")
            axes.set(xlim=(-reach, reach), ylim=(reach, -reach))
    title = "Positions of elements after training, in cells\n(dot: end, its area: |weight|"
    if all(view.start is not None for stages in learned.values() for view in stages):
        figure.colorbar(ways, ax=grid, label="distance moved (cells)", shrink=0.6, aspect=40)
        title += "; line: from the start; dashed: all starts"
    figure.suptitle(f"{title})")
    return figure


def _kernels_figure(views: Mapping[str, Sequence[StageView]]) -> Any:
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_kernel

    columns = sum(len(view.kernels) for view in next(iter(views.values())))
    figure = Figure(figsize=(1.35 * columns, 1.55 * len(views) + 0.8), layout="constrained")
    grid = figure.subplots(len(views), columns, squeeze=False)
    heights, widths = zip(*(view.size for stages in views.values() for view in stages), strict=True)
    for row, (method, stages) in zip(grid, views.items(), strict=True):
        kernels = [(view, kernel) for view in stages for kernel in view.kernels]
        for axes, (view, kernel) in zip(row, kernels, strict=True):
            draw_kernel(axes, kernel, (max(heights), max(widths)))
            axes.set_title(view.name, fontsize="x-small")
        size = "x".join(map(str, stages[0].size))
        row[0].set_ylabel(method if method == size else f"{method}, {size}")
    figure.suptitle(
        "Dense kernels after training, in cells of one size\n(red: positive, blue: negative; each on its own scale)"
    )
    return figure


def _worth(result: ImagesResult) -> str:
    """What a reader of the accuracies must know: what they are of, and that they may mean nothing."""
    config, data = result.config, result.data
    counts = [(data.train_images, "training image"), (data.test_images, "test image")]
    counts += [(config.epochs or 0, "epoch"), (config.seeds or 0, "seed")]
    of = ", ".join(f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    return "\n".join(filter(None, [of, result.notice]))


def _reach(learned: Mapping[str, Sequence[StageView]]) -> float:
    """How far from the center the axes go: to the last element, with a margin, but not beyond the largest grid."""
    stages = [view for views in learned.values() for view in views if view.position is not None]
    ends = [place for view in stages for place in (view.position, view.start) if place is not None]
    largest = max(max(view.size) for view in stages)
    return min(max(float(place.abs().max()) for place in ends) + 0.75, largest / 2)


def _moved(view: StageView) -> Tensor:
    """How far each element of a stage has moved; nothing where that is not known. Unit: grid cells."""
    if view.position is None or view.start is None:
        return torch.zeros(1)
    moved: Tensor = torch.linalg.vector_norm(view.position - view.start, dim=0)
    return moved


def _curves(result: ImagesResult) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for run in result.runs:
        if run.epochs:
            curves.setdefault(run.method, []).append([epoch.test_accuracy for epoch in run.epochs])
    # A run that was cut short cannot be averaged with whole ones.
    longest = {method: max(map(len, runs)) for method, runs in curves.items()}
    return {method: [run for run in runs if len(run) == longest[method]] for method, runs in curves.items()}
