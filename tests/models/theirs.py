"""The authors' models: timm's with layers of the PyPI package DCLS 0.1.1, and their names of parameters.

The pairs of names are written down from the code of the models' authors, module by module: facebookresearch/ConvNeXt,
sail-sg/metaformer and apple/ml-fastvit.
"""

from collections.abc import Iterator

import timm
import torch
from DCLS.construct.modules import Dcls2d as TheirDcls2d
from torch import Tensor, nn

Pairs = Iterator[tuple[str, str]]


def convnext(depths: tuple[int, ...]) -> Pairs:
    """Their name and timm's of every module or lone parameter."""
    yield from (("downsample_layers.0.0", "stem.0"), ("downsample_layers.0.1", "stem.1"))
    for i in range(1, len(depths)):
        yield from ((f"downsample_layers.{i}.{j}", f"stages.{i}.downsample.{j}") for j in (0, 1))
    inside = {"dwconv": "conv_dw", "norm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2", "gamma": "gamma"}
    for i, depth in enumerate(depths):
        for j in range(depth):
            yield from ((f"stages.{i}.{j}.{name}", f"stages.{i}.blocks.{j}.{timms}") for name, timms in inside.items())
    yield from (("norm", "head.norm"), ("head", "head.fc"))


def metaformer(depths: tuple[int, ...]) -> Pairs:
    yield from (("downsample_layers.0.conv", "stem.conv"), ("downsample_layers.0.post_norm", "stem.norm"))
    for i in range(1, len(depths)):
        yield f"downsample_layers.{i}.pre_norm", f"stages.{i}.downsample.norm"
        yield f"downsample_layers.{i}.conv", f"stages.{i}.downsample.conv"
    mixer = ("pwconv1", "act1", "dwconv", "pwconv2", "qkv", "proj")
    inside = ("norm1", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2", "res_scale1", "res_scale2")
    for i, depth in enumerate(depths):
        for j in range(depth):
            for name in (*inside, *(f"token_mixer.{part}" for part in mixer)):
                yield f"stages.{i}.{j}.{name}", f"stages.{i}.blocks.{j}.{name}"
    yield from (("norm", "head.norm"), ("head", "head.fc"))


def fastvit(depths: tuple[int, ...]) -> Pairs:
    def mobile_one(theirs: str, timms: str) -> Pairs:
        yield f"{theirs}.rbr_skip", f"{timms}.identity"
        yield f"{theirs}.rbr_conv", f"{timms}.conv_kxk"
        yield f"{theirs}.rbr_scale", f"{timms}.conv_scale"
        yield f"{theirs}.se.reduce", f"{timms}.se.fc1"
        yield f"{theirs}.se.expand", f"{timms}.se.fc2"

    for i in range(3):
        yield from mobile_one(f"patch_embed.{i}", f"stem.{i}")
    # network: stage, embedding, stage, embedding, stage, embedding, positional encoding, stage
    for stage, (at, depth) in enumerate(zip((0, 2, 4, 7), depths, strict=True)):
        for j in range(depth):
            theirs, timms = f"network.{at}.{j}", f"stages.{stage}.blocks.{j}"
            for name in ("norm", "token_mixer.qkv", "token_mixer.proj"):
                yield f"{theirs}.{name}", f"{timms}.{name}"
            for name in ("norm", "mixer"):
                yield from mobile_one(f"{theirs}.token_mixer.{name}", f"{timms}.token_mixer.{name}")
            for name in ("conv", "fc1", "fc2"):
                yield f"{theirs}.convffn.{name}", f"{timms}.mlp.{name}"
            for name in ("token_mixer.layer_scale", "layer_scale", "layer_scale_1", "layer_scale_2"):
                yield f"{theirs}.{name}", f"{timms}.{name}.gamma"
    for stage, at in enumerate((1, 3, 5), start=1):
        yield f"network.{at}.proj.0.lkb_origin", f"stages.{stage}.downsample.proj.0.large_conv"
        yield f"network.{at}.proj.0.small_conv", f"stages.{stage}.downsample.proj.0.small_conv"
        yield from mobile_one(f"network.{at}.proj.1", f"stages.{stage}.downsample.proj.1")
    yield "network.6.pe", "stages.3.pos_emb.pos_enc"
    yield from mobile_one("conv_exp", "final_conv")
    yield "head", "head.fc"


PAIRS = {"convnext": convnext, "convformer": metaformer, "caformer": metaformer, "fastvit": fastvit}


def original(state_dict: dict[str, Tensor], family: str, depths: tuple[int, ...]) -> dict[str, Tensor]:
    """A state dict under timm's names of layers, under those of the models' authors."""
    if family == "resnet50":  # the authors took timm's
        return dict(state_dict)
    found = {}
    for theirs, timms in PAIRS[family](depths):
        for key, value in state_dict.items():
            if key == timms or key.startswith(f"{timms}."):
                assert theirs + key.removeprefix(timms) not in found
                linear = "former" in family and value.shape[2:] == (1, 1)
                found[theirs + key.removeprefix(timms)] = value.flatten(1) if linear else value
    assert len(found) == len(state_dict)
    return found


def is_replaced(name: str, module: nn.Module) -> bool:
    """Which convolutions the authors replace."""
    if not isinstance(module, nn.Conv2d):
        return False
    depthwise = module.groups == module.in_channels == module.out_channels and module.kernel_size == (7, 7)
    return depthwise or (module.kernel_size == (3, 3) and name.startswith("layer"))


def replace(model: nn.Module, version: str, size: int, count: int, share: bool = True) -> nn.Module:
    """DCLS 0.1.1's layers in the place of convolutions, those of a stage with the same P and SIG."""
    first: dict[str, TheirDcls2d] = {}
    for name, old in list(model.named_modules()):
        if not is_replaced(name, old):
            continue
        layer = TheirDcls2d(
            old.in_channels,
            old.out_channels,
            kernel_count=count,
            stride=old.stride,
            padding=size // 2,
            dilated_kernel_size=size,
            groups=old.groups,
            bias=old.bias is not None,
            version=version,
        )
        stage = name.split(".")[0 if name.startswith("layer") else 1]
        leader = first.setdefault(stage if share else name, layer)
        layer.P, layer.SIG = leader.P, leader.SIG
        model.set_submodule(name, layer)
    return model


@torch.no_grad()
def shake_(model: nn.Module, size: int, reach: float, seed: int = 0) -> nn.Module:
    """Numbers with which every parameter shows in the output; positions up to `reach` of half a kernel."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        uniform = torch.rand(tensor.shape, generator=draw)
        kind = name.rpartition(".")[2]
        if kind == "P":
            tensor.copy_((2 * uniform - 1) * reach * (size // 2))
        elif kind == "SIG":
            tensor.copy_(uniform - 0.5)
        elif kind == "running_var" or tensor.dim() == 1 or "layer_scale" in name or "gamma" in name:
            tensor.copy_(0.5 + uniform)
        else:
            fan_in = max(tensor[0].numel(), 1)
            tensor.copy_((2 * uniform - 1) * (3 / fan_in) ** 0.5)
    return model.eval()


def on_meta(host: str, version: str, size: int, count: int) -> nn.Module:
    """The authors' model at full size, without memory."""
    with torch.device("meta"):
        return replace(timm.create_model(host), version, size, count)
