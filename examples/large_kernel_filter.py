"""Blur a photograph with kernels of 101x101 pixels: a convolution with large kernels, without any learning.

A lens out of focus turns a point of light into a disk, and a moving camera turns it into a line. Both are convolutions.
`torchdcls.large_kernel_conv2d` computes them as `torch.nn.functional.conv2d` does, and faster.

    python examples/large_kernel_filter.py

Data: the photograph of Grace Hopper that comes with matplotlib (public domain).
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdcls import construct_kernel, large_kernel_conv2d

matplotlib.use("Agg")
import matplotlib.cbook
import matplotlib.pyplot as plt


def photograph() -> Tensor:
    """(3, height, width), from 0 to 1, in linear light: a blur adds up light, not the gamma-coded values of a file."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = torch.from_numpy(plt.imread(file, format="jpg").copy())
    return (pixels.permute(2, 0, 1).float() / 255) ** 2.2


def disk(size: int) -> Tensor:
    """A disk as wide as the kernel, its edge one pixel soft."""
    row, column = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    mask = (size / 2 - torch.hypot(row.float(), column.float())).clamp(0, 1)
    return mask / mask.sum()


def line(size: int, degrees: float) -> Tensor:
    """A line through the kernel, made of elements between cells, as in DCLS layers."""
    along = torch.linspace(-(size // 2), size // 2, 2 * size)
    angle = math.radians(degrees)
    position = torch.stack((-along * math.sin(angle), along * math.cos(angle))).reshape(2, 1, 1, -1)
    weight = torch.full((1, 1, len(along)), 1 / len(along))
    return construct_kernel(weight, position, None, (size, size), "bilinear")[0, 0]


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=101, help="kernel size in pixels, odd")
    parser.add_argument("--turns", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--out", type=Path, default=Path("large_kernel_filter.png"), help="the picture")
    options = parser.parse_args(arguments)

    image = photograph()
    edge = options.size // 2
    padded = F.pad(image, (edge, edge, edge, edge), mode="reflect")
    blurred = {}
    for name, kernel in {"disk": disk(options.size), "line": line(options.size, degrees=30)}.items():
        weight = kernel.expand(3, 1, -1, -1)  # the same filter for red, green and blue

        def ours(weight: Tensor = weight) -> Tensor:
            return large_kernel_conv2d(padded, weight, groups=3)

        def torchs(weight: Tensor = weight) -> Tensor:
            return F.conv2d(padded, weight, groups=3)

        difference = (ours() - torchs()).abs().max().item()  # also warms up both
        times = [(seconds(ours), seconds(torchs)) for _ in range(options.turns)]
        fast, slow = (sorted(column)[options.turns // 2] for column in zip(*times, strict=True))
        blurred[name] = ours()
        print(
            f"{name} of {options.size}x{options.size} on {image.shape[2]}x{image.shape[1]} pixels: "
            f"{fast * 1e3:.0f} ms, F.conv2d {slow * 1e3:.0f} ms ({slow / fast:.0f}x); "
            f"pixels, from 0 to 1, differ by {difference:.0e} at most."
        )

    figure, axes = plt.subplots(1, 3, figsize=(12, 5), layout="constrained")
    for axis, (name, picture) in zip(axes, {"photograph": image, **blurred}.items(), strict=True):
        axis.imshow((picture.clamp(0, 1) ** (1 / 2.2)).permute(1, 2, 0))
        axis.set_title(name if name == "photograph" else f"{name}, {options.size}x{options.size}")
        axis.axis("off")
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
