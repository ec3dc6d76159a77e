"""Dilated convolutions with learnable spacings as modules: `torch.nn.ConvNd` with elements instead of a dense kernel.

They differ from torch's layers in three ways: `kernel_count` elements take the place of a kernel size, the dense kernel
they make is `dilated_kernel_size` large, and there is no `dilation`, which the positions replace. The functions behind
them are `torchdcls.construct_kernel` and `torchdcls.dcls_conv1d` to `dcls_conv3d`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks
from ..ops.conv import METHODS, Method, Padding, large_kernel_conv, padding_pairs
from ..ops.kernel import clamp_position_, construct_kernel
from ..ops.tracing import special_tensors
from ..profiles import Interpolation, Profile
from .cache import KernelCache
from .init import PositionInit, check_position_init, position_start_

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class DclsNd(nn.Module):
    """What `Dcls1d`, `Dcls2d` and `Dcls3d` have in common; use those.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_count: Elements for each pair of an output channel and an input channel of its group (and for each tap of
            the dense axes, if any).
        stride: As in torch.
        padding: As in torch: one integer, one per axis, "same" or "valid". For even sizes "same" pads one cell less
            before the map than after it, as in torch, so that an element at position 0 reads the cell after the
            output's own.
        dilated_kernel_size: Size of the dense kernel, odd or even, one integer or one per axis. With the default of 1
            there is nowhere to move: always give it.
        groups: As in torch.
        bias: Whether to add a learned bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        interpolation: "bilinear", "triangle", "gaussian" or a `torchdcls.Profile`.
        learned_dims: Spatial axes (0 is the first after the channels) along which positions are learned; the others are
            dense, each of their taps with `kernel_count` elements of its own. None: all axes.
        position_init: Where positions start: ("normal", standard deviation), ("uniform", radius), or a tensor that
            broadcasts to the shape of `position`; all in grid cells, then clamped to the grid.
        method: How to convolve, see `torchdcls.large_kernel_conv2d`: "auto", "direct", "depthwise",
            "fft", "matmul" or "triton".
        device: Where parameters are made.
        dtype: Of weight and bias. Position and sigma are kept in float32 at least, also by `.to(torch.bfloat16)`.

    Attributes:
        weight: (out_channels, in_channels/groups, *dense sizes, kernel_count).
        position: (learned axes, *weight.shape). Unit: grid cells; origin: cell `size // 2` of each axis; axes in
            torch's order. At the start on the grid [-(s // 2), s - 1 - s // 2], where `clamp_position_` keeps it.
        sigma: The shape of `position`; None for "bilinear". Spread is the profile's smallest scale plus |sigma|.
        bias: (out_channels) or None.

    Raises:
        ValueError: An argument is out of range; the message names it.

    Source:
        Khalfaoui-Hassani et al., arXiv:2112.03740 and arXiv:2306.00817.
    """

    dims: int
    weight: nn.Parameter
    position: nn.Parameter
    sigma: nn.Parameter | None
    bias: nn.Parameter | None

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
        method: Method = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = _checks.channels(in_channels, out_channels, groups)
        self.kernel_count = _checks.integer("kernel_count", kernel_count, 1)
        self.dilated_kernel_size = _checks.integers("dilated_kernel_size", dilated_kernel_size, self.dims, 1)
        self.stride = _checks.integers("stride", stride, self.dims, 1)
        # Found here, so that a wrong padding is refused where it is written.
        pads = padding_pairs(padding, self.dilated_kernel_size, self.stride)
        self.padding: Padding = padding if isinstance(padding, str) else tuple(before for before, _ in pads)
        _checks.one_of("padding_mode", padding_mode, _PADDING_MODES)
        self.padding_mode = padding_mode
        _checks.one_of("method", method, METHODS)
        self.method: Method = method
        self.interpolation = _checks.profile(interpolation)
        self.learned_dims = _checks.axes(learned_dims, self.dims)
        self.position_init = check_position_init(position_init)

        dense = [self.dilated_kernel_size[dim] for dim in range(self.dims) if dim not in self.learned_dims]
        shape = (self.out_channels, self.in_channels // self.groups, *dense, self.kernel_count)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        precise = torch.promote_types(dtype, torch.float32)

        def per_axis() -> nn.Parameter:
            return nn.Parameter(torch.empty((len(self.learned_dims), *shape), device=device, dtype=precise))

        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.position = per_axis()
        self.sigma = None if self.interpolation.start is None else per_axis()
        self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if bias else None
        self._cache = KernelCache()
        self.reset_parameters()

    @property
    def learned_size(self) -> tuple[int, ...]:
        """Kernel size along the axes whose positions are learned."""
        return tuple(self.dilated_kernel_size[dim] for dim in self.learned_dims)

    def reset_parameters(self) -> None:
        """Draws weight and bias as torch's convolutions do, elements being the taps, positions by `position_init`."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            nn.init.uniform_(self.bias, -bound, bound)
        position_start_(self.position, self.position_init)
        self.clamp_position_()
        if self.sigma is not None and self.interpolation.start is not None:
            nn.init.constant_(self.sigma, self.interpolation.start)

    def kernel(self) -> Tensor:
        """The dense kernel, (out_channels, in_channels/groups, *dilated_kernel_size), differentiable."""
        return construct_kernel(
            self.weight,
            self.position,
            self.sigma,
            self.dilated_kernel_size,
            self.interpolation,
            learned_dims=self.learned_dims,
        )

    def clamp_position_(self) -> None:
        """Moves positions that are off the grid to its nearest edge, in place; after an optimizer step, say."""
        clamp_position_(self.position, self.learned_size)

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (batch, in_channels, *map), or one image without batch, with the dense kernel."""
        padding = self.padding
        if self.padding_mode != "zeros":
            pads = padding_pairs(padding, self.dilated_kernel_size, self.stride)
            input = F.pad(input, [cells for pair in reversed(pads) for cells in pair], mode=self.padding_mode)
            padding = 0
        kernel = self._kept_kernel()
        return large_kernel_conv(input, kernel, self.bias, self.stride, padding, self.groups, method=self.method)

    def train(self, mode: bool = True) -> Self:
        """As in torch; in evaluation the kernel is kept until an element changes, while no gradient is asked for."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    def _kept_kernel(self) -> Tensor:
        if self.training or torch.is_grad_enabled() or special_tensors() or self.weight.is_meta:
            return self.kernel()
        settings = (self.dilated_kernel_size, self.interpolation, self.learned_dims)
        return self._cache.get([self.weight, self.position, self.sigma], settings, self.kernel)

    def extra_repr(self) -> str:
        """What a reader of `print(model)` needs: torch's fields first, defaults left out."""
        fields = [
            f"{self.in_channels}, {self.out_channels}, kernel_count={self.kernel_count}",
            f"dilated_kernel_size={self.dilated_kernel_size}, interpolation={self.interpolation.name}",
        ]
        if self.stride != (1,) * self.dims:
            fields.append(f"stride={self.stride}")
        if self.padding != (0,) * self.dims:
            fields.append(f"padding={self.padding!r}")
        if self.groups != 1:
            fields.append(f"groups={self.groups}")
        if self.bias is None:
            fields.append("bias=False")
        if self.padding_mode != "zeros":
            fields.append(f"padding_mode={self.padding_mode}")
        if len(self.learned_dims) != self.dims:
            fields.append(f"learned_dims={self.learned_dims}")
        if self.method != "auto":
            fields.append(f"method={self.method}")
        return ", ".join(fields)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # In half precision a position would be off by a sixteenth of a cell at size 23: it moves, but keeps its dtype.
        precise = [self.position] if self.sigma is None else [self.position, self.sigma]
        kept = {id(tensor) for parameter in precise for tensor in (parameter, parameter.grad) if tensor is not None}

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if id(tensor) in kept and result.dtype.itemsize < 4:
                return tensor.to(result.device)
            return result

        return super()._apply(moved, recurse)  # type: ignore[no-any-return, no-untyped-call]


class Dcls1d(DclsNd):
    """1-D convolution whose kernel elements learn where to sit.

    Maps (batch, in_channels, length) to (batch, out_channels, length out). See `DclsNd` for arguments and attributes.
    As a layer of delays, with zeros in front of the signal so that nothing reads the future, the delay of an element is
    `size - 1 - size // 2 - position`, from 0 to `size - 1` steps.

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
    """2-D convolution whose kernel elements learn where to sit.

    Maps (batch, in_channels, height, width) to (batch, out_channels, height out, width out). See `DclsNd` for arguments
    and attributes.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls2d
        >>> layer = Dcls2d(96, 96, kernel_count=26, dilated_kernel_size=23, padding="same", groups=96)
        >>> layer(torch.randn(1, 96, 56, 56)).shape, layer.kernel().shape
        (torch.Size([1, 96, 56, 56]), torch.Size([96, 1, 23, 23]))
    """

    dims = 2


class Dcls3d(DclsNd):
    """3-D convolution whose kernel elements learn where to sit.

    Maps (batch, in_channels, depth, height, width) to the same with `out_channels`. See `DclsNd` for arguments and
    attributes.

    Example:
        >>> import torch
        >>> from torchdcls import Dcls3d
        >>> layer = Dcls3d(4, 4, 5, padding="same", dilated_kernel_size=(3, 7, 7), groups=4, learned_dims=(1, 2))
        >>> layer.position.shape, layer(torch.randn(4, 8, 9, 9)).shape
        (torch.Size([2, 4, 1, 3, 5]), torch.Size([4, 8, 9, 9]))
    """

    dims = 3
