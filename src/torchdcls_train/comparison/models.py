"""The models of a comparison."""

from typing import Protocol

import torch
from torch import Tensor, nn

from torchdcls import large_kernel_conv2d
from torchdcls.conversion import ConversionReport, convert, select
from torchdcls.conversion.swap import swap_modules_

from .config import BASELINE, CompareConfig, Layers
from .small import comparison_model, weight_std


class Shape(Protocol):
    """What a model must know of the images it is for."""

    @property
    def channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def image_size(self) -> int: ...


class DenseConv2d(nn.Conv2d):
    """A convolution without stride or dilation, by whatever method is the fastest here, as DCLS layers have it."""

    def forward(self, input: Tensor) -> Tensor:
        """See `torch.nn.Conv2d`."""
        return large_kernel_conv2d(input, self.weight, self.bias, padding=self.padding, groups=self.groups)  # type: ignore[arg-type]


def compared_model(
    config: CompareConfig, layers: Layers, data: Shape, seed: int
) -> tuple[nn.Module, ConversionReport | None]:
    """The model with the layers compared; weights of others than depthwise layers are the same for all of these.

    Args:
        config: Settings.
        layers: What replaces the depthwise layers.
        data: Decides on channels, classes and size.
        seed: Of all initial values.

    Returns:
        The model, and the report of its conversion, None for the baseline.

    Raises:
        ValueError: A kernel count with which the model would have more parameters than the baseline.
    """
    torch.manual_seed(seed)
    model = comparison_model(config.model, data.channels, data.num_classes, data.image_size)
    if layers == BASELINE:
        _speed_up_(model)
        return model, None
    start = ("uniform", config.position_radius) if config.position_radius else ("normal", 0.5)
    report = convert(
        model,
        dilated_kernel_size=config.dilated_kernel_size,
        kernel_count=config.kernel_count or "iso",
        interpolation=layers,  # type: ignore[arg-type]
        position_init=start,  # type: ignore[arg-type]
        sigma_init=None if layers == "bilinear" else config.sigma_init,
        weight_std=weight_std(model),
    )
    if report.parameters_after > report.parameters_before:
        raise ValueError(
            f"kernel_count: expected a count at which {layers} has at most {BASELINE}'s {report.parameters_before:,} "
            f"parameters, got {report.kernel_count} with {report.parameters_after:,}; leave it out for the largest"
        )
    return model, report


def _speed_up_(model: nn.Module) -> None:
    """Has depthwise layers computed by the library; their weights stay."""
    others: dict[nn.Module, nn.Module] = {}
    for old in model.modules():
        if type(old) is not nn.Conv2d or select.default_reason(old) is not None:
            continue
        if old.dilation == (1, 1) and old.padding_mode == "zeros":
            size, padding = old.kernel_size, old.padding
            others[old] = new = DenseConv2d(
                old.in_channels,
                old.out_channels,
                size,  # type: ignore[arg-type]
                padding=padding,  # type: ignore[arg-type]
                groups=old.groups,
                device="meta",
            )
            new.weight, new.bias = old.weight, old.bias
    swap_modules_(model, others)
