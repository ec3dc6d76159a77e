"""Classify long series: 1-D convolutions that read samples far apart with few elements.

ACSF1 has the power of household appliances over time: 100 training series of 1,460 samples, and 10 classes. Classes
often differ by patterns of switching that take hundreds of samples. The example compares two small networks with about
equally many parameters: one with dense kernels of 7 samples, one with `Dcls1d` kernels of 129 samples.

    pip install --no-deps aeon         # for the data in it; aeon itself is not imported
    python examples/long_series.py     # --problem OSULeaf: outlines of leaves, 427 samples, 6 classes

Data: series of the UCR archive, from the package aeon.
"""

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import Dcls1d, param_groups

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REACH = 129  # samples, at half the rate of the series


def read(file: Path) -> tuple[Tensor, Tensor]:
    """Series (n, 1, length), scaled to mean 0 and standard deviation 1, and classes (n,), from a file of aeon."""
    lines = file.read_text().splitlines()
    names = next(line.split()[2:] for line in lines if line.startswith("@classLabel"))
    rows = [line.rsplit(":", 1) for line in lines[lines.index("@data") + 1 :]]
    series = torch.tensor([[float(number) for number in numbers.split(",")] for numbers, _ in rows]).unsqueeze(1)
    series = (series - series.mean(-1, keepdim=True)) / series.std(-1, keepdim=True)
    return series, torch.tensor([names.index(name) for _, name in rows])


def packaged() -> Path | None:
    """The folder of aeon's data if aeon is installed. It is not imported."""
    aeon = find_spec("aeon")
    return None if aeon is None or aeon.origin is None else Path(aeon.origin).parent / "datasets" / "data"


class Block(nn.Module):
    def __init__(self, channels: int, spatial: nn.Module) -> None:
        super().__init__()
        self.spatial = spatial
        self.channels = nn.Sequential(nn.GroupNorm(1, channels), nn.Conv1d(channels, channels, 1), nn.GELU())

    def forward(self, input: Tensor) -> Tensor:
        return input + self.channels(self.spatial(input))


class Pool(nn.Module):
    """(n, channels, length) -> (n, 2 * channels): mean and maximum of each feature."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat((input.mean(-1), input.amax(-1)), 1)


def network(kernels: str, classes: int, channels: int = 32, blocks: int = 2) -> nn.Sequential:
    def spatial() -> nn.Module:
        if kernels == "dense":
            return nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        # Each element has a weight and a position, so 3 elements are 6 numbers instead of 7.
        return Dcls1d(
            *(channels, channels, 3),
            padding="same",
            dilated_kernel_size=REACH,
            groups=channels,
            interpolation="bilinear",
            position_init=("uniform", REACH // 4),
        )

    stem = nn.Conv1d(1, channels, 7, stride=2, padding=3)
    body = [Block(channels, spatial()) for _ in range(blocks)]
    return nn.Sequential(stem, *body, Pool(), nn.Linear(2 * channels, classes))


def train(model: nn.Module, series: Tensor, labels: Tensor, epochs: int, batch: int = 20) -> None:
    optimizer = torch.optim.AdamW(param_groups(model, lr=5e-3, weight_decay=0.05))
    rates = [group["lr"] for group in optimizer.param_groups]  # positions have a learning rate of their own
    steps = len(series) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(series)).split(batch):
            shift = int(torch.randint(series.shape[-1], ()))  # augmentation: a recording may begin anywhere
            loss = F.cross_entropy(model(series[chosen].roll(shift, -1)), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=("ACSF1", "OSULeaf"), default="ACSF1")
    parser.add_argument("--data", type=Path, help="the folder aeon/datasets/data, if aeon is not installed")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("long_series.png"), help="the picture")
    options = parser.parse_args(arguments)
    folder = options.data or packaged()
    if folder is None:
        parser.error("aeon is not installed: pip install --no-deps aeon")

    files = folder / options.problem
    series, labels = read(files / f"{options.problem}_TRAIN.ts")
    test_series, test_labels = read(files / f"{options.problem}_TEST.ts")
    classes = int(labels.max()) + 1
    print(f"{options.problem}: {len(series)} training series of {series.shape[-1]} samples, {classes} classes.")
    for kernels in ("dense", "dcls"):
        accuracies, began = [], time.perf_counter()
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = network(kernels, classes)
            train(model, series, labels, options.epochs)
            model.eval()
            with torch.no_grad():
                accuracies.append((model(test_series).argmax(1) == test_labels).float().mean().item() * 100)
        count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        each = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        took = (time.perf_counter() - began) / options.seeds
        print(
            f"{kernels}, {count:,} learned parameters, {took:.0f} s a run: test accuracy "
            f"{sum(accuracies) / options.seeds:.1f} % (seeds: {each})."
        )

    with torch.no_grad():
        kernel = model[1].spatial.kernel()[:, 0]
    figure, axes = plt.subplots(2, 1, figsize=(10, 6), layout="constrained")
    for number in range(3):
        axes[0].plot(test_series[test_labels == number][0, 0] + 8 * number, linewidth=0.6, label=f"class {number}")
    axes[0].set(title=f"{options.problem}: a series of each of three classes", xlabel="sample", yticks=[])
    axes[0].legend(loc="upper right")
    largest, edge = float(kernel.abs().max()), REACH / 2
    colors = {"cmap": "RdBu", "vmin": -largest, "vmax": largest, "aspect": "auto", "interpolation": "nearest"}
    shown = axes[1].imshow(kernel, extent=(-edge, edge, len(kernel) - 0.5, -0.5), **colors)
    axes[1].set(title="kernels of the first Dcls1d", xlabel="position, in pairs of samples", ylabel="channel")
    figure.colorbar(shown, ax=axes[1])
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
