"""Copies of a model that cost nothing: without weights, and with plain convolutions instead of DCLS layers."""

from copy import deepcopy
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from ..conversion.swap import convolution_like, swap_modules_
from ..nn import Dcls1d, Dcls2d, Dcls3d, DclsLayer, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d

# A subclass may compute something else.
_LAYERS = (Dcls1d, Dcls2d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d)


def meta_copy(model: nn.Module) -> nn.Module:
    """The model on the meta device; what layers share they share there too."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return deepcopy(model, memo)


def put_plain_(model: nn.Module) -> nn.Module:
    """Puts torch's convolution of the same dense size, with any weights, instead of each DCLS layer."""
    plain: dict[nn.Module, nn.Module] = {
        layer: convolution_like(
            layer, layer.dilated_kernel_size, layer.padding, layer.weight.device, layer.weight.dtype
        )
        for layer in model.modules()
        if isinstance(layer, DclsLayer) and parametrize.type_before_parametrizations(layer) in _LAYERS
    }
    swap_modules_(model, plain)
    return model
