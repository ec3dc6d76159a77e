"""Convolutions and models small enough to run many times, and counts made without the package."""

import torch
from timm.models.convnext import ConvNeXt
from torch import nn

from torchdcls.nn import DclsNd

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def depthwise(channels=4, kernel_size=7, *, dims=2, padding=None, **options):
    """A depthwise convolution that keeps the size of its input, unless `options` say otherwise."""
    padding = kernel_size // 2 if padding is None else padding
    return CONVOLUTIONS[dims](channels, channels, kernel_size, padding=padding, groups=channels, **options)


def convnext(depths=(2, 2, 3, 1)):
    """timm's ConvNeXt for 32x32 images; two stages of equal width, and blocks that count from the start."""
    return ConvNeXt(num_classes=5, depths=depths, dims=(8, 8, 12, 16), ls_init_value=1.0)


def dcls_layers(model):
    """DCLS layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, DclsNd)}


def unique_parameters(model):
    """Number of parameters, each object counted once."""
    sizes = {id(parameter): parameter.numel() for _, parameter in model.named_parameters(remove_duplicate=False)}
    return sum(sizes.values())


def on_meta(make):
    """What `make` returns, made without memory."""
    with torch.device("meta"):
        return make()
