"""Draws the figures of the start pages with the library: `python docs/figures.py [FOLDER]`.

They are at most 6 inches wide, so that their words can be read at the width of a telephone.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from torchdcls import Dcls2d, construct_kernel, param_groups
from torchdcls.plots import draw_kernel, draw_positions

IMAGES = Path(__file__).parent / "images"
SIZE = (17, 17)


def element() -> Figure:
    """Elements over the grid, and their kernel."""
    places = [[-6.0, -3.0, 0.5, 4.6, 6.0], [-5.2, 4.4, -1.5, -6.0, 5.5]]  # rows, columns
    position = torch.tensor(places).reshape(2, 1, 1, 5)
    weight = torch.tensor([1.0, 0.8, -0.9, 0.6, -0.5]).reshape(1, 1, 5)
    kernel = construct_kernel(weight, position, torch.full_like(position, 0.23), SIZE)
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    dots = draw_positions(left, position[:, 0, 0], weight[0, 0], SIZE)
    # As large as they can be seen, in the colors of the kernel.
    dots.set(alpha=1, sizes=6 * dots.get_sizes(), color=["#b2182b" if one > 0 else "#2166ac" for one in weight[0, 0]])
    left.set_title("5 elements")
    draw_kernel(right, kernel[0, 0])
    right.set_title("their 17x17 kernel")
    return figure


def position() -> Figure:
    """One bilinear element between two cells."""
    figure = Figure(figsize=(4.5, 4.6), layout="constrained")
    for axes, place in zip(figure.subplots(2, 2).flat, (0.0, 0.25, 0.5, 1.0), strict=True):
        kernel = construct_kernel(
            torch.ones(1, 1, 1), torch.tensor([0.0, place]).reshape(2, 1, 1, 1), None, 5, "bilinear"
        )
        draw_kernel(axes, kernel[0, 0])
        axes.set_title(f"position (0, {place:g})")
    return figure


def interpolation() -> Figure:
    """The kernel of one element in 1-D, by each interpolation."""
    figure = Figure(figsize=(5.5, 2.6), layout="constrained")
    place = torch.full((1, 1, 1, 1), 0.4)
    for axes, (name, sigma) in zip(
        figure.subplots(1, 3, sharey=True),
        (("bilinear", None), ("triangle", 2.0), ("gaussian", 1.0)),
        strict=True,
    ):
        spread = None if sigma is None else torch.full_like(place, sigma)
        kernel = construct_kernel(torch.ones(1, 1, 1), place, spread, 11, name)
        axes.bar(range(-5, 6), kernel[0, 0].tolist(), color="#0072b2")
        axes.axvline(0.4, color="#d55e00", linestyle="--")
        axes.set(title=name if sigma is None else f"{name},\nsigma {sigma:g}", xlabel="cell", xticks=[-4, 0, 4])
    figure.axes[0].set_ylabel("kernel")
    return figure


def sigma() -> Figure:
    """One Gaussian element, wider and wider."""
    figure = Figure(figsize=(4.5, 4.6), layout="constrained")
    for axes, width in zip(figure.subplots(2, 2).flat, (0.0, 0.23, 1.0, 3.0), strict=True):
        place = torch.zeros(2, 1, 1, 1)
        draw_kernel(axes, construct_kernel(torch.ones(1, 1, 1), place, torch.full_like(place, width), SIZE)[0, 0])
        axes.set_title(f"sigma {width:g}")
    return figure


def first_picture() -> Figure:
    """What the page of the first picture draws."""
    torch.manual_seed(0)
    layer = Dcls2d(8, 1, kernel_count=16, dilated_kernel_size=17, padding="same", position_init=("uniform", 8.0))
    optimizer = torch.optim.AdamW(param_groups(layer, lr=0.02, weight_decay=0.0))
    for _ in range(100):
        images = torch.randn(4, 8, 32, 32)
        target = images.mean(1, keepdim=True).roll((3, -5), dims=(-2, -1))
        loss = (layer(images) - target).square().mean() / target.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    figure = Figure(figsize=(6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_kernel(left, layer.kernel()[0, 0].detach())
    dots = draw_positions(right, layer.position[:, 0].detach(), layer.weight[0].detach(), SIZE)
    dots.set(alpha=0.8, sizes=4 * dots.get_sizes())
    return figure


def icon() -> Figure:
    """Three elements on a tile."""
    places = torch.tensor([[-1.0, 0.0, 1.5], [-1.5, 1.0, -0.5]]).reshape(2, 1, 1, 3)
    kernel = construct_kernel(torch.tensor([[[1.0, 0.8, -0.9]]]), places, torch.full_like(places, 0.3), 5)
    figure = Figure(figsize=(0.64, 0.64))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_kernel(axes, kernel[0, 0])
    return figure


FIGURES: dict[str, Callable[[], Any]] = {
    "idea-element": element,
    "idea-position": position,
    "idea-interpolation": interpolation,
    "idea-sigma": sigma,
    "first-picture": first_picture,
}


def main(folder: Path) -> None:
    """Draws all figures, and the icon of the site, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw().savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
        print(f"wrote {folder / f'{name}.png'}")
    icon().savefig(folder.parent / "_static" / "icon.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
