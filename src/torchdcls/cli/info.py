"""`torchdcls info`: its options, and what it calls. What only the run needs is imported there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser

from .. import _checks
from ..conversion import parameter_count
from ..inspection import inspect_model
from ..profiles import INTERPOLATIONS, Interpolation
from .options import Command, add_settings


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class InfoConfig:
    """Options of `torchdcls info`."""

    dilated_kernel_size: Sequence[int] = _option((23,), "sizes of dense kernels to convert to, such as 13 17 23")
    interpolation: Sequence[Interpolation] = _option(INTERPOLATIONS, "interpolations to convert to")
    kernel_count: int | Literal["iso"] = _option(
        "iso", "elements per kernel, or iso: the most that need no more parameters than before"
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


def _options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls info MODEL [--OPTION VALUE ...]",
        description="Describe a model and preview conversions: layers, parameters, operations, receptive field. "
        "No weights are needed.",
    )
    parser.add_argument("model", type=str, help="timm's name, or torchvision's: resnet50, torchvision:resnet50")
    add_settings(parser, InfoConfig, {})
    return parser


def _run(settings: dict[str, Any], arguments: list[str]) -> int:
    from rich.console import Console

    from ..inspection.tables import print_info
    from ..models.named import named_model

    name, config = settings.pop("model"), InfoConfig(**settings)
    made = partial(named_model, num_classes=config.num_classes, image_size=config.image_size)
    found = made(name, weights=False)
    images = torch.empty(1, *found.input_size, device="meta")
    inspected = partial(
        inspect_model,
        dilated_kernel_size=config.dilated_kernel_size,
        interpolation=config.interpolation,
        kernel_count=config.kernel_count,
        name=found.name,
    )
    try:
        told = inspected(found.model, images)
    except ValueError:
        # Some models read values of tensors, which do not exist without weights.
        told = inspected(made(name, weights=True).model, torch.zeros(images.shape))
    remarks = []
    if found.twin is not None:
        twin = parameter_count(made(found.twin, weights=False).model)
        remarks.append(f"{found.twin}, which has dense kernels: {twin:,} parameters, {told.parameters - twin:+,} here")
    print_info(told, Console(), remarks)
    return 0


INFO = Command(_options, _run)
