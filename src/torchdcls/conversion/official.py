"""The authors' checkpoints: the published files, the names of their parameters, and the meaning of their numbers here.

Only this file reads `P` and `SIG`. A checkpoint holds for each layer `weight` (out, in/groups, n), `P` (axes, out,
in/groups, n), `SIG` like `P` where the interpolation has one, and `bias`. The versions of the package DCLS are

| version | interpolation | axes of `P` and `SIG` | weights are ours times |
|---|---|---|---|
| v0 | "bilinear", not normalized | rows, columns | 1 over the mass of the element on the grid |
| v1 | "bilinear" | columns, rows | 1 |
| max | "triangle" | columns, rows | 1 |
| gauss | "gaussian" | columns, rows | 1 |

v0 does not divide by an element's mass on the grid, which is 1 inside and falls to 0 within a cell outside. With the
mass in the weights the normalized interpolation makes the same kernels, so that v0 needs none of its own. Only further
training differs, and only where elements leave the grid.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import _checks
from .._checks import alternatives, first_names
from ..ops.separable import EPSILON
from ..ops.tracing import with_versions
from ..profiles import Interpolation
from .report import mismatch

Version = Literal["v0", "v1", "max", "gauss"]
INTERPOLATION_OF = _checks.DCLS_NAMES
THEIR_NAMES = {"position": "P", "sigma": "SIG"}

# The modules of timm that hold the models.
Layout = Literal["convnext", "metaformer", "fastvit", "resnet"]
# A parameter by which a layout is known: in the authors' files and in timm.
_SIGNS: dict[Layout, tuple[str, str]] = {
    "convnext": ("downsample_layers.0.0.weight", "stem.0.weight"),
    "metaformer": ("downsample_layers.0.conv.weight", "stem.conv.weight"),
    "fastvit": ("patch_embed.0.rbr_conv.0.conv.weight", "stem.0.conv_kxk.0.conv.weight"),
    "resnet": ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
}
# From timm's names back to the names of the models' own authors; timm has the other direction.
_STAGES = (
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
)
_HEAD = ((r"^head\.norm\.", "norm."), (r"^head\.fc\.", "head."))
_ORIGINAL: dict[Layout, tuple[tuple[str, str], ...]] = {
    "convnext": (
        (r"^stem\.", "downsample_layers.0."),
        *_STAGES,
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
        *_HEAD,
    ),
    "metaformer": (
        (r"^stem\.norm\.", "downsample_layers.0.post_norm."),
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.downsample\.norm\.", r"downsample_layers.\1.pre_norm."),
        *_STAGES,
        *_HEAD,
    ),
    "fastvit": (  # and the stages, which are numbered together with what is between them
        (r"^stem\.", "patch_embed."),
        (r"^final_conv\.", "conv_exp."),
        (r"\.conv_kxk\.", ".rbr_conv."),
        (r"\.conv_scale\.", ".rbr_scale."),
        (r"\.identity\.", ".rbr_skip."),
        (r"\.large_conv\.", ".lkb_origin."),
        (r"\.mlp\.", ".convffn."),
        (r"\.se\.fc1\.", ".se.reduce."),
        (r"\.se\.fc2\.", ".se.expand."),
        (r"\.(layer_scale(_\d)?)\.gamma$", r".\1"),
        *_HEAD,
    ),
    "resnet": (),
}
# Where training programs put weights, the averaged ones first.
_PARTS = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class Published:
    """A file of the authors.

    Attributes:
        record: Number of its record on Zenodo.
        host: timm's name of the model whose convolutions were replaced.
        version: DCLS's name of the interpolation.
        size: Kernel size along both axes. Unit: grid cells.
        count: Elements per kernel.
    """

    record: int
    host: str
    version: Version
    size: int
    count: int


PUBLISHED = {
    "convnext_dcls_tiny_1k_224_ema.pth": Published(7112021, "convnext_tiny", "v0", 17, 34),
    "convnext_dcls_small_1k_224_ema.pth": Published(7112021, "convnext_small", "v0", 17, 40),
    "convnext_dcls_base_1k_224_ema.pth": Published(7112021, "convnext_base", "v0", 17, 40),
    "convnext_dcls_gauss_tiny_1k_224_ema.pth": Published(8029747, "convnext_tiny", "gauss", 23, 26),
    "convformer_s18_v1_17lim_40el_seed0.pth.tar": Published(8370737, "convformer_s18", "v1", 17, 40),
    "caformer_s18_v1_17lim_34el_seed0.pth.tar": Published(8370737, "caformer_s18", "v1", 17, 34),
    "fastvit_sa24_v1_17lim_34el_seed0.pth.tar": Published(8370737, "fastvit_sa24", "v1", 17, 34),
    "fastvit_sa36_v1_17lim_34el_seed0.pth.tar": Published(8370737, "fastvit_sa36", "v1", 17, 34),
    "resnet_dcls_kernel_5_model_best.pth.tar": Published(8373830, "resnet50", "v0", 7, 5),
}


def address(host: str, interpolation: Interpolation, size: int, count: int) -> str:
    """Where the authors publish weights of the model with exactly these kernels, or nothing."""
    for name, file in PUBLISHED.items():
        if (file.host, INTERPOLATION_OF[file.version], file.size, file.count) == (host, interpolation, size, count):
            return f"https://zenodo.org/records/{file.record}/files/{name}?download=1"
    return ""


def plain_state_dict(checkpoint: Any) -> tuple[str | None, dict[str, Tensor]]:
    """The part of a file's content that has the weights, averaged ones if there are any, and its state dict."""
    from timm.models import clean_state_dict

    if not isinstance(checkpoint, Mapping):
        return None, {}
    part = next((name for name in _PARTS if isinstance(checkpoint.get(name), Mapping) and checkpoint[name]), None)
    entries = checkpoint if part is None else checkpoint[part]
    tensors = OrderedDict(
        (key, value) for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)
    )
    state_dict: OrderedDict[str, Tensor] = OrderedDict(clean_state_dict(tensors))
    return part, with_versions(state_dict, entries)


def official_state_dict(checkpoint: Any) -> dict[str, Tensor] | None:
    """The authors' state dict in a file's content, averaged weights if there are any; None if it has no DCLS layer.

    Raises:
        ValueError: A DCLS layer lacks a parameter, or holds numbers that are not finite.
    """
    _, state_dict = plain_state_dict(checkpoint)
    named = {name: layers(state_dict, name) for name in THEIR_NAMES.values()}
    if not any(named.values()):
        return None
    keys = [
        f"{layer}.{name}"
        for layer in dict.fromkeys(layer for found in named.values() for layer in found)
        for name in ("weight", *(name for name, found in named.items() if found or name == "P"))
    ]
    if missing := [key for key in keys if key not in state_dict]:
        raise ValueError(
            "path_or_url: expected weights and positions of all DCLS layers (and SIG of all if of one), got none of "
            + first_names(missing)
        )
    if broken := next((key for key in keys if not state_dict[key].isfinite().all()), None):
        raise ValueError(f"path_or_url: expected finite numbers, got NaN or infinity in {broken}")
    return state_dict


def layers(keys: Iterable[str], parameter: str) -> list[str]:
    """The names of the layers that have a parameter of this name."""
    return [key.removesuffix(f".{parameter}") for key in keys if key.endswith(f".{parameter}")]


def kernel_count(state_dict: Mapping[str, Tensor]) -> int:
    """Elements per kernel in an authors' state dict. All layers must have as many, and positions that fit weights."""
    counts = set()
    for layer in layers(state_dict, "P"):
        weight = state_dict[f"{layer}.weight"]
        for name in THEIR_NAMES.values():
            tensor = state_dict.get(f"{layer}.{name}")
            if tensor is not None and (weight.dim() != 3 or tensor.shape != (2, *weight.shape)):
                raise ValueError(
                    "path_or_url: expected weights (out, in/groups, n) with positions (2, out, in/groups, n), got "
                    f"{layer}.weight {tuple(weight.shape)} with {layer}.{name} {tuple(tensor.shape)}"
                )
        counts.add(int(weight.shape[-1]))
    if len(counts) != 1:
        raise ValueError(f"path_or_url: expected as many elements in all layers, got {sorted(counts)}")
    return counts.pop()


def sharing(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """For each layer of an authors' state dict the first layer with the same positions and sigmas.

    Files repeat what layers share.
    """
    leaders: dict[str, str] = {}
    for layer in layers(state_dict, "P"):
        own = {name: state_dict.get(f"{layer}.{name}") for name in THEIR_NAMES.values()}
        leaders[layer] = next(
            leader
            for leader in (*dict.fromkeys(leaders.values()), layer)
            if all(value is None or torch.equal(state_dict[f"{leader}.{name}"], value) for name, value in own.items())
        )
    return leaders


def reach(state_dict: Mapping[str, Tensor]) -> float:
    """The distance along an axis from the middle that half of the positions exceed. Unit: grid cells."""
    return float(torch.cat([state_dict[f"{layer}.P"].abs().flatten() for layer in layers(state_dict, "P")]).median())


def layout(state_dict: Mapping[str, Tensor], *, of_timm: bool = False) -> Layout | None:
    """The layout whose names a state dict uses: the authors' names, or timm's for the same models. None for others."""
    return next((found for found, signs in _SIGNS.items() if signs[of_timm] in state_dict), None)


def check_version(version: str | None, state_dict: Mapping[str, Tensor]) -> Version:
    """The version, refused where it is unknown, or does not fit whether the authors' state dict has a `SIG`."""
    sigma = bool(layers(state_dict, "SIG"))
    choices: tuple[Version, ...] = ("max", "gauss") if sigma else ("v0", "v1")
    for choice in choices:
        if choice == version:
            return choice
    has = f"the layers have {'a' if sigma else 'no'} SIG"
    raise ValueError(f"version: expected {alternatives(choices)}, as {has}, got {version!r}")


def timm_names(keys: Collection[str], names: Layout, model: nn.Module) -> dict[str, str]:
    """For each key of a file the name of the parameter in timm and torchdcls.

    Args:
        keys: Names in the file.
        names: Its layout.
        model: timm's model, converted or not.
    """
    plain = [key for key in keys if not key.endswith((".P", ".SIG"))]
    # timm's own function renames. It looks at values and may reshape them: it gets numbers to know them by.
    numbered = {key: torch.tensor([at, -1]) for at, key in enumerate(plain)}
    if names != "resnet":  # whose names are timm's
        from timm import models

        try:
            numbered = getattr(models, names).checkpoint_filter_fn(numbered, model)
        except KeyError as error:
            raise ValueError(f"it has a key that becomes {error.args[0]}, which is not there") from None
    renamed = {plain[int(number[0])]: key for key, number in numbered.items()}
    for ours, theirs in THEIR_NAMES.items():
        for layer in layers(keys, theirs):
            weight = renamed.get(f"{layer}.weight", f"{layer}.weight")
            renamed[f"{layer}.{theirs}"] = weight.removesuffix("weight") + ours
    return renamed


def from_official(
    state_dict: Mapping[str, Tensor],
    names: Mapping[str, str],
    version: Version,
    size: int,
    expected: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """A state dict of the authors in torchdcls's names, axes and weights.

    Positions stay where they are in the file, on the grid or not.

    Args:
        state_dict: As in the file.
        names: See `timm_names`.
        version: DCLS's name of the interpolation.
        size: Kernel size along both axes. Unit: grid cells.
        expected: State dict of the converted model, whose shapes linear layers take.
    """
    ours = {
        names[key]: _other_order(value, version) if key.endswith((".P", ".SIG")) else value
        for key, value in state_dict.items()
    }
    if version == "v0":
        for layer in layers(ours, "position"):
            mass = _mass(ours[f"{layer}.position"], size)
            ours[f"{layer}.weight"] = _times(ours[f"{layer}.weight"], mass)
    for key, value in ours.items():
        if key in expected and value.numel() == expected[key].numel():
            ours[key] = value.reshape(expected[key].shape)
    return ours


def to_official(
    state_dict: Mapping[str, Tensor], *, version: Version | None = None, dilated_kernel_size: int | None = None
) -> dict[str, Tensor]:
    """A model's state dict in the names, axes and weights of the authors' programs and of the package DCLS.

    For timm's ConvNeXt, MetaFormer, FastViT and ResNet with 2-D DCLS layers, such as models from
    `torchdcls.load_official`. Only v0 needs `version`.

    Args:
        state_dict: In timm's names, with `position` and `sigma`.
        version: DCLS's name of the interpolation; None for v1 without sigmas, and max or gauss with them.
        dilated_kernel_size: Kernel size along both axes, for "v0" alone. Unit: grid cells.

    Returns:
        The same parameters; layers that share positions share them.

    Raises:
        ValueError: The names of another model, layers that are not 2-D, a version that does not fit the layers, or
            "v0" without a size.
        TypeError: `state_dict` is not a mapping.

    Example:
        >>> import timm, torch, torchdcls.models
        >>> with torch.device("meta"):
        ...     model = timm.create_model("convnext_tiny_dcls_gaussian")
        >>> theirs = torchdcls.to_official(model.state_dict())
        >>> [key for key in theirs if key.startswith("stages.0.0.dwconv")]
        ['stages.0.0.dwconv.weight', 'stages.0.0.dwconv.P', 'stages.0.0.dwconv.SIG', 'stages.0.0.dwconv.bias']
    """
    _checks.of_type("state_dict", state_dict, Mapping, "model.state_dict()")
    names = layout(state_dict, of_timm=True)
    converted = layers(state_dict, "position")
    if names is None or not converted:
        raise ValueError(
            "state_dict: expected the state dict of timm's ConvNeXt, MetaFormer, FastViT or ResNet with DCLS layers, "
            f"got {len(state_dict)} entries, {len(converted)} of them positions"
        )
    for layer in converted:
        shape = tuple(state_dict[f"{layer}.position"].shape)
        if len(shape) != 4 or shape[0] != 2:
            raise ValueError(f"state_dict: expected positions along two axes, got {layer}.position of shape {shape}")
    rules = [*_ORIGINAL[names], *(_fastvit_network(state_dict) if names == "fastvit" else [])]
    reordered: dict[tuple[Any, ...], Tensor] = {}
    theirs: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        original = key
        for pattern, replacement in rules:
            original = re.sub(pattern, replacement, original)
        layer, _, parameter = key.rpartition(".")
        if parameter in THEIR_NAMES and layer in converted:
            original = original.removesuffix(parameter) + THEIR_NAMES[parameter]
            place = (value.data_ptr(), value.shape, value.stride()) if value.device.type != "meta" else (key,)
            value = reordered.setdefault(place, _other_order(value, version))
        elif names == "metaformer" and value.shape[2:] == (1, 1):
            value = value.flatten(1)  # its linear layers are convolutions in timm
        theirs[original] = value
    if version is not None:
        check_version(version, theirs)
    if version == "v0":
        if dilated_kernel_size is None:
            raise ValueError("dilated_kernel_size: expected an integer, as version='v0' depends on it, got None")
        size = _checks.integer("dilated_kernel_size", dilated_kernel_size, 1)
        for layer in layers(theirs, "P"):
            theirs[f"{layer}.weight"] = _times(theirs[f"{layer}.weight"], 1 / _mass(theirs[f"{layer}.P"], size))
    return theirs


def _fastvit_network(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Rules for FastViT, whose authors number stages, downsampling and positional encodings in one list."""
    parts = {"downsample": "", "pos_emb.pos_enc": "pe.", "blocks": ""}
    stages = {tuple(key.split(".")[1:3]) for key in keys if key.startswith("stages.")}
    rules: list[tuple[str, str]] = []
    for stage in sorted({stage for stage, _ in stages}, key=int):
        for part, name in parts.items():
            if (stage, part.partition(".")[0]) in stages:
                rules.append((rf"^stages\.{stage}\.{re.escape(part)}\.", f"network.{len(rules)}.{name}"))
    return rules


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], converted: Collection[str]) -> str:
    """How the parameters of a file, in a model's names, differ from the expected ones; empty if they do not.

    Of the weights of converted layers only the channels are compared.
    """

    def shape(key: str, tensor: Tensor) -> tuple[int, ...]:
        layer, _, parameter = key.rpartition(".")
        sizes = list(tensor.shape[:2] if layer in converted and parameter == "weight" else tensor.shape)
        while len(sizes) > 1 and sizes[-1] == 1:  # linear layers and convolutions of one tap are the same
            sizes.pop()
        return tuple(sizes)

    return mismatch(
        missing=[key for key in expected if key not in found],
        foreign=[key for key in found if key not in expected],
        other=[key for key in found if key in expected and shape(key, found[key]) != shape(key, expected[key])],
    )


def _other_order(position: Tensor, version: str | None) -> Tensor:
    """Positions or sigmas, (axes, ...), from rows and columns to a version's order of axes, or back."""
    return position if version == "v0" else position.flip(0)


def _mass(position: Tensor, size: int) -> Tensor:
    """Sum of a bilinear element over the grid, plus the normalizer's epsilon: (axes, ...) to (...), float64."""
    # On each axis 1 inside the grid, and falling to 0 within a cell outside.
    low, high = -(size // 2), size - 1 - size // 2
    outside = torch.maximum(low - position.double(), position.double() - high)
    return (1 - outside).clamp(0, 1).prod(0) + EPSILON


def _times(weight: Tensor, factor: Tensor) -> Tensor:
    return (weight.double() * factor).to(weight.dtype)
