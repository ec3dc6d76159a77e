"""Anybody's model: `python -m benchmarks.families` converts, trains, stores, fuses and exports a model of each family.

What came of it goes to `benchmarks/results/`, from where `python -m benchmarks.tables` makes `docs/models.md`.
"""

import argparse
import copy
import gc
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from torchdcls import ConversionReport, convert, fuse, param_groups
from torchdcls.conversion.select import Where
from torchdcls.nn import DclsLayer
from torchdcls_results import markdown_table

from .record import RESULTS, record, write

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "torchdcls")
STEPS = ("convert", "train", "state dict", "fuse", "ONNX")
DONE = "yes"

# Spectra and direct sums round differently, layer after layer.
_NEAR = 1e-3
_REASON_LENGTH = 300
_CLASSES = 10


@dataclass(frozen=True)
class Family:
    """A model to try."""

    model: str  # its name at `source`
    source: Literal["timm", "torchvision", "ours"] = "timm"  # who makes it; "ours" are written below
    shape: tuple[int, ...] = (3, 64, 64)  # of the input, without the batch
    size: int = 11  # kernel size of the new layers along each axis
    # "depthwise" for what `convert` picks by itself, "all" for every convolution of more than one tap, for models
    # without depthwise ones.
    picked: Literal["depthwise", "all"] = "depthwise"
    # "auto" asks `export` for a file that takes other sizes where that can be, "fixed" for the input's alone: the
    # padding of these models depends on the size by remainders, which torch simplifies without end.
    sizes: Literal["auto", "fixed"] = "auto"

    def build(self) -> nn.Module:
        """The model, with random weights."""
        if self.source == "timm":
            import timm

            return timm.create_model(self.model, num_classes=_CLASSES)  # type: ignore[no-any-return]
        if self.source == "torchvision":
            import torchvision

            if self.model.startswith("deeplab"):
                get_model = torchvision.models.get_model
                return _Segmentation(get_model(self.model, weights=None, weights_backbone=None, num_classes=_CLASSES))
            model: nn.Module = torchvision.models.get_model(self.model, weights=None, num_classes=_CLASSES)
            return model
        return _OURS[self.model]()

    @property
    def where(self) -> Where | None:
        return None if self.picked == "depthwise" else _several_taps


class _Segmentation(nn.Module):
    """torchvision's models of segmentation give a dictionary; this gives the scores alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model(images)["out"]
        return scores


def _video_network() -> nn.Module:
    """Moving pictures to classes, 3-D."""
    blocks = [
        nn.Sequential(nn.Conv3d(16, 16, 5, padding=2, groups=16), nn.Conv3d(16, 16, 1), nn.GELU()) for _ in range(4)
    ]
    head = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, _CLASSES)]
    return nn.Sequential(nn.Conv3d(3, 16, (1, 4, 4), stride=(1, 4, 4)), *blocks, *head)


def _sound_network() -> nn.Module:
    """Raw sound to classes, 1-D."""
    blocks = [
        nn.Sequential(nn.Conv1d(32, 32, 9, padding=4, groups=32), nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1), nn.GELU())
        for _ in range(4)
    ]
    head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, _CLASSES)]
    return nn.Sequential(nn.Conv1d(1, 32, 16, stride=8), *blocks, *head)


_OURS: dict[str, Callable[[], nn.Module]] = {
    "a 1-D network for sound": _sound_network,
    "a 3-D network for video": _video_network,
}


def _several_taps(name: str, module: nn.Module) -> bool:
    return torch.Size(module.kernel_size).numel() > 1  # type: ignore[arg-type]


def _named(models: str, size: int = 11, picked: Literal["depthwise", "all"] = "depthwise") -> list[Family]:
    return [Family(model, size=size, picked=picked) for model in models.split()]


_LARGE = (3, 224, 224)
FAMILIES = (
    *_named(
        "convnext_atto convnextv2_atto convformer_s18 caformer_s18 fastvit_t8 repvit_m0_9 starnet_s1 "
        "mambaout_femto rdnet_tiny"
    ),
    Family("convmixer_1024_20_ks9_p14", shape=(3, 112, 112)),
    *_named(
        "inception_next_atto edgenext_xx_small efficientnet_b0 mobilenetv2_100 mobilenetv3_small_100 "
        "mobilenetv4_conv_small mnasnet_small lcnet_050 tinynet_e fbnetc_100 rexnet_100 ghostnet_100 "
        "hgnetv2_b0 efficientvit_b0"
    ),
    Family("efficientformerv2_s0", shape=_LARGE),
    *_named("mobileone_s0 mobilevit_xxs mobilevitv2_050 pvt_v2_b0 twins_svt_small xcit_nano_12_p16_224"),
    Family("davit_tiny", sizes="fixed"),
    Family("coatnet_nano_rw_224", shape=_LARGE),
    *_named("focalnet_tiny_srf shvit_s1 xception41"),
    Family("tf_efficientnet_b0", sizes="fixed"),
    *_named(
        "resnet18 resnext50_32x4d res2net50_26w_4s regnetx_002 densenet121 dla34 vgg11 hrnet_w18_small",
        size=7,
        picked="all",
    ),
    Family("ese_vovnet19b_dw"),
    Family("nfnet_l0", size=7, picked="all"),
    Family("vit_tiny_patch16_224", shape=_LARGE, picked="all"),
    Family("resnet18", source="torchvision", size=7, picked="all"),
    Family("convnext_tiny", source="torchvision"),
    Family("deeplabv3_resnet50", source="torchvision", size=7, picked="all"),
    Family("deeplabv3_mobilenet_v3_large", source="torchvision"),
    Family("r3d_18", source="torchvision", shape=(3, 8, 32, 32), size=5, picked="all"),
    Family("a 1-D network for sound", source="ours", shape=(1, 4000), size=31),
    Family("a 3-D network for video", source="ours", shape=(3, 8, 32, 32), size=7),
)


def examine(family: Family) -> dict[str, Any]:
    """Takes a model through all steps.

    Returns:
        Its name, what `convert` said, and for each step "yes" or the reason in a sentence; "onnx_sizes" says which
        sizes the exported file takes. Steps after one that failed are tried all the same where they can be.
    """
    row: dict[str, Any] = {"model": family.model, "source": family.source, "picked": family.picked}
    torch.manual_seed(0)
    example = torch.randn(2, *family.shape)
    try:
        model, report = _converted(family)
    except Exception as error:
        return row | {"convert": _sentence(error)} | dict.fromkeys(STEPS[1:], "-")
    row |= {
        "kernel_size": family.size,
        "replaced": len(report.replaced),
        "skipped": _reasons(report),
        "kernel_count": report.kernel_count,
        "parameters": [report.parameters_before, report.parameters_after],
        "convert": DONE,
    }

    def export_it() -> None:
        row["onnx_sizes"] = _export(model, example, family.sizes)

    steps: dict[str, Callable[[], None]] = {
        "train": lambda: _train_step(model, example),
        "state dict": lambda: _round_trip(model, family, example),
        "fuse": lambda: _fuse(model, example),
        "ONNX": export_it,
    }
    for name, step in steps.items():
        try:
            step()
            row[name] = DONE
        except Exception as error:
            row[name] = _sentence(error)
    return row


def _converted(family: Family) -> tuple[nn.Module, ConversionReport]:
    model = family.build()
    report = convert(model, dilated_kernel_size=family.size, kernel_count="iso", where=family.where)
    return model, report


def _train_step(model: nn.Module, example: Tensor) -> None:
    """An update of AdamW; every element has to learn from it."""
    layers = [module for module in model.modules() if isinstance(module, DclsLayer)]
    before = [layer.weight.detach().clone() for layer in layers]
    optimizer = torch.optim.AdamW(param_groups(model.train(), lr=1e-3, weight_decay=0.05))
    output = model(example)
    loss = output.square().mean()
    loss.backward()
    for layer in layers:
        for parameter in (layer.weight, layer.position):
            if parameter.grad is None or not parameter.grad.isfinite().all():
                raise RuntimeError("a layer's gradient is missing or not finite")
    optimizer.step()
    if any(bool((layer.weight == old).all()) for layer, old in zip(layers, before, strict=True)):
        raise RuntimeError("a layer's weight has not changed")


def _round_trip(model: nn.Module, family: Family, example: Tensor) -> None:
    """The state dict, in a file and into another converted model, gives the same outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save(model.state_dict(), path)
        torch.manual_seed(1)
        other, _ = _converted(family)
        other.load_state_dict(torch.load(path, weights_only=True))
    _compare(_output(other, example), _output(model, example), 0.0)


def _fuse(model: nn.Module, example: Tensor) -> None:
    """A copy with plain convolutions gives the same outputs."""
    fused = copy.deepcopy(model)
    fuse(fused)
    if any(isinstance(module, DclsLayer) for module in fused.modules()):
        raise RuntimeError("a DCLS layer is left")
    _compare(_output(fused, example), _output(model, example), _NEAR)


def _export(model: nn.Module, example: Tensor, sizes: Literal["auto", "fixed"]) -> Literal["any", "fixed"]:
    """ONNX, compared with torch by onnxruntime; returns the sizes that the file takes."""
    from torchdcls.deployment import export

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        dynamic_size: Literal["auto", False] = "auto" if sizes == "auto" else False
        report = export(model.eval(), path, to="onnx", example=example, dynamic_size=dynamic_size)
    assert report.input is not None
    return "any" if any(isinstance(size, str) for size in report.input[2:]) else "fixed"


@torch.no_grad()
def _output(model: nn.Module, example: Tensor) -> Tensor:
    output: Tensor = model.eval()(example)
    return output


def _compare(actual: Tensor, expected: Tensor, bound: float) -> None:
    difference = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= bound:
        raise RuntimeError(f"outputs differ by {difference:.1e} of the largest")


def _reasons(report: ConversionReport) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for skip in report.skipped:
        # Channels aside: what matters is why.
        reason = skip.reason.partition(" (")[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    return reasons


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 4] + " ..."


def page(result: Mapping[str, Any], caption: str) -> str:
    """`docs/models.md` of a result: a table, and the reasons below it."""
    header = ["model", "picked", "layers", "kernel", "elements", "parameters before", "after", *STEPS, "sizes"]
    table, notes = [header], []
    for row in result["families"]:
        name = row["model"] if row["source"] == "ours" else f"{row['source']} {row['model']}"
        cells = ["-"] * 5
        if "parameters" in row:
            before, after = row["parameters"]
            cells = [str(row["replaced"]), f"{row['kernel_size']}", str(row["kernel_count"])]
            cells += [f"{before:,}", f"{after:,}"]
        picked = "several taps" if row["picked"] == "all" else row["picked"]
        outcomes = [row[step] if row[step] in (DONE, "-") else "no" for step in STEPS]
        table.append([name, picked, *cells, *outcomes, row.get("onnx_sizes", "-")])
        notes += [f"- {name}, {step}: {row[step]}" for step in STEPS if row[step] not in (DONE, "-")]
    reasons: dict[str, list[int]] = {}
    for row in result["families"]:
        for reason, count in row.get("skipped", {}).items():
            reasons.setdefault(reason, []).append(count)
    skipped = [
        f"- {reason}: {sum(counts)} convolutions of {len(counts)} model{'' if len(counts) == 1 else 's'}"
        for reason, counts in sorted(reasons.items(), key=lambda entry: -sum(entry[1]))
    ]
    good = sum(all(row[step] == DONE for step in STEPS) for row in result["families"])
    lines = [
        "# Models",
        f"**{good} of {len(result['families'])} models pass all steps.** Weights are random. The steps:",
        "\n".join(
            f"- {step}"
            for step in (
                "convert: Gaussian elements replace convolutions, as many as need no more parameters;",
                "train: an optimizer step changes all elements;",
                "state dict: saved and loaded into another converted model, it gives the same outputs;",
                "fuse: plain convolutions give the same outputs but for rounding;",
                "ONNX: onnxruntime gives the same outputs. *Sizes*: whether the file takes inputs of any size.",
            )
        ),
        "Where a model has no depthwise convolutions, `where=` picks all with several taps. Below the table is the "
        'reason for each "no".',
        markdown_table(table),
        "## What did not work",
        "\n".join(notes) or "Nothing.",
        "## Convolutions that were not replaced",
        "\n".join(skipped),
        caption,
    ]
    return "\n\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Examines all families or some; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families", description="Take a model of each family through everything."
    )
    parser.add_argument("--model", action="append", metavar="NAME", help="this model alone; several times for several")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default: benchmarks/results)")
    arguments = parser.parse_args(argv)
    known = list(dict.fromkeys(family.model for family in FAMILIES))
    if unknown := [name for name in arguments.model or [] if name not in known]:
        parser.error(f"--model: {unknown[0]!r} is none of {', '.join(known)}")
    chosen = [family for family in FAMILIES if arguments.model is None or family.model in arguments.model]
    console = Console()
    result = record("families", argv, PACKAGES, module="benchmarks.families")
    result |= {"complete": len(chosen) == len(FAMILIES), "families": []}
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("families", total=len(chosen))
        for family in chosen:
            progress.update(task, description=family.model)
            row = examine(family)
            result["families"].append(row)
            said = ", ".join(f"{step} {row[step]}" for step in STEPS)
            progress.console.print(f"{family.source} {family.model}: {said}", highlight=False, soft_wrap=True)
            progress.advance(task)
            gc.collect()
    path = write(result, arguments.out)
    console.print(f"Written to {path}; python -m benchmarks.tables makes the page", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
