"""The models of a comparison."""

from typing import Protocol

import torch
from torch import Tensor, nn

from torchdcls import large_kernel_conv2d
from torchdcls.conversion import ConversionReport, convert, select
from torchdcls.profiles import PROFILES

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

    Returns:
        The model, its initial values drawn from the seed, and the report of its conversion, None for the baseline.

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
        sigma_init=None if PROFILES[layers].start is None else config.sigma_init,
        weight_std=weight_std(model),
    )
    if report.parameters_after > report.parameters_before:
        raise ValueError(
            f"kernel_count: expected a count at which {layers} has at most {BASELINE}'s {report.parameters_before:,} "
            f"parameters, got {report.kernel_count} with {report.parameters_after:,}; leave it out for the largest"
        )
    return model, report


def _speed_up_(model: nn.Module) -> None:
    """Has depthwise layers computed by the library; all else of them stays."""
    for layer in model.modules():
        if type(layer) is not nn.Conv2d or layer.dilation != (1, 1) or layer.padding_mode != "zeros":
            continue
        if select.default_reason(layer) is None:
            layer.__class__ = DenseConv2d
