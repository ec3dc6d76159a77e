"""State dicts of the code of arXiv:2306.17670, in the names of this package."""

from collections.abc import Mapping

from torch import Tensor

from .. import _checks
from ..conversion.official import THEIR_NAMES


def from_snn_delays(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of SNN-delays, or of any model with the 1-D layers of the package DCLS, for models of this one.

    `P` becomes `position` and `SIG` becomes `sigma`: `model.0.P` becomes `model.0.position`. For a window of
    `s` steps, `SynapticDelays` with `max_delay=s - 1` computes the same on inputs that were padded by `s - 1` steps on
    the left. Padding on the right is its `tail`. The kernels "gauss", "max" and "v1" of DCLS are "gaussian", "triangle"
    and "bilinear".

    Args:
        state_dict: Tensors by name.

    Returns:
        The same tensors by their new names.

    Raises:
        ValueError: No layer of DCLS, a layer of several axes or of other shapes, or numbers that are not finite.
        TypeError: `state_dict` is not a mapping, or an entry is not a tensor.

    Source:
        https://github.com/Thvnvtos/SNN-delays

    Example:
        >>> import torch
        >>> from torchdcls.delays import SynapticDelays, from_snn_delays
        >>> theirs = {"weight": torch.ones(4, 3, 1), "P": torch.zeros(1, 4, 3, 1), "SIG": torch.ones(1, 4, 3, 1)}
        >>> layer = SynapticDelays(3, 4, max_delay=24)
        >>> layer.load_state_dict(from_snn_delays(theirs))
        <All keys matched successfully>
    """
    _checks.of_type("state_dict", state_dict, Mapping, "a mapping from names")
    for key in state_dict:
        _checks.of_type("state_dict", key, str, "a mapping from names")
    names = {theirs: ours for ours, theirs in THEIR_NAMES.items()}
    renamed = {}
    for key, value in state_dict.items():
        path, dot, name = key.rpartition(".")
        if name in names:
            weight = state_dict.get(f"{path}{dot}weight")
            _checks.tensors(optional=("weight",), **{key: value, "weight": weight})
            if weight is None or value.shape != (1, *weight.shape) or weight.dim() != 3:
                shape = None if weight is None else tuple(weight.shape)
                raise ValueError(
                    f"state_dict: expected weights (out, in, n) with {name} (1, out, in, n), as of 1-D layers, "
                    f"got {shape} with {tuple(value.shape)} for {key}"
                )
            if not value.isfinite().all():
                raise ValueError(f"state_dict: expected finite numbers, got NaN or infinity in {key}")
        renamed[f"{path}{dot}{names.get(name, name)}"] = value
    if renamed.keys() == state_dict.keys():
        raise ValueError("state_dict: expected a layer of DCLS, with P, got none")
    return renamed
