"""Label the lobes of a brain in a magnetic resonance image: 3-D segmentation with large, sparse kernels.

A patch of cortex looks the same in every lobe. To label it, a network must see where in the brain it is. Two small
networks with about equally many parameters learn this on one hemisphere and are tested on the other one. One has
dense 3x3x3 kernels, the other has `Dcls3d` kernels of 13x13x13 cells with a few elements each. Both hemispheres are of
one person and resemble each other. The example shows how to use the layer, not how well it segments other brains.

    apt-get download mricron-data && dpkg -x mricron-data_*.deb .      # or: apt install mricron-data
    python examples/brain_segmentation.py --data usr/share/mricron/templates

Data: the "Colin 27" head (ch2.nii.gz) and the AAL atlas (aal.nii.gz, aal.nii.txt) of Debian's package mricron-data.
Needs nibabel.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import Dcls3d, param_groups

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# The thousands of AAL's codes. Cells of no region (white matter, skull, air) are class 0.
GROUPS = {
    2: "frontal",
    3: "insula",
    4: "limbic",
    5: "occipital",
    6: "parietal",
    7: "deep",
    8: "temporal",
    9: "cerebellum",
}
CLASSES = 1 + len(GROUPS)
CELL = 4  # mm along an edge of a cell; the files have 1 mm


def hemispheres(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Left and mirrored right hemisphere: an image (1, 1, x, y, z) and the class of each cell (1, x, y, z)."""
    group_of = np.zeros(256, dtype=np.int64)
    for row in (folder / "aal.nii.txt").read_text().strip().splitlines():
        region, _, code = row.split()
        group_of[int(region)] = list(GROUPS).index(int(code) // 1000) + 1
    head = torch.from_numpy(np.asarray(nibabel.load(folder / "ch2.nii.gz").dataobj).astype(np.float32))
    lobes = torch.from_numpy(group_of[np.asarray(nibabel.load(folder / "aal.nii.gz").dataobj)])
    head = F.avg_pool3d(head[None, None] / head.std(), CELL, ceil_mode=True, count_include_pad=False)
    lobes = lobes[None, CELL // 2 :: CELL, CELL // 2 :: CELL, CELL // 2 :: CELL]
    head = head[..., : lobes.shape[1], : lobes.shape[2], : lobes.shape[3]]
    half = lobes.shape[1] // 2
    left = head[:, :, :half], lobes[:, :half]
    right = head[:, :, -half:].flip(2), lobes[:, -half:].flip(1)
    return left, right


class Block(nn.Module):
    def __init__(self, channels: int, spatial: nn.Module) -> None:
        super().__init__()
        self.spatial = spatial
        self.channels = nn.Sequential(nn.GroupNorm(1, channels), nn.Conv3d(channels, channels, 1), nn.GELU())

    def forward(self, input: Tensor) -> Tensor:
        return input + self.channels(self.spatial(input))


def network(kernels: str, channels: int = 16, blocks: int = 4) -> nn.Module:
    def spatial() -> nn.Module:
        if kernels == "dense":
            return nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        # Each element has a weight and three coordinates, so 6 elements are 24 numbers instead of 27.
        return Dcls3d(
            *(channels, channels, 6),
            padding="same",
            dilated_kernel_size=13,
            groups=channels,
            interpolation="bilinear",
            position_init=("uniform", 6),
        )

    stem = nn.Conv3d(1, channels, 3, padding=1)
    return nn.Sequential(stem, *(Block(channels, spatial()) for _ in range(blocks)), nn.Conv3d(channels, CLASSES, 1))


def dice(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice score of each group, its overlap with the prediction, from 0 to 1."""
    each = [(predicted == group, truth == group) for group in range(1, CLASSES)]
    return torch.stack([2 * (one & other).sum() / (one.sum() + other.sum()).clamp(min=1) for one, other in each])


def train(model: nn.Module, image: Tensor, lobes: Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.01, weight_decay=0.01))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    frequent = F.one_hot(lobes, CLASSES).float().mean((0, 1, 2, 3)).clamp(min=1e-3)
    for _ in range(steps):
        loss = F.cross_entropy(model(image), lobes, weight=frequent**-0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/mricron/templates"), help="folder of the files")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("brain_segmentation.png"), help="the picture")
    options = parser.parse_args(arguments)

    (image, lobes), (other_image, other_lobes) = hemispheres(options.data)
    size = "x".join(map(str, lobes.shape[1:]))
    print(f"Training on one hemisphere, {size} cells of {CELL} mm, testing on the other.")
    found = {}
    for kernels in ("dense", "dcls"):
        torch.manual_seed(0)
        model = network(kernels)
        began = time.perf_counter()
        train(model, image, lobes, options.steps)
        took = time.perf_counter() - began
        with torch.no_grad():
            found[kernels] = model(other_image).argmax(1)
        overlap = dice(found[kernels], other_lobes)
        parts = ", ".join(f"{name} {value:.2f}" for name, value in zip(GROUPS.values(), overlap.tolist(), strict=True))
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{kernels}, {count:,} parameters, {took:.0f} s: mean Dice {overlap.mean():.3f} ({parts}).")

    at = lobes.shape[1] // 2  # a section seen from the side, halfway between the ear and the middle
    figure, axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
    axes[0].imshow(other_image[0, 0, at].T, cmap="gray", origin="lower")
    colors = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "interpolation": "nearest", "origin": "lower"}
    for axis, classes in zip(axes[1:], (other_lobes, found["dense"], found["dcls"]), strict=True):
        shown = axis.imshow(np.ma.masked_equal(classes[0, at].T.numpy(), 0), **colors)
    for axis, title in zip(axes, ("head", "atlas", "3x3x3 dense", "13x13x13, 6 elements"), strict=True):
        axis.set(title=title, xticks=[], yticks=[])
    bar = figure.colorbar(shown, ax=axes, ticks=range(1, CLASSES), boundaries=np.arange(1, CLASSES + 1) - 0.5)
    bar.ax.set_yticklabels(GROUPS.values())
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
