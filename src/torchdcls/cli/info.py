"""`torchdcls info`."""

import torch
from rich.console import Console

from ..conversion import parameter_count
from ..inspection import ModelInfo, inspect_model
from ..inspection.tables import print_info
from ..models.named import Named, named_model
from .settings import InfoConfig


def info(name: str, config: InfoConfig, console: Console | None = None) -> None:
    """Prints what is to know of a model of this name.

    Raises:
        ValueError: There is no such model, or it does not take images of this size.
    """

    def made(name: str, weights: bool) -> Named:
        return named_model(name, num_classes=config.num_classes, image_size=config.image_size, weights=weights)

    found = made(name, weights=False)
    images = torch.empty(1, *found.input_size, device="meta")

    def inspected(model: torch.nn.Module, example: torch.Tensor) -> ModelInfo:
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
