"""Where positions and sigmas start."""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .. import _checks
from ..profiles import Profile

# ("normal", standard deviation) or ("uniform", radius), in grid cells, or the positions themselves.
PositionInit = tuple[Literal["normal", "uniform"], float] | Tensor


def check_position_init(position_init: PositionInit, sizes: Sequence[int] = ()) -> PositionInit:
    """`position_init` if it is valid, a tensor as a copy; warns of a radius beyond kernels of these sizes."""
    if isinstance(position_init, Tensor):
        if not position_init.is_meta and not position_init.isfinite().all():
            raise ValueError("position_init: expected finite positions, got a tensor with NaN or infinity")
        return position_init.detach().clone()  # the layer's own, and no parameter of it
    if isinstance(position_init, tuple | list) and len(position_init) == 2:
        name, width = position_init
        if name in ("normal", "uniform") and isinstance(width, int | float) and 0 <= width < math.inf:
            if sizes and name == "uniform" and width > (half := max(sizes) / 2):
                warnings.warn(
                    f"position_init: expected a radius of at most half the kernel size, {half:g} cells, got {width:g}; "
                    "positions beyond the kernel start on its edge",
                    stacklevel=2,
                )
            return name, float(width)
    wrong = ValueError if isinstance(position_init, tuple | list) else _checks.WrongTypeError
    raise wrong(
        "position_init: expected ('normal', standard deviation), ('uniform', radius) with a width of at least 0 cells, "
        f"or a tensor of positions, got {position_init!r}"
    )


def check_sigma_init(sigma_init: object, profile: Profile) -> float | None:
    """`sigma_init` if sigmas of this interpolation can start there."""
    if sigma_init is None:
        return None
    value = _checks.at_least_0("sigma_init", sigma_init)
    if profile.start is None:
        raise ValueError(f"sigma_init: expected None, as {profile.name} interpolation has no sigma, got {value!r}")
    return value


def position_start_(position: Tensor, position_init: PositionInit) -> Tensor:
    """Fills `position`, (learned axes, ...), in place and returns it."""
    if isinstance(position_init, Tensor):
        try:
            values = position_init.detach().expand(position.shape)
        except RuntimeError:
            raise ValueError(
                f"position_init: expected a tensor that broadcasts to {tuple(position.shape)}, "
                f"got shape {tuple(position_init.shape)}"
            ) from None
        with torch.no_grad():
            return position.copy_(values)
    name, width = position_init
    return nn.init.normal_(position, std=width) if name == "normal" else nn.init.uniform_(position, -width, width)
