"""What a layer has learned: where its elements sit, and the kernels they make."""

from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor


def draw_positions(axes: Axes, position: Tensor, weight: Tensor, size: tuple[int, int]) -> None:
    """Draws the elements of a 2-D layer over the grid, each a dot whose area is its weight's magnitude.

    Args:
        axes: Where to draw.
        position: (2, ...), rows then columns. Unit: grid cells; origin: cell `size // 2`.
        weight: (...), one number per element; only its magnitude counts.
        size: Kernel size, (height, width).
    """
    rows, columns = position.detach().float().reshape(2, -1)
    magnitude = weight.detach().float().abs().flatten()
    area = 1 + 24 * magnitude / magnitude.max().clamp_min(1e-12)
    axes.scatter(columns.numpy(), rows.numpy(), s=area.numpy(), alpha=0.35, linewidths=0)
    height, width = size
    axes.set_xlim(-(width // 2) - 0.5, width - 1 - width // 2 + 0.5)
    # Rows count downwards, as in the kernel.
    axes.set_ylim(height - 1 - height // 2 + 0.5, -(height // 2) - 0.5)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)


def draw_kernel(axes: Axes, kernel: Tensor) -> AxesImage:
    """Draws one dense 2-D kernel, blue below zero and red above, on a scale of its own.

    Args:
        axes: Where to draw.
        kernel: (height, width).
    """
    values = kernel.detach().float()
    limit = float(values.abs().max()) or 1.0
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(values.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
