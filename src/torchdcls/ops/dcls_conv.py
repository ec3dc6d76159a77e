"""Dilated convolution with learnable spacings as functions: a kernel out of elements, then a convolution with it."""

from collections.abc import Sequence

from torch import Tensor

from .. import _checks
from ..profiles import Interpolation, Profile
from .conv import Method, Padding, large_kernel_conv, large_kernel_conv_transpose
from .kernel import construct_kernel


@_checks.with_hints
def dcls_conv1d(
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
    method: Method = "auto",
) -> Tensor:
    """1-D convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, length), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel.
        method: How to convolve, see `torchdcls.large_kernel_conv1d`.

    Returns:
        (batch, out_channels, length out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 1, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv(input, kernel, bias, stride, padding, groups, method=method)


@_checks.with_hints
def dcls_conv2d(
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
    method: Method = "auto",
) -> Tensor:
    """2-D convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, height, width), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv2d`.

    Returns:
        (batch, out_channels, height out, width out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 2, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv(input, kernel, bias, stride, padding, groups, method=method)


@_checks.with_hints
def dcls_conv3d(
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
    method: Method = "auto",
) -> Tensor:
    """3-D convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, depth, height, width), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv3d`.

    Returns:
        (batch, out_channels, depth out, height out, width out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 3, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv(input, kernel, bias, stride, padding, groups, method=method)


@_checks.with_hints
def dcls_conv_transpose1d(
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
    method: Method = "auto",
) -> Tensor:
    """1-D transposed convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, length), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`, with
            in_channels and out_channels/groups for the first two axes of `weight`, as in torch.
        bias: (out_channels) or None.
        stride, padding, output_padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel.
        method: How to convolve, see `torchdcls.large_kernel_conv_transpose1d`.

    Returns:
        (batch, out_channels, length out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 1, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv_transpose(input, kernel, bias, stride, padding, output_padding, groups, method=method)


@_checks.with_hints
def dcls_conv_transpose2d(
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
    method: Method = "auto",
) -> Tensor:
    """2-D transposed convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, height, width), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`, with
            in_channels and out_channels/groups for the first two axes of `weight`, as in torch.
        bias: (out_channels) or None.
        stride, padding, output_padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv_transpose2d`.

    Returns:
        (batch, out_channels, height out, width out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 2, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv_transpose(input, kernel, bias, stride, padding, output_padding, groups, method=method)


@_checks.with_hints
def dcls_conv_transpose3d(
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
    method: Method = "auto",
) -> Tensor:
    """3-D transposed convolution of `input` with the dense kernel that the elements make.

    Args:
        input: (batch, in_channels, depth, height, width), or without batch.
        weight, position, sigma, interpolation, learned_dims: The elements, see `torchdcls.construct_kernel`, with
            in_channels and out_channels/groups for the first two axes of `weight`, as in torch.
        bias: (out_channels) or None.
        stride, padding, output_padding, groups: As in torch.
        dilated_kernel_size: Size of the dense kernel, one integer or one per axis.
        method: How to convolve, see `torchdcls.large_kernel_conv_transpose3d`.

    Returns:
        (batch, out_channels, depth out, height out, width out), or without batch.

    Raises:
        ValueError: Shapes or sizes that do not fit; the message names the argument.
    """
    size = _checks.integers("dilated_kernel_size", dilated_kernel_size, 3, 1)
    kernel = construct_kernel(weight, position, sigma, size, interpolation, learned_dims=learned_dims)
    return large_kernel_conv_transpose(input, kernel, bias, stride, padding, output_padding, groups, method=method)
