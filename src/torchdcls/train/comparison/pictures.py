"""The pictures of a comparison, drawn into its run folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...conversion import select
from ...nn import Dcls2d
from .record import model_title


@dataclass(frozen=True)
class StageView:
    """What one stage has learned: positions and mean weight magnitudes of all its elements, and some of its kernels.

    Args:
        name: The stage.
        size: Kernel size, (height, width).
        position: (2, channels, kernel_count), or None for dense kernels. Unit: grid cells.
        weight: (channels, kernel_count), mean magnitude over the layers that share the positions; or None.
        kernels: (kernels, height, width), of the stage's first layer.
    """

    name: str
    size: tuple[int, int]
    position: Tensor | None
    weight: Tensor | None
    kernels: Tensor


def stage_views(model: nn.Module, kernels: int = 2) -> list[StageView]:
    """Views of a model's stages, on the CPU: of its DCLS layers, or of the depthwise layers that they would replace.

    Args:
        model: The model.
        kernels: Number of kernels to keep per stage.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Dcls2d) or (type(module) is nn.Conv2d and select.default_reason(module) is None)
    }
    members_of: dict[str, list[nn.Module]] = {}
    for name, stage in select.stages(layers).items():
        members_of.setdefault(stage, []).append(layers[name])
    views = []
    for stage, members in members_of.items():
        first = members[0]
        with torch.no_grad():
            if isinstance(first, Dcls2d):
                kernel, position = first.kernel(), first.position[:, :, 0].cpu()
                weights = torch.stack([layer.weight.abs() for layer in members if isinstance(layer, Dcls2d)])
                weight: Tensor | None = weights.mean(0)[:, 0].cpu()
            else:
                assert isinstance(first, nn.Conv2d)
                kernel, position, weight = first.weight.detach(), None, None
            height, width = kernel.shape[-2:]
            views.append(StageView(stage, (height, width), position, weight, kernel[:kernels, 0].cpu()))
    return views


def draw_pictures(folder: Path, result: Mapping[str, Any], views: Mapping[str, list[StageView]]) -> list[Path]:
    """Draws accuracy by epoch, positions and kernels; leaves out those for which there is nothing yet.

    Args:
        folder: Where the PNG files go.
        result: The record of the comparison.
        views: For each method what the first finished seed has learned.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    from ...plots import draw_accuracy, draw_kernel, draw_positions

    paths = []

    def save(figure: Figure, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / name, dpi=120)
        paths.append(folder / name)

    curves = _curves(result)
    if curves:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        draw_accuracy(axes, curves)
        axes.set_title(f"{model_title(result['config']['model'])}: test accuracy on {result['data']['name']}")
        save(figure, "accuracy.png")

    learned = {method: stages for method, stages in views.items() if stages[0].position is not None}
    if learned:
        columns = len(next(iter(learned.values())))
        figure = Figure(figsize=(2.6 * columns, 2.6 * len(learned) + 0.5), layout="constrained")
        grid = figure.subplots(len(learned), columns, squeeze=False)
        for row, (method, stages) in zip(grid, learned.items(), strict=True):
            for axes, view in zip(row, stages, strict=True):
                assert view.position is not None and view.weight is not None
                draw_positions(axes, view.position, view.weight, view.size)
                axes.set_title(f"{method}, {view.name}", fontsize="small")
                axes.tick_params(labelsize="x-small")
        figure.suptitle("Learned positions after training (in cells; dot area: |weight|)")
        save(figure, "positions.png")

    if views:
        columns = sum(len(view.kernels) for view in next(iter(views.values())))
        figure = Figure(figsize=(1.35 * columns, 1.55 * len(views) + 0.5), layout="constrained")
        grid = figure.subplots(len(views), columns, squeeze=False)
        for row, (method, stages) in zip(grid, views.items(), strict=True):
            kernels = [(view, kernel) for view in stages for kernel in view.kernels]
            for axes, (view, kernel) in zip(row, kernels, strict=True):
                draw_kernel(axes, kernel)
                axes.set_title(view.name, fontsize="x-small")
            row[0].set_ylabel(method)
        figure.suptitle("Dense kernels after training (red: positive, blue: negative; each on its own scale)")
        save(figure, "kernels.png")
    return paths


def _curves(result: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for run in result["runs"]:
        if run["epochs"]:
            curves.setdefault(run["method"], []).append([epoch["test_accuracy"] for epoch in run["epochs"]])
    # A run that was cut short cannot be averaged with whole ones.
    longest = {method: max(map(len, runs)) for method, runs in curves.items()}
    return {method: [run for run in runs if len(run) == longest[method]] for method, runs in curves.items()}
