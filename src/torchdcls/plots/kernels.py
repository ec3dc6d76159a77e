"""Pictures of a layer: the positions of its elements, and the kernels that they make."""

import torch
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .. import _checks

Size = tuple[int, int]


def draw_positions(
    axes: Axes,
    position: Tensor,
    weight: Tensor,
    size: Size,
    start: Tensor | None = None,
    furthest: float | None = None,
) -> Collection:
    """Draws the elements of a 2-D layer over the grid, each a dot whose area is its weight's magnitude.

    Args:
        axes: Where to draw.
        position: (2, ...), rows then columns. Unit: grid cells; origin: cell `size // 2`.
        weight: (...), one number per element; only its magnitude counts.
        size: Kernel size, (height, width).
        start: Positions before training, shaped as `position`. A line leads from each start to its dot, colored by
            length, and a dashed frame encloses all starts.
        furthest: Length at the end of the color scale, so that several pictures share one. Unit: grid cells.

    Returns:
        The lines, for a color bar; without `start` the dots.
    """
    _checks.tensors(position=position, weight=weight, start=start, optional=("start",))
    ends = position.detach().float().reshape(2, -1).flip(0)
    magnitude = weight.detach().float().abs().flatten()
    area = 1 + 24 * magnitude / magnitude.max().clamp_min(1e-12)
    drawn: Collection = axes.scatter(ends[0].numpy(), ends[1].numpy(), s=area.numpy(), alpha=0.35, linewidths=0)
    if start is not None:
        starts = start.detach().float().reshape(2, -1).flip(0)
        drawn.set_color("0.5")
        drawn = _draw_ways(axes, starts, ends, furthest)
    _show_cells(axes, size)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    return drawn


def _draw_ways(axes: Axes, starts: Tensor, ends: Tensor, furthest: float | None) -> LineCollection:
    """Lines from starts to ends, both (2, elements), columns then rows."""
    moved = (ends - starts).norm(dim=0)
    order = moved.argsort()  # the longest ones above
    ways = torch.stack([starts.T[order], ends.T[order]], 1).numpy()
    lines = LineCollection(list(ways), cmap="viridis", linewidths=1.3, capstyle="round", zorder=2)
    lines.set_array(moved[order].numpy())
    lines.set_clim(0, float(moved.max()) if furthest is None else furthest)
    axes.add_collection(lines, autolim=False)
    (left, top), (right, bottom) = starts.amin(1).tolist(), starts.amax(1).tolist()
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, linestyle="--", linewidth=0.8))
    return lines


def draw_kernel(axes: Axes, kernel: Tensor, shown: Size | None = None) -> AxesImage:
    """Draws one dense 2-D kernel, blue below zero and red above, on a scale of its own.

    Args:
        axes: Where to draw.
        kernel: (height, width).
        shown: Size of the largest kernel in the figure, (height, width), so that cells have the same size in all
            panels.
    """
    _checks.tensor("kernel", kernel)
    values = kernel.detach().float()
    limit = float(values.abs().max()) or 1.0
    height, width = values.shape
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    axes.set_xticks([])
    axes.set_yticks([])
    image = axes.imshow(
        values.numpy(),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
        extent=(left, left + width, top + height, top),
    )
    _show_cells(axes, (height, width) if shown is None else shown)
    # The kernel's border; what lies beyond is no part of it.
    axes.add_patch(Rectangle((left, top), width, height, fill=False, linewidth=1.0))
    axes.set_frame_on(False)
    return image


def _show_cells(axes: Axes, size: Size) -> None:
    height, width = size
    axes.set_xlim(-(width // 2) - 0.5, width - 1 - width // 2 + 0.5)
    # Rows count downwards, as in the kernel.
    axes.set_ylim(height - 1 - height // 2 + 0.5, -(height // 2) - 0.5)
    axes.set_aspect("equal")
