"""Copies of a model that cost nothing: without weights, and with plain convolutions in the place of DCLS layers."""

from copy import deepcopy
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from ..nn import Dcls1d, Dcls2d, Dcls3d, DclsLayer, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d, DclsTransposeNd

_CONVOLUTIONS: dict[type[DclsLayer], Any] = {
    Dcls1d: nn.Conv1d,
    Dcls2d: nn.Conv2d,
    Dcls3d: nn.Conv3d,
    DclsTranspose1d: nn.ConvTranspose1d,
    DclsTranspose2d: nn.ConvTranspose2d,
    DclsTranspose3d: nn.ConvTranspose3d,
}


def meta_copy(model: nn.Module) -> nn.Module:
    """The model on the meta device; what layers share they share there too."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return deepcopy(model, memo)


def put_plain_(model: nn.Module) -> nn.Module:
    """Puts torch's convolution of the same dense size, with any weights, in the place of each DCLS layer."""
    fused: dict[nn.Module, nn.Module] = {}
    for layer in model.modules():
        kind = parametrize.type_before_parametrizations(layer)
        if kind not in _CONVOLUTIONS:
            continue
        assert isinstance(layer, DclsLayer)
        transposed = {"output_padding": layer.output_padding} if isinstance(layer, DclsTransposeNd) else {}
        fused[layer] = _CONVOLUTIONS[kind](
            layer.in_channels,
            layer.out_channels,
            layer.dilated_kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
            **transposed,
        ).train(layer.training)
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child in fused:
                setattr(parent, attribute, fused[child])
    return model
