"""`torchdcls info`: its options, and what it calls. What it needs is imported when it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .. import _checks
from ..profiles import INTERPOLATIONS, Interpolation
from .options import Command, add_settings

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from rich.console import Console
    from torch import Tensor
    from torch.nn import Module

    from ..inspection import ModelInfo
    from ..models.named import Named


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class InfoConfig:
    """Options of `torchdcls info`."""

    dilated_kernel_size: Sequence[int] = _option((23,), "sizes of dense kernels to convert to, such as 13 17 23")
    interpolation: Sequence[Interpolation] = _option(INTERPOLATIONS, "interpolations to convert to")
    kernel_count: int | Literal["iso"] = _option(
        "iso", "elements per kernel, or iso: as many as need no more parameters than before"
    )
    image_size: int | None = _option(
        None, "height and width of the images; by default those that the model is made for"
    )
    num_classes: int | None = _option(None, "number of classes; by default the model's own")

    def __post_init__(self) -> None:
        for size in self.dilated_kernel_size:
            _checks.integer("dilated_kernel_size", size, 1)
        for name in ("kernel_count", "image_size", "num_classes"):
            if getattr(self, name) not in (None, "iso"):
                _checks.integer(name, getattr(self, name), 0 if name == "num_classes" else 1)


def info(name: str, config: InfoConfig, console: "Console | None" = None) -> None:
    """Describes the model of this name, and what a conversion would make of it."""
    import torch
    from rich.console import Console

    from ..conversion import parameter_count
    from ..inspection import inspect_model
    from ..inspection.tables import print_info
    from ..models.named import named_model

    def made(name: str, weights: bool) -> "Named":
        return named_model(name, num_classes=config.num_classes, image_size=config.image_size, weights=weights)

    found = made(name, weights=False)
    images = torch.empty(1, *found.input_size, device="meta")

    def inspected(model: "Module", example: "Tensor") -> "ModelInfo":
        return inspect_model(
            model,
            example,
            dilated_kernel_size=config.dilated_kernel_size,
            interpolation=config.interpolation,
            kernel_count=config.kernel_count,
            name=found.name,
        )

    try:
        told = inspected(found.model, images)
    except ValueError:
        # Some models ask for values of tensors, which are not there without weights.
        told = inspected(made(name, weights=True).model, torch.zeros(images.shape))
    remarks = []
    if found.twin is not None:
        twin = parameter_count(made(found.twin, weights=False).model)
        remarks.append(f"{found.twin}, which has dense kernels: {twin:,} parameters, {told.parameters - twin:+,} here")
    print_info(told, console or Console(), remarks)


def _info_options(arguments: Sequence[str]) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        usage="torchdcls info MODEL [--OPTION VALUE ...]",
        description="What a model is made of, and what a conversion would make of it: layers, parameters, operations, "
        "receptive field. No weights are needed.",
    )
    parser.add_argument("model", type=str, help="timm's name, or torchvision's: resnet50, torchvision:resnet50")
    add_settings(parser, InfoConfig, {})
    return parser


def _info(settings: dict[str, Any], arguments: list[str]) -> int:
    info(settings.pop("model"), InfoConfig(**settings))
    return 0


INFO = Command(_info_options, _info)
