"""Interpolation profiles: how one kernel element spreads over the cells around its position.

A profile is a function of one number: the distance of a cell from the element, in units of the element's scale.
`torchdcls.construct_kernel` makes kernels of any number of axes from it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

# The names of PROFILES, for type checkers; lists of options come from INTERPOLATIONS.
Interpolation = Literal["bilinear", "triangle", "gaussian"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
# The profiles for which C and Triton have code.
DeviceForm = Literal["triangle", "gaussian"]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Profile:
    """An interpolation: a profile, its smallest scale, and the start of its sigma.

    The scale of an element along an axis is `smallest_scale + |sigma|`, in grid cells. Pass a `Profile` of your own as
    `interpolation=` wherever a name is accepted.

    Args:
        function: Maps `distance / scale` (any shape, signed) to the unnormalized profile (same shape, not negative),
            elementwise and differentiable. Use a module-level function, not a lambda, if layers are pickled.
        smallest_scale: Scale at sigma 0, positive. Unit: grid cells.
        start: Start of sigma. None: sigma is not learned, and the scale is `smallest_scale`.
        name: The name in `repr`.
        slope: Derivative of `function`, as a function of `u` and `function(u)`, if that is cheaper than autograd. None:
            autograd.
        device_form: The form of `function` in C and Triton. None: torch's operators make the kernels.

    Raises:
        ValueError: `smallest_scale` is not positive and finite, `start` is not finite, or `device_form` is unknown.
        TypeError: An argument of a wrong type.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls1d, Profile
        >>> def cauchy(u):
        ...     return 1 / (1 + u * u)
        >>> layer = Dcls1d(4, 4, 3, dilated_kernel_size=9, groups=4, interpolation=Profile(cauchy, 0.3, 0.2, "cauchy"))
        >>> layer.kernel().shape
        torch.Size([4, 1, 9])
    """

    function: Callable[[Tensor], Tensor]
    smallest_scale: float
    start: float | None
    name: str = "custom"
    slope: Callable[[Tensor, Tensor], Tensor] | None = None
    device_form: DeviceForm | None = None

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("smallest_scale", _is_number(self.smallest_scale), "a number"),
            ("start", self.start is None or _is_number(self.start), "a number"),
            ("function", callable(self.function), "a function"),
            ("slope", self.slope is None or callable(self.slope), "a function"),
            ("name", isinstance(self.name, str), "text"),
        ):
            if not fits:
                raise TypeError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        if not 0 < self.smallest_scale < float("inf"):
            raise ValueError(f"smallest_scale: expected a positive finite number, got {self.smallest_scale!r}")
        if self.start is not None and not abs(self.start) < float("inf"):
            raise ValueError(f"start: expected a finite number or None, got {self.start!r}")
        if self.device_form not in (None, *get_args(DeviceForm)):
            forms = ", ".join(map(repr, get_args(DeviceForm)))
            wrong = ValueError if isinstance(self.device_form, str) else TypeError
            raise wrong(f"device_form: expected {forms} or None, got {self.device_form!r}")

    def scale(self, sigma: Tensor) -> Tensor:
        """Scale of elements with this sigma, `smallest_scale + |sigma|`, in grid cells.

        Gradients:
            The derivative is +1 at sigma = 0 (torch's would be 0), so that a sigma that starts at 0 can leave it.
        """
        return self.smallest_scale + torch.where(sigma < 0, -sigma, sigma)


def triangle(u: Tensor) -> Tensor:
    """Triangle profile `max(0, 1 - |u|)`: falls linearly from 1 at the element to 0 at one scale from it.

    Args:
        u: Distance over scale, any shape.

    Gradients:
        At the three kinks the derivative is 0.

    Source:
        With scale 1: Khalfaoui-Hassani et al., arXiv:2112.03740 (bilinear). With a learned scale: arXiv:2306.00817.
    """
    return torch.relu(1 - u.abs())


def gaussian(u: Tensor) -> Tensor:
    """Gaussian profile `exp(-u^2 / 2)`, of which the scale is the standard deviation.

    Args:
        u: Distance over scale, any shape.

    Source:
        Khalfaoui-Hassani et al., arXiv:2306.00817.
    """
    # If the product over two axes would leave the range of normal numbers, a hundred times slower on some CPUs, the
    # profile is 0: in float32 beyond 9 standard deviations, where it is 1e-19.
    least = math.sqrt(torch.finfo(u.dtype).tiny)
    limit = math.sqrt(-2 * math.log(least))
    near = F.hardtanh(u, -limit, limit)  # clamp, but with a gradient in one step
    return F.threshold(near.square().mul_(-0.5).exp_(), 1.001 * least, 0.0)


def gaussian_slope(u: Tensor, profile: Tensor) -> Tensor:
    """Derivative of `gaussian` at `u`, where its value is `profile`."""
    return (u * profile).neg_()


def triangle_slope(u: Tensor, profile: Tensor) -> Tensor:
    """Derivative of `triangle` at `u`, where its value is `profile`; 0 at the kinks."""
    return torch.where(profile > 0, -u.sign(), 0.0)


_BUILT_IN = (
    Profile(triangle, 1.0, None, "bilinear", triangle_slope, "triangle"),
    Profile(triangle, 1.0, 0.0, "triangle", triangle_slope, "triangle"),
    Profile(gaussian, 0.27, 0.23, "gaussian", gaussian_slope, "gaussian"),
)
PROFILES = {profile.name: profile for profile in _BUILT_IN}


def description(profile: Profile) -> str:
    """A profile in words: its name, and the numbers of a user's own profile."""
    if PROFILES.get(profile.name) == profile:
        return profile.name
    spread = "not learned" if profile.start is None else f"sigma starts at {profile.start:g}"
    return f"{profile.name} (own profile, smallest scale {profile.smallest_scale:g}, {spread})"
