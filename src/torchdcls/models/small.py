"""The papers' model families at a size for two CPU cores and small images: timm's own classes."""

from typing import Literal

from timm.models.convnext import ConvNeXt
from timm.models.metaformer import LayerNorm2dNoBias, MetaFormer, SepConv
from torch import nn

SmallModel = Literal["convnext", "convformer"]

# Three layers per stage at least: fewer leave too few elements when a stage shares its positions.
_DEPTHS = (3, 3, 9, 3)
_WIDTHS = (16, 32, 64, 128)


def small_model(name: SmallModel, channels: int, classes: int, image_size: int) -> nn.Module:
    """A ConvNeXt or ConvFormer of about 0.8 million parameters, randomly initialised.

    The stem strides only as far as it leaves a first stage of about 32 cells per side, several times a 7x7 kernel.

    Args:
        name: "convnext" or "convformer".
        channels: Channels of the images.
        classes: Number of classes.
        image_size: Height and width of the images. Unit: pixels.

    Returns:
        Maps (batch, channels, image_size, image_size) to (batch, classes).
    """
    if name == "convnext":
        # A run of a few epochs has no time to grow layer scales from ConvNeXt's 1e-6.
        convnext = ConvNeXt(in_chans=channels, num_classes=classes, depths=_DEPTHS, dims=_WIDTHS, ls_init_value=1.0)
        convnext.stem[0] = _stem(channels, image_size)
        return convnext
    convformer = MetaFormer(
        in_chans=channels,
        num_classes=classes,
        depths=_DEPTHS,
        dims=_WIDTHS,
        token_mixers=SepConv,
        norm_layers=LayerNorm2dNoBias,
    )
    convformer.stem.conv = _stem(channels, image_size)
    return convformer


def _stem(channels: int, image_size: int) -> nn.Conv2d:
    stride = next((step for step in (1, 2) if image_size <= 40 * step), 4)
    conv = nn.Conv2d(channels, _WIDTHS[0], kernel_size=stride + 2, stride=stride, padding=1)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
