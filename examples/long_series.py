"""Classify long series: 1-D convolutions that reach far with few elements.

ACSF1 asks which kind of household appliance drew the power: 1,460 samples a series, 10 kinds, 100 series to learn from.
What tells them apart is often a pattern of switching that takes hundreds of samples. Two small networks with about
equally many parameters: one with dense kernels of 7 samples, one with `Dcls1d` kernels of 129 samples.

    pip install --no-deps aeon         # for the files in it; aeon itself is not imported
    python examples/long_series.py     # --problem OSULeaf: outlines of leaves, 427 samples, 6 kinds

Data: the UCR archive's series as they come with the package aeon.
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
from torchdcls.delays import SigmaSchedule

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(file: Path) -> tuple[Tensor, Tensor]:
    """Series (n, 1, length), each of mean 0 and deviation 1, and their classes (n,), of a file of aeon's format."""
    lines = file.read_text().splitlines()
    names = next(line.split()[2:] for line in lines if line.startswith("@classLabel"))
    rows = [line.rsplit(":", 1) for line in lines[lines.index("@data") + 1 :]]
    series = torch.tensor([[float(number) for number in numbers.split(",")] for numbers, _ in rows]).unsqueeze(1)
    series = (series - series.mean(-1, keepdim=True)) / series.std(-1, keepdim=True)
    return series, torch.tensor([names.index(name) for _, name in rows])


def network(kernels: str, classes: int, channels: int = 32, blocks: int = 3) -> nn.Sequential:
    def spatial() -> nn.Module:
        if kernels == "dense":
            return nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        # Each element has a weight and a position: 3 of them (sigmas are annealed, not learned) in the place of 7.
        return Dcls1d(
            *(channels, channels, 3),
            padding="same",
            dilated_kernel_size=129,
            groups=channels,
            interpolation="gaussian",
            position_init=("uniform", 64),
            bias=True,
        )

    model = nn.Sequential(nn.Conv1d(1, channels, 7, stride=2, padding=3))
    for _ in range(blocks):
        model.extend([spatial(), nn.BatchNorm1d(channels), nn.Conv1d(channels, channels, 1), nn.GELU()])
    return model.extend([nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, classes)])


def train(model: nn.Module, series: Tensor, labels: Tensor, epochs: int, batch: int = 20) -> None:
    optimizer = torch.optim.AdamW(param_groups(model, lr=2e-3, weight_decay=0.05, position_lr_scale=50.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    has_dcls = any(isinstance(module, Dcls1d) for module in model)
    sigma = SigmaSchedule(model, start=8.0, end=0.23, epochs=epochs) if has_dcls else None
    for _ in range(epochs):
        for chosen in torch.randperm(len(series)).split(batch):
            shift = int(torch.randint(series.shape[-1], ()))  # a recording may begin anywhere
            loss = F.cross_entropy(model(series[chosen].roll(shift, -1)), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if sigma is not None:
            sigma.step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=("ACSF1", "OSULeaf"), default="ACSF1")
    parser.add_argument("--data", type=Path, help="the folder aeon/datasets/data, if aeon is not installed")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("long_series.png"), help="the picture")
    options = parser.parse_args(arguments)
    if options.data is None:
        aeon = find_spec("aeon")
        if aeon is None or aeon.origin is None:
            parser.error("aeon is not installed: pip install --no-deps aeon")
        options.data = Path(aeon.origin).parent / "datasets" / "data"

    files = options.data / options.problem
    series, labels = read(files / f"{options.problem}_TRAIN.ts")
    test_series, test_labels = read(files / f"{options.problem}_TEST.ts")
    classes = int(labels.max()) + 1
    print(f"{options.problem}: {len(series)} series of {series.shape[-1]} samples, {classes} kinds.")
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

    layer = model[1]
    assert isinstance(layer, Dcls1d)
    figure, axes = plt.subplots(2, 1, figsize=(10, 6), layout="constrained")
    for kind in range(3):
        axes[0].plot(test_series[test_labels == kind][0, 0], linewidth=0.8, label=f"kind {kind}")
    axes[0].set(title=f"{options.problem}: a series of each of three kinds", xlabel="sample")
    axes[0].legend(loc="upper right")
    largest = float(layer.kernel().abs().max())
    colors = {"cmap": "RdBu", "vmin": -largest, "vmax": largest, "aspect": "auto", "interpolation": "nearest"}
    shown = axes[1].imshow(layer.kernel().detach()[:, 0], extent=(-64.5, 64.5, 31.5, -0.5), **colors)
    axes[1].set(title="kernels of the first Dcls1d layer", xlabel="sample from the middle", ylabel="channel")
    figure.colorbar(shown, ax=axes[1])
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
