"""The papers' models, registered with timm under NAME_dcls_INTERPOLATION: timm's own models, converted.

`timm.create_model("convnext_tiny_dcls_gaussian")` makes timm's ConvNeXt-T and replaces its 7x7 convolutions by
DCLS layers, before anything is wrapped around it, so that every argument that the host takes is taken here too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from timm.models.fastvit import RepConditionalPosEnc
from torch import nn

from ..conversion import convert, files, official
from ..conversion.select import Where
from ..nn import Dcls2d
from ..profiles import INTERPOLATIONS, PROFILES, Interpolation

__all__ = ["HOSTS", "Elements", "Host"]  # register_model adds the models

Layers = Literal["depthwise 7x7", "dense 3x3"]


@dataclass(frozen=True)
class Elements:
    """A kernel's size along both axes, in cells, and the number of its elements."""

    size: int
    count: int


@dataclass(frozen=True)
class Host:
    """A timm model, and the DCLS layers that replace its convolutions. Layers of a stage share positions and sigmas.

    Attributes:
        name: timm's name of the model.
        tag: timm's tag of weights trained on ImageNet-1k alone, as in the paper: images are prepared as for these.
        bilinear: Kernels of the bilinear model, and of others whose elements have no sigma.
        gaussian: Kernels of the triangle and the Gaussian model, whose elements have a sigma more.
        layers: Which convolutions become DCLS layers.
        weight_std: Standard deviation of new weights; None scales them until the dense kernels have the sum of squares
            of those that they replace, which keeps the variance of the layer's output.
        feature_levels: Number of feature maps that `features_only=True` returns.
        flat_stages: Whether timm takes the stages out of their container for `features_only=True`.
        arguments: Further arguments of the timm model.
    """

    name: str
    tag: str
    bilinear: Elements
    gaussian: Elements
    layers: Layers = "depthwise 7x7"
    weight_std: float | None = 0.02
    feature_levels: int = 4
    flat_stages: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def elements(self, interpolation: Interpolation) -> Elements:
        """Kernels of the model of one interpolation."""
        return self.bilinear if PROFILES[interpolation].start is None else self.gaussian


class FoldablePosEnc(RepConditionalPosEnc):  # type: ignore[misc]
    """FastViT's positional encoding, of which `reparameterize` folds a DCLS layer too: into a dense convolution."""

    def reparameterize(self) -> None:
        """As in timm; positions are fixed afterwards."""
        layer = self.pos_enc
        if isinstance(layer, Dcls2d):
            size = layer.dilated_kernel_size
            dense = nn.Conv2d(self.dim, self.dim_out, size, padding="same", groups=self.groups, device="meta")
            dense.weight = nn.Parameter(layer.kernel().detach())
            dense.bias = layer.bias
            self.pos_enc, self.spatial_shape = dense, size
        super().reparameterize()


# Kernels are those of the authors' models and files for ConvNeXt at 17x17, CAFormer, FastViT and ResNet-50; elsewhere
# the largest counts that do not exceed the host's parameters, at most 40 at 17x17 and 26 at 23x23. CAFormer (29
# elements at 17x17 and 21 at 23x23 would fit) and ResNet-50 with sigmas (4 would fit) have more parameters than the
# host, as ConvFormer-S18 would with the 40 elements at 17x17 of the authors' file.
_23 = Elements(23, 26)
_7 = Elements(7, 5)
FASTVIT_ARGUMENTS = {"pos_embs": (None, None, None, partial(FoldablePosEnc, spatial_shape=(7, 7)))}
HOSTS = (
    Host("convnext_tiny", "fb_in1k", Elements(17, 34), _23),
    Host("convnext_small", "fb_in1k", Elements(17, 40), _23),
    Host("convnext_base", "fb_in1k", Elements(17, 40), _23),
    Host("convformer_s18", "sail_in1k", Elements(17, 34), _23),
    Host("convformer_s36", "sail_in1k", Elements(17, 39), _23),
    Host("convformer_m36", "sail_in1k", Elements(17, 40), _23),
    Host("convformer_b36", "sail_in1k", Elements(17, 40), _23),
    Host("caformer_s18", "sail_in1k", Elements(17, 34), _23),
    Host("fastvit_sa24", "apple_in1k", Elements(17, 34), _23, arguments=FASTVIT_ARGUMENTS),
    # timm draws its weights by each layer's channels, so that no single standard deviation is right.
    Host("resnet50", "a2_in1k", _7, _7, "dense 3x3", weight_std=None, feature_levels=5, flat_stages=False),
)


def twin(name: str) -> str | None:
    """For a registered DCLS model the name of the model of timm with dense kernels, else None."""
    return next((host.name for host in HOSTS if name.startswith(f"{host.name}_dcls_")), None)


def _is_depthwise_7x7(name: str, module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (7, 7)
        and module.stride == (1, 1)
        and module.groups == module.in_channels == module.out_channels
    )


def _is_dense_3x3(name: str, module: nn.Module) -> bool:
    # Some stems have 3x3 convolutions too; blocks are in layer1 to layer4.
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name.startswith("layer")


_WHERE: dict[Layers, Where] = {"depthwise 7x7": _is_depthwise_7x7, "dense 3x3": _is_dense_3x3}


def _converted(host: Host, interpolation: Interpolation, **arguments: Any) -> nn.Module:
    """The host made by timm, without weights, with its convolutions replaced."""
    model: nn.Module = model_entrypoint(host.name)(**{**host.arguments, **arguments})
    where = _WHERE[host.layers]
    old = {name: module.weight for name, module in model.named_modules() if where(name, module)}
    report = convert(
        model,
        dilated_kernel_size=host.elements(interpolation).size,
        kernel_count=host.elements(interpolation).count,
        interpolation=interpolation,
        where=where,
        weight_std=host.weight_std,
    )
    for skip in report.skipped:
        if skip.name in old:  # by an argument such as output_stride
            raise ValueError(f"{host.name}: {skip.name} cannot become a DCLS layer: {skip.reason}")
    if host.weight_std is None:
        for row in report.replaced:
            layer, weight = model.get_submodule(row.name), old[row.name]
            assert isinstance(layer, Dcls2d)
            if not weight.is_meta:
                with torch.no_grad():  # to the sum of squares of the old kernels
                    layer.weight.mul_((weight.square().sum() / layer.kernel().square().sum()).sqrt())
    return model


def pretrained_cfg(host: Host, url: str = "") -> PretrainedCfg:
    """The host's preparation of images and names of stem and classifier, with the address of weights, if there are."""
    cfg = get_pretrained_cfg(f"{host.name}.{host.tag}", allow_unregistered=False)
    assert cfg is not None
    preparation = ("input_size", "interpolation", "crop_pct", "mean", "std")
    structure = ("num_classes", "pool_size", "first_conv", "classifier")
    return PretrainedCfg(url=url, **{name: getattr(cfg, name) for name in preparation + structure})


def _weights(checkpoint: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """What timm loads into a model: the authors' weights in our names, or the checkpoint itself if it is not theirs."""
    state_dict = official.official_state_dict(checkpoint)
    if state_dict is None:
        return checkpoint
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    name = files.file_name(cfg.get("file") or cfg.get("url") or "")
    published = official.PUBLISHED.get(name)
    if published is None:
        raise ValueError(
            f"pretrained: expected a file of torchdcls or one of {', '.join(official.PUBLISHED)}, got {name!r} with "
            "layers of the package DCLS; load it with torchdcls.load_official, which takes version and "
            "dilated_kernel_size"
        )
    if model.num_classes == 0:
        state_dict = {key: value for key, value in state_dict.items() if not key.startswith(("head.", "fc."))}
    try:
        return _converted_weights(state_dict, model, published)
    except ValueError as error:
        raise ValueError(f"pretrained: {name!r} is not for {cfg['architecture']}: {error}") from None


def _converted_weights(
    state_dict: dict[str, torch.Tensor], model: nn.Module, published: official.Published
) -> dict[str, torch.Tensor]:
    """The authors' weights in our names; a ValueError says why they are of another model."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Dcls2d)}
    kernels = {(layer.interpolation.name, *layer.dilated_kernel_size, layer.kernel_count) for layer in layers.values()}
    size, interpolation = published.size, official.INTERPOLATION_OF[published.version]
    if kernels != {(interpolation, size, size, published.count)}:
        raise ValueError(f"its kernels are {interpolation}, of {published.count} elements in {size}x{size} cells")
    layout = official.layout(state_dict)
    if layout is None:
        raise ValueError("its keys are not those of its model's authors")
    expected = model.state_dict()
    version = official.check_version(published.version, state_dict)
    renamed = official.timm_names(state_dict, layout, model)
    ours = official.from_official(state_dict, renamed, version, size, expected)

    # timm itself fits these to other numbers of channels and classes.
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    entries = [[entry] if isinstance(entry, str) else entry for entry in (cfg["first_conv"], cfg["classifier"])]
    fitted = tuple(f"{name}." for names in entries for name in names)

    def compared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in tensors.items() if not key.startswith(fitted)}

    if problem := official.difference(compared(ours), compared(expected), layers):
        raise ValueError(problem)
    first: dict[nn.Parameter, str] = {}
    for name, layer in layers.items():
        leader = first.setdefault(layer.position, name)
        for parameter in ("position", "sigma"):
            key, other = f"{name}.{parameter}", f"{leader}.{parameter}"
            if key in ours and not torch.equal(ours[key], ours[other]):
                raise ValueError(f"{name} and {leader} share no {parameter} in it; torchdcls.load_official loads it")
    return ours


def _check_file(
    name: str,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | None = None,
    **arguments: Any,
) -> None:
    """Says what is wrong with a file of weights before timm reads it; downloads it to where timm looks."""
    cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
    source = cfg.file or (None if cfg.hf_hub_id else cfg.url)
    if isinstance(source, str) and source and not cfg.state_dict:
        files.read(files.fetched(source, cache_dir))


def _entry(host: Host, interpolation: Interpolation) -> Callable[..., nn.Module]:
    """The function that timm registers for a model."""
    name = f"{host.name}_dcls_{interpolation}"

    def entry(pretrained: bool = False, **arguments: Any) -> nn.Module:
        features: dict[str, Any] = {"out_indices": tuple(range(host.feature_levels))}
        if host.flat_stages:
            features["flatten_sequential"] = True
        if pretrained:
            _check_file(name, **arguments)
        # timm itself allows the settings in training programs' files only for a file, not for an address.
        with torch.serialization.safe_globals(files.SAFE_GLOBALS):
            model: nn.Module = build_model_with_cfg(
                partial(_converted, host, interpolation),
                name,
                pretrained,
                pretrained_filter_fn=_weights,
                feature_cfg=features,
                **arguments,
            )
        return model

    elements = host.elements(interpolation)
    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = (
        f"timm's {host.name} whose {host.layers} convolutions are DCLS layers: {elements.count} elements in "
        f"{elements.size}x{elements.size} cells, {interpolation}."
    )
    return entry


# register_model looks here. Weights are the authors' own, where they publish some with the same kernels.
default_cfgs = generate_default_cfgs(
    {
        f"{host.name}_dcls_{name}": pretrained_cfg(host, official.address(host.name, name, **vars(host.elements(name))))
        for host in HOSTS
        for name in INTERPOLATIONS
    }
)
for _host in HOSTS:
    for _interpolation in INTERPOLATIONS:
        _model = register_model(_entry(_host, _interpolation))
        globals()[_model.__name__] = _model  # as __all__ says
