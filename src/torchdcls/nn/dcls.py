"""Dilated convolutions with learnable spacings as modules: `torch.nn.ConvNd` with elements instead of a dense kernel.

They differ from torch's layers in three ways: `kernel_count` elements replace the kernel size, the size of the dense
kernel is `dilated_kernel_size`, and positions replace `dilation`. The functions behind them are
`torchdcls.construct_kernel` and `torchdcls.dcls_conv`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from ..ops.conv import MethodName, Padding, large_kernel_conv, padding_pairs
from ..ops.padding import PADDING_MODES, PaddingMode, pad
from ..profiles import Interpolation, Profile
from .init import PositionInit
from .layer import DclsLayer, arguments_of


class DclsNd(DclsLayer):
    """The base of `Dcls1d`, `Dcls2d` and `Dcls3d`; use those.

    Source:
        Khalfaoui-Hassani et al., arXiv:2112.03740 and arXiv:2306.00817.
    """

    padding_mode: PaddingMode

    @_checks.with_hints
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilated_kernel_size: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        interpolation: Interpolation | Profile = "gaussian",
        *,
        learned_dims: Sequence[int] | None = None,
        position_init: PositionInit = ("normal", 0.5),
        sigma_init: float | None = None,
        method: MethodName = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Creates the parameters and initializes them.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            kernel_count: Elements for each pair of an output channel and an input channel of its group (and for each
                tap of the dense axes, if any).
            stride: As in torch.
            padding: As in torch: one integer, one per axis, "same" or "valid". For even sizes "same" pads one cell less
                before the input than after it, as in torch: an element at position 0 then reads the next cell.
            dilated_kernel_size: Size of the dense kernel, odd or even, one integer or one per axis. Always pass it: the
                default of 1 allows one element alone, which cannot move.
            groups: As in torch.
            bias: Whether to add a learned bias.
            padding_mode: "zeros", "reflect", "replicate" or "circular". Padding may be larger than the input, which is
                then reflected, or wrapped around, as often as needed.
            interpolation: "bilinear", "triangle", "gaussian" or a `torchdcls.Profile`.
            learned_dims: Spatial axes along which positions are learned; 0 is the first after the channels. The others
                are dense: each of their taps has `kernel_count` elements. None: all axes.
            position_init: Where positions start: ("normal", standard deviation), ("uniform", radius), or a tensor that
                broadcasts to the shape of `position`; all in grid cells, then clamped to the grid. A radius of more
                than half the kernel size warns.
            sigma_init: The start of every sigma, at least 0, in grid cells. None: the start of the interpolation.
            method: How to convolve, see `torchdcls.large_kernel_conv`.
            device: Device of the parameters.
            dtype: Dtype of weight and bias. Position and sigma stay in float32 at least, also after
                `.to(torch.bfloat16)`.

        Attributes:
            weight: (out_channels, in_channels/groups, *dense sizes, kernel_count).
            position: (learned axes, *weight.shape). Unit: grid cells; origin: cell `size // 2` of each axis; axes in
                torch's order. It starts on the grid, [-(s // 2), s - 1 - s // 2]; `clamp_position_` moves it back
                there.
            sigma: The shape of `position`; None for "bilinear". Spread is the profile's smallest scale plus |sigma|.
            bias: (out_channels) or None.

        Raises:
            ValueError: An argument is out of range; the message names it.
            TypeError: An argument of a wrong type.
        """
        super().__init__(**arguments_of(locals()))

    def _checked(self, name: str, value: Any) -> Any:
        value = super()._checked(name, value)
        match name:
            case "padding":
                pads = padding_pairs(value, self.dilated_kernel_size, self.stride)
                return value if isinstance(value, str) else tuple(before for before, _ in pads)
            case "padding_mode":
                _checks.one_of("padding_mode", value, PADDING_MODES)
            case "stride" if self._is_set("padding"):
                padding_pairs(self.padding, self.dilated_kernel_size, value)
        return value

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (batch, in_channels, *map), or one image without batch, with the dense kernel."""
        padding = self.padding
        if self.padding_mode != "zeros":
            _checks.tensors(input=input)
            pads = padding_pairs(padding, self.dilated_kernel_size, self.stride)
            input = pad(input, pads, self.padding_mode)
            padding = 0
        kernel = self._kept_kernel()
        return large_kernel_conv(input, kernel, self.bias, self.stride, padding, self.groups, method=self.method)


class Dcls1d(DclsNd):
    """1-D convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, length) to (batch, out_channels, length out). See `__init__` for arguments and attributes.
    As a layer of delays, with `size - 1` zeros before the signal, the delay of an element is `size - 1 - size // 2 -
    position`, from 0 to `size - 1` steps. `torchdcls.delays` has layers for this.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls1d
        >>> delays = Dcls1d(16, 8, kernel_count=1, dilated_kernel_size=31, position_init=("uniform", 15))
        >>> spikes = torch.nn.functional.pad(torch.randn(4, 16, 100), (30, 0))
        >>> delays(spikes).shape
        torch.Size([4, 8, 100])
    """

    dims = 1


class Dcls2d(DclsNd):
    """2-D convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, height, width) to (batch, out_channels, height out, width out). See `__init__` for
    arguments and attributes.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls2d
        >>> layer = Dcls2d(96, 96, kernel_count=26, dilated_kernel_size=23, padding="same", groups=96)
        >>> layer(torch.randn(1, 96, 56, 56)).shape, layer.kernel().shape
        (torch.Size([1, 96, 56, 56]), torch.Size([96, 1, 23, 23]))
    """

    dims = 2


class Dcls3d(DclsNd):
    """3-D convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, depth, height, width) to the same with `out_channels`. See `__init__` for arguments and
    attributes.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls3d
        >>> layer = Dcls3d(4, 4, 5, padding="same", dilated_kernel_size=(3, 7, 7), groups=4, learned_dims=(1, 2))
        >>> layer.position.shape, layer(torch.randn(4, 8, 9, 9)).shape
        (torch.Size([2, 4, 1, 3, 5]), torch.Size([4, 8, 9, 9]))
    """

    dims = 3
