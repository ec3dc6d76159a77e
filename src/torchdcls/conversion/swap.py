"""Replacing modules by others, and torch's layers with the settings of DCLS layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..nn import DclsLayer, DclsTransposeNd
from ..ops.conv import Padding

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def swap_modules_(model: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Replaces a model's modules by others, at all their places; the model itself stays."""
    # A module may have several places, even in one parent. The innermost are replaced first, while their parents stay.
    for name, module in reversed(list(model.named_modules(remove_duplicate=False))):
        if name and module in others:
            model.set_submodule(name, others[module])


def convolution_like(
    layer: DclsLayer,
    kernel_size: Sequence[int],
    padding: Padding,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> Any:
    """torch's layer with a DCLS layer's settings and any weights."""
    kinds: tuple[Any, ...] = CONVOLUTIONS
    more = {}
    if isinstance(layer, DclsTransposeNd):
        kinds, more = TRANSPOSED, {"output_padding": layer.output_padding}
    return kinds[layer.dims - 1](
        layer.in_channels,
        layer.out_channels,
        tuple(kernel_size),
        stride=layer.stride,
        padding=padding,
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device=device,
        dtype=dtype,
        **more,
    ).train(layer.training)
