"""Label the pixels of a scene: a decoder of transposed convolutions with learnable spacings.

A scene has two real images of clothing, placed at random, one over the other. The label of a pixel is the kind of the
piece on top there, or none, so labels are exact. Two networks with about equally many parameters have the same encoder
and different decoders, which bring features back to full size: `torch.nn.ConvTranspose2d` layers of 4x4 taps, or
`DclsTranspose2d` layers of 15x15 cells with 5 elements each.

    python examples/segmentation.py

Data: the 7,000 images of Fashion-MNIST that come with torchdcls.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import DclsTranspose2d, param_groups
from torchdcls_train.data import load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE, PIECES = 48, 2
# Kinds, and which of Fashion-MNIST's classes belong to each: those that differ in shape.
KINDS = {"top": (0, 2, 4, 6), "trouser": (1,), "dress": (3,), "shoe": (5, 7, 9), "bag": (8,)}


def scenes(images: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (count, 1, SIZE, SIZE), from 0 to 1, and the kind of each pixel (count, SIZE, SIZE), 0 for none."""
    kind_of = {label: kind for kind, classes in enumerate(KINDS.values(), start=1) for label in classes}
    picture = torch.zeros(count, 1, SIZE, SIZE)
    truth = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    height, width = images.shape[-2:]
    for number in range(count):
        for index in torch.randint(len(images), (PIECES,), generator=generator).tolist():
            top, left = torch.randint(SIZE - height + 1, (2,), generator=generator).tolist()
            part = slice(top, top + height), slice(left, left + width)
            piece = images[index, 0].float() / 255
            shape = piece > 0.1
            picture[number, 0][part][shape] = piece[shape]
            truth[number][part][shape] = kind_of[int(labels[index])]
    return picture, truth


def network(decoder: str, classes: int, channels: int = 24) -> nn.Sequential:
    def down(inputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.GELU())

    def up() -> nn.Sequential:
        if decoder == "dense":
            spread: nn.Module = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels)
        else:
            # Each element has a weight and two coordinates, so 5 elements are 15 numbers instead of 16.
            spread = DclsTranspose2d(
                *(channels, channels, 5),
                stride=2,
                padding=7,
                output_padding=1,
                dilated_kernel_size=15,
                groups=channels,
                interpolation="bilinear",
                position_init=("uniform", 3),
            )
        return nn.Sequential(spread, nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.GELU())

    encoder = [down(1), down(channels), down(channels)]
    return nn.Sequential(*encoder, up(), up(), up(), nn.Conv2d(channels, 1 + classes, 1))


def intersection_over_union(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Intersection over union of each kind, over all scenes. Class 0, no kind, is left out."""
    pairs = torch.bincount(truth.flatten() * (1 + classes) + predicted.flatten(), minlength=(1 + classes) ** 2)
    confusion = pairs.reshape(1 + classes, 1 + classes)
    hit = confusion.diagonal()
    return (hit / (confusion.sum(0) + confusion.sum(1) - hit).clamp(min=1))[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--scenes", type=int, default=2000, help="number of training scenes")
    parser.add_argument("--out", type=Path, default=Path("segmentation.png"), help="the picture")
    options = parser.parse_args(arguments)

    data = load_data("embedded")
    generator = torch.Generator().manual_seed(0)
    pictures, truth = scenes(data.train.images, data.train.labels, options.scenes, generator)
    test_pictures, test_truth = scenes(data.test.images, data.test.labels, 200, generator)
    print(f"{options.scenes:,} training scenes of {PIECES} pieces, 200 test scenes of other pieces.")
    found = {}
    for decoder in ("dense", "dcls"):
        torch.manual_seed(0)
        model = network(decoder, len(KINDS))
        optimizer = torch.optim.AdamW(param_groups(model, lr=0.01, weight_decay=0.01))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        began = time.perf_counter()
        for _ in range(options.steps):
            chosen = torch.randint(len(pictures), (32,))
            loss = F.cross_entropy(model(pictures[chosen]), truth[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        took = time.perf_counter() - began
        model.eval()
        with torch.no_grad():
            found[decoder] = model(test_pictures).argmax(1)
        score = intersection_over_union(found[decoder], test_truth, len(KINDS)).mean() * 100
        pixels = (found[decoder] == test_truth)[test_truth > 0].float().mean() * 100
        count = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{decoder}, {count:,} parameters, {took:.0f} s: mean intersection over union {score:.1f} %, "
            f"{pixels:.1f} % of the pixels of clothes correct."
        )

    figure, axes = plt.subplots(4, 4, figsize=(9, 8.2), layout="constrained")
    colors = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "interpolation": "nearest"}
    for column, number in zip(axes.T, range(4), strict=True):
        column[0].imshow(test_pictures[number, 0], cmap="gray")
        for axis, classes in zip(column[1:], (test_truth, found["dense"], found["dcls"]), strict=True):
            shown = axis.imshow(np.ma.masked_less(classes[number].numpy() - 1, 0), **colors)
        for axis in column:
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("scene", "truth", "ConvTranspose2d", "DclsTranspose2d"), strict=True):
        axis.set_ylabel(name)
    bar = figure.colorbar(shown, ax=axes, ticks=range(len(KINDS)), boundaries=np.arange(len(KINDS) + 1) - 0.5)
    bar.ax.set_yticklabels(KINDS)
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
