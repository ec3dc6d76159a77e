"""Dilated convolution with learnable spacings as functions."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _checks
from ..profiles import Interpolation, Profile
from .conv import MethodName, Padding, large_kernel_conv, large_kernel_conv_transpose
from .conv.api import numbered
from .kernel import construct_kernel, element_axes


@_checks.with_hints
def dcls_conv(
    input: Tensor,
    weight: Tensor,
    position: Tensor,
    sigma: Tensor | None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilated_kernel_size: int | Sequence[int] = 1,
    groups: int = 1,
    interpolation: Interpolation | Profile = "gaussian",
    *,
    learned_dims: Sequence[int] | None = None,
    method: MethodName = "auto",
) -> Tensor:
    """Convolution of `input` with the dense kernel of the elements, in 1-D, 2-D or 3-D.

    `dcls_conv1d`, `dcls_conv2d` and `dcls_conv3d` are this function for elements of one, two or three axes.

    Args:
        input: (batch, in_channels, *map), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`. The number
            of their axes, learned and dense, decides between 1-D, 2-D and 3-D.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv`.

    Returns:
        (batch, out_channels, *map out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
        TypeError: An argument of a wrong type.

    Example:
        >>> import torch
        >>> from torchdcls import dcls_conv
        >>> weight, position, sigma = torch.randn(8, 1, 5), torch.randn(2, 8, 1, 5), torch.ones(2, 8, 1, 5)
        >>> dcls_conv(torch.randn(1, 8, 32, 32), weight, position, sigma, dilated_kernel_size=9, groups=8).shape
        torch.Size([1, 8, 24, 24])
    """
    kernel = _kernel(weight, position, sigma, dilated_kernel_size, interpolation, learned_dims)
    return large_kernel_conv(input, kernel, bias, stride, padding, groups, method=method)


@_checks.with_hints
def dcls_conv_transpose(
    input: Tensor,
    weight: Tensor,
    position: Tensor,
    sigma: Tensor | None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilated_kernel_size: int | Sequence[int] = 1,
    groups: int = 1,
    interpolation: Interpolation | Profile = "gaussian",
    *,
    learned_dims: Sequence[int] | None = None,
    method: MethodName = "auto",
) -> Tensor:
    """Transposed convolution of `input` with the dense kernel of the elements, in 1-D, 2-D or 3-D.

    `dcls_conv_transpose1d` to `dcls_conv_transpose3d` are this function for elements of one to three axes.

    Args:
        input: (batch, in_channels, *map), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `dcls_conv`, with in_channels and
            out_channels/groups for the first two axes of `weight`, as in torch.
        bias: (out_channels) or None.
        stride, padding, output_padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv_transpose`.

    Returns:
        (batch, out_channels, *map out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
        TypeError: An argument of a wrong type.
    """
    kernel = _kernel(weight, position, sigma, dilated_kernel_size, interpolation, learned_dims)
    return large_kernel_conv_transpose(input, kernel, bias, stride, padding, output_padding, groups, method=method)


def _kernel(
    weight: Tensor,
    position: Tensor,
    sigma: Tensor | None,
    size: int | Sequence[int],
    interpolation: Interpolation | Profile,
    learned_dims: Sequence[int] | None,
) -> Tensor:
    sizes = _checks.integers("dilated_kernel_size", size, element_axes(weight, position), 1)
    return construct_kernel(weight, position, sigma, sizes, interpolation, learned_dims=learned_dims)


def _check_axes(dims: int, weight: Tensor, position: Tensor, *others: Any, **more: Any) -> None:
    if element_axes(weight, position) != dims:
        expected = (dims + 3 - weight.dim(), *weight.shape)
        raise ValueError(
            f"position: expected shape (axes, *weight.shape) = {expected} in {dims}-D, got {tuple(position.shape)}"
        )


dcls_conv1d, dcls_conv2d, dcls_conv3d = numbered(dcls_conv, _check_axes)
dcls_conv_transpose1d, dcls_conv_transpose2d, dcls_conv_transpose3d = numbered(dcls_conv_transpose, _check_axes)
