"""Modules replaced by others, and a DCLS layer by the torch layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..nn import DclsLayer, DclsTransposeNd
from ..ops.conv import Padding

_PLAIN: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PLAIN_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def swap_modules_(model: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Replaces a model's modules by others, wherever these hang; the model itself stays."""
    # A module may hang at several places, of one parent even. The innermost go first: their places are the old ones.
    for name, module in reversed(list(model.named_modules(remove_duplicate=False))):
        if name and module in others:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, others[module])


def convolution_like(
    layer: DclsLayer,
    kernel_size: Sequence[int],
    padding: Padding,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> Any:
    """torch's layer of a DCLS layer's settings, with any weights."""
    kinds, more = _PLAIN, {}
    if isinstance(layer, DclsTransposeNd):
        kinds, more = _PLAIN_TRANSPOSED, {"output_padding": layer.output_padding}
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
