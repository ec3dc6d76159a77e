"""Models for a comparison on images of any size: the papers' families, small enough for two CPU cores, and timm's."""

import timm
from timm.models.convmixer import ConvMixer
from timm.models.convnext import ConvNeXt
from timm.models.metaformer import LayerNorm2dNoBias, MetaFormer, SepConv
from torch import nn

from torchdcls._checks import nearest
from torchdcls_results import CONVMIXERS, SMALL_MODELS, stem_stride

# Three layers per stage at least: fewer leave too few elements when a stage shares its positions.
_DEPTHS = (3, 3, 9, 3)
_WIDTHS = (16, 32, 64, 128)


def comparison_model(name: str, channels: int, classes: int, image_size: int) -> nn.Module:
    """A model with its own convolutions, randomly initialized.

    The stem of a ConvNeXt or MetaFormer strides only as far as it leaves a first stage of about 32 cells per side,
    several times a 7x7 kernel; that of a ConvMixer as far as it leaves about 16.

    Args:
        name: One of `CONVMIXERS`, with kernels of 7x7, "convnext" or "convformer" for one of about 0.8 million
            parameters, else one of timm's names.
        channels: Channels of the images.
        classes: Number of classes.
        image_size: Height and width of the images. Unit: pixels.

    Returns:
        Maps (batch, channels, image_size, image_size) to (batch, classes).

    Raises:
        ValueError: timm has no such model.
    """
    check_model(name)
    model: nn.Module
    if name in CONVMIXERS:
        width, depth = CONVMIXERS[name]
        patch = stem_stride(image_size, 16)
        return ConvMixer(width, depth, kernel_size=7, patch_size=patch, in_chans=channels, num_classes=classes)
    if name == "convnext":
        # A run of a few epochs has no time to grow layer scales from ConvNeXt's 1e-6.
        model = ConvNeXt(in_chans=channels, num_classes=classes, depths=_DEPTHS, dims=_WIDTHS, ls_init_value=1.0)
    elif name == "convformer":
        model = MetaFormer(
            in_chans=channels,
            num_classes=classes,
            depths=_DEPTHS,
            dims=_WIDTHS,
            token_mixers=SepConv,
            norm_layers=LayerNorm2dNoBias,
        )
    else:
        model = timm.create_model(name, in_chans=channels, num_classes=classes)
    if isinstance(model, ConvNeXt) and isinstance(model.stem[0], nn.Conv2d):
        model.stem[0] = _stem(model.stem[0], image_size)
    elif isinstance(model, MetaFormer):
        model.stem.conv = _stem(model.stem.conv, image_size)
    return model


def weight_std(model: nn.Module) -> float | None:
    """Standard deviation of the weights that its depthwise layers start with; None for torch's default."""
    return None if isinstance(model, ConvMixer) else 0.02


def check_model(name: str) -> None:
    """Refuses a name of no model.

    Raises:
        ValueError: timm has no such model.
    """
    if name in SMALL_MODELS or timm.is_model(name):
        return
    raise ValueError(
        f"model: expected {', '.join(map(repr, SMALL_MODELS))}, or a timm name, got {name!r}; "
        + nearest(name, [*SMALL_MODELS, *timm.list_models()])
    )


def _stem(old: nn.Conv2d, image_size: int) -> nn.Conv2d:
    stride = stem_stride(image_size)
    conv = nn.Conv2d(old.in_channels, old.out_channels, kernel_size=stride + 2, stride=stride, padding=1)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
