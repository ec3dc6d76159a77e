"""Transposed convolutions with learnable spacings: `torch.nn.ConvTransposeNd` with elements instead of a dense kernel.

They differ from torch's layers as `DclsNd` does. The functions behind them are `torchdcls.construct_kernel` and
`torchdcls.dcls_conv_transpose`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .. import _checks
from ..ops.conv import MethodName, check_output_padding, large_kernel_conv_transpose, output_padding_for
from ..ops.tracing import traced_by_jit
from ..profiles import Interpolation, Profile
from .init import PositionInit
from .layer import DclsLayer, arguments_of


class DclsTransposeNd(DclsLayer):
    """The base of `DclsTranspose1d`, `DclsTranspose2d` and `DclsTranspose3d`; use those.

    The output is the gradient of the input of a `DclsNd` layer from `out_channels` to `in_channels` with the same
    elements, stride, padding and groups. `kernel()` is the weight of the `torch.nn.ConvTransposeNd` that computes the
    same. Along an axis an element moves cell `i` of the input to cell `i * stride - padding + size // 2 + position` of
    the output: at stride 1, with `padding=size // 2`, an element at position 2 moves its input by two cells.
    """

    padding: tuple[int, ...]
    output_padding: tuple[int, ...]

    @_checks.with_hints
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilated_kernel_size: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros"] = "zeros",
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
            kernel_count: Elements for each pair of an input channel and an output channel of its group (and for each
                tap of the dense axes, if any).
            stride: As in torch.
            padding: As in torch: cells cut off both ends of each axis of the output, one integer or one per axis.
            output_padding: As in torch: additional cells at the end of each axis of the output, fewer than the stride.
            dilated_kernel_size: Size of the dense kernel, odd or even, one integer or one per axis. Always pass it: the
                default of 1 allows one element alone, which cannot move.
            groups: As in torch.
            bias: Whether to add a learned bias.
            padding_mode: "zeros"; torch's transposed layers have no other.
            interpolation, learned_dims, position_init, sigma_init: See `Dcls2d`.
            method: How to convolve, see `torchdcls.large_kernel_conv_transpose`.
            device, dtype: See `Dcls2d`.

        Attributes:
            weight: (in_channels, out_channels/groups, *dense sizes, kernel_count).
            position, sigma: See `Dcls2d`; position 0 is cell `size // 2` of the kernel here too.
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
                return _checks.integers("padding", value, self.dims, 0)
            case "output_padding":
                return check_output_padding(value, self.stride)
            case "padding_mode":
                _checks.one_of("padding_mode", value, ("zeros",))
            case "stride" if self._is_set("output_padding"):
                check_output_padding(self.output_padding, value)
        return value

    @property
    def weight_channels(self) -> tuple[int, int]:
        """The first two axes of `weight`: (in_channels, out_channels/groups)."""
        return self.in_channels, self.out_channels // self.groups

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Transposed convolution of (batch, in_channels, *map), or one image without batch, with the dense kernel.

        Args:
            input: (batch, in_channels, *map), or without batch.
            output_size: As in torch: size of the output, with or without batch and channels, instead of
                `output_padding`.

        Raises:
            ValueError: An `output_size` that is not possible; the message says which are. Shapes that do not fit.
            TypeError: An argument of a wrong type.
        """
        sizes = self.dilated_kernel_size, self.stride, self.padding
        beyond = self.output_padding
        asked: tuple[int, ...] = ()
        if output_size is not None and input.dim() in (self.dims + 1, self.dims + 2):
            beyond = output_padding_for(output_size, input.shape, *sizes)
            if traced_by_jit():
                # The trace would record the output padding as numbers. Each call may have another size, so the largest
                # output is made and then cut.
                beyond, asked = tuple(step - 1 for step in self.stride), tuple(output_size)[-self.dims :]
        output = large_kernel_conv_transpose(
            input, self._kept_kernel(), self.bias, self.stride, self.padding, beyond, self.groups, method=self.method
        )
        for axis, size in enumerate(asked, start=-self.dims):
            output = output.narrow(axis, 0, size)
        return output

    def extra_repr(self) -> str:
        """As of `DclsNd`, with the output padding."""
        beyond = f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        return super().extra_repr() + beyond


class DclsTranspose1d(DclsTransposeNd):
    """1-D transposed convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, length) to (batch, out_channels, length out). See `__init__` for arguments
    and attributes.

    Example:
        >>> import torch
        >>> from torchdcls import DclsTranspose1d
        >>> layer = DclsTranspose1d(16, 8, 4, stride=2, padding=7, output_padding=1, dilated_kernel_size=15)
        >>> layer(torch.randn(4, 16, 50)).shape
        torch.Size([4, 8, 100])
    """

    dims = 1


class DclsTranspose2d(DclsTransposeNd):
    """2-D transposed convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, height, width) to (batch, out_channels, height out, width out). See `__init__` for
    arguments and attributes.

    Example:
        >>> import torch
        >>> from torchdcls import DclsTranspose2d
        >>> layer = DclsTranspose2d(16, 8, 9, stride=2, padding=5, dilated_kernel_size=12)
        >>> layer(torch.randn(1, 16, 28, 28)).shape, layer.kernel().shape
        (torch.Size([1, 8, 56, 56]), torch.Size([16, 8, 12, 12]))
    """

    dims = 2


class DclsTranspose3d(DclsTransposeNd):
    """3-D transposed convolution whose kernel is the sum of elements with learned positions.

    Maps (batch, in_channels, depth, height, width) to the same with `out_channels`. See `__init__` for arguments
    and attributes.

    Example:
        >>> import torch
        >>> from torchdcls import DclsTranspose3d
        >>> layer = DclsTranspose3d(4, 4, 5, (1, 2, 2), padding=(1, 3, 3), dilated_kernel_size=(3, 7, 7), groups=4)
        >>> layer(torch.randn(2, 4, 8, 5, 5), output_size=(8, 10, 10)).shape
        torch.Size([2, 4, 8, 10, 10])
    """

    dims = 3
