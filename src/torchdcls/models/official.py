"""Models out of the authors' checkpoints."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from .. import _checks
from ..conversion import convert, files, official
from ..conversion.official import PUBLISHED, Version
from .registered import FASTVIT_ARGUMENTS, HOSTS, Elements, Host, pretrained_cfg

# Of which there is a file, but no registered model.
_MORE_HOSTS = (Host("fastvit_sa36", "apple_in1k", Elements(17, 34), Elements(23, 26), arguments=FASTVIT_ARGUMENTS),)


def load_official(
    path_or_url: str | os.PathLike[str], *, version: Version | None = None, dilated_kernel_size: int | None = None
) -> nn.Module:
    """Loads a checkpoint of the papers' authors into timm's model, converted.

    The model, its DCLS layers, their number of elements and which layers share positions are read from names and shapes
    in the file. Version and size are not in a file. They are known for the authors' files, by file name, see
    `torchdcls.conversion.official.PUBLISHED`; pass them for other files.

    Args:
        path_or_url: A torch or safetensors file, or its URL, which is downloaded once into torch.hub's folder. No code
            in it is run.
        version: DCLS's name of the interpolation: "v0" or "v1" (bilinear), "max" (triangle) or "gauss". "v0" and "v1"
            have the same keys, and so have "max" and "gauss".
        dilated_kernel_size: Kernel size along both axes. Unit: grid cells.

    Returns:
        The model, on CPU, as `timm.create_model` makes it. Its state dict has timm's and torchdcls's names.
        `torchdcls.to_official` converts it back to the authors' names. v0 does not divide elements by their sum on the
        grid. Its weights are multiplied by this sum, so that outputs stay the same.

    Raises:
        ValueError: The file is missing, cut short, holds code, or is not one of the authors' models; version or size
            are unknown, or do not fit the file.

    Source:
        Khalfaoui-Hassani et al., arXiv:2112.03740 and arXiv:2306.00817; their files on Zenodo, records 7112021,
        8029747, 8370737 and 8373830.
    """
    path = files.fetched(path_or_url)
    state_dict = official.official_state_dict(files.read(path))
    if state_dict is None:
        raise ValueError(
            f"path_or_url: expected a checkpoint of a model with layers of the package DCLS, got '{path}' without any; "
            "state dicts of torchdcls are loaded with load_state_dict"
        )
    version, size = _settings(path, state_dict, version, dilated_kernel_size)
    host, names = _host(path, state_dict)
    _check_size(path, state_dict, size)
    sharing = {
        names[f"{layer}.weight"].removesuffix(".weight"): leader
        for layer, leader in official.sharing(state_dict).items()
    }
    model: nn.Module = model_entrypoint(host.name)(**host.arguments)
    convert(
        model,
        dilated_kernel_size=size,
        kernel_count=official.kernel_count(state_dict),
        interpolation=official.INTERPOLATION_OF[version],
        where=lambda name, module: name in sharing,
        share=lambda name, module: sharing[name],
    )
    model.load_state_dict(official.from_official(state_dict, names, version, size, model.state_dict()))
    model.pretrained_cfg = model.default_cfg = pretrained_cfg(host).to_dict()  # type: ignore[assignment, no-untyped-call]
    return model


def _settings(
    path: Path, state_dict: Mapping[str, Tensor], version: Version | None, size: int | None
) -> tuple[Version, int]:
    """Version and size, as given or as known of the file."""
    known = PUBLISHED.get(path.name)
    if known is not None:
        version, size = version or known.version, size or known.size
    if version is None or size is None:
        missing = " and ".join(
            name for name, value in (("version", version), ("dilated_kernel_size", size)) if value is None
        )
        raise ValueError(
            f"{missing}: expected to be given for {path.name!r}, as a file does not tell and only these are known: "
            f"{', '.join(PUBLISHED)}"
        )
    return official.check_version(version, state_dict), _checks.integer("dilated_kernel_size", size, 1)


def _check_size(path: Path, state_dict: Mapping[str, Tensor], size: int) -> None:
    """Refuses sizes that most of the positions are far from. Some may be off the grid: training need not clamp them."""
    reach = official.reach(state_dict)
    if reach > size / 2:
        raise ValueError(
            f"dilated_kernel_size: expected a size that holds most positions of '{path}', half of which are more than "
            f"{reach:.1f} cells from the middle, got {size}"
        )


def _host(path: Path, state_dict: Mapping[str, Tensor]) -> tuple[Host, dict[str, str]]:
    """The model that a state dict belongs to, and what timm and torchdcls call its parameters."""
    layout = official.layout(state_dict)
    reasons = [(-1, "its keys fit none of these models")]
    for host in (*HOSTS, *_MORE_HOSTS):
        if layout is None or model_entrypoint(host.name).__module__ != f"timm.models.{layout}":
            continue
        with torch.device("meta"):
            plain: nn.Module = model_entrypoint(host.name)(**host.arguments)
        try:
            names = official.timm_names(state_dict, layout, plain)
        except ValueError as error:
            reasons.append((0, f"{host.name} comes closest, but {error}"))
            continue
        found = {names[key]: value for key, value in state_dict.items()}
        layers = official.layers(found, "position")
        expected = plain.state_dict()
        plain_found = {key: value for key, value in found.items() if key.rpartition(".")[2] not in official.THEIR_NAMES}
        reason = official.difference(plain_found, expected, layers)
        if not reason:
            return host, names
        alike = sum(key in expected and expected[key].shape == value.shape for key, value in found.items())
        reasons.append((alike, f"{host.name} comes closest, but {reason}"))
    known = ", ".join(host.name for host in (*HOSTS, *_MORE_HOSTS))
    raise ValueError(f"path_or_url: expected a checkpoint of {known}, got '{path}': {max(reasons)[1]}")
