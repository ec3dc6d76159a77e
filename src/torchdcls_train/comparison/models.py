"""The models of a comparison."""

from typing import Protocol

import torch
from torch import nn

from torchdcls.conversion import ConversionReport, convert

from .config import BASELINE, CompareConfig, Method
from .small import comparison_model


class Shape(Protocol):
    """What a model must know of the images it is for."""

    @property
    def channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def image_size(self) -> int: ...


def method_model(
    config: CompareConfig, method: Method, data: Shape, seed: int
) -> tuple[nn.Module, ConversionReport | None]:
    """The model of a method; other weights than those of depthwise layers are the same for all methods.

    Args:
        config: Settings.
        method: What stands in the place of the depthwise layers.
        data: Decides on channels, classes and size.
        seed: Of all initial values.

    Returns:
        The model, and the report of its conversion, None for the baseline.

    Raises:
        ValueError: A kernel count with which the model would have more parameters than the baseline.
    """
    torch.manual_seed(seed)
    model = comparison_model(config.model, data.channels, data.num_classes, data.image_size)
    if method == BASELINE:
        return model, None
    start = ("uniform", config.position_radius) if config.position_radius else ("normal", 0.5)
    report = convert(
        model,
        dilated_kernel_size=config.dilated_kernel_size,
        kernel_count=config.kernel_count or "iso",
        interpolation=method,  # type: ignore[arg-type]
        position_init=start,  # type: ignore[arg-type]
        weight_std=0.02,
    )
    if report.parameters_after > report.parameters_before:
        raise ValueError(
            f"kernel_count: expected a count at which {method} has at most {BASELINE}'s {report.parameters_before:,} "
            f"parameters, got {report.kernel_count} with {report.parameters_after:,}; leave it out for the largest"
        )
    return model, report
