"""Convolution with any large kernel: checks a call, chooses a method and runs it. No arithmetic here."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ... import _checks
from ..autocast import autocast_disabled, autocast_is_on
from ..tracing import differentiated_forwards, exporting
from . import direct, select
from .autograd import Convolution, make
from .layout import is_like_channels_last, to_channels_last
from .methods import METHOD_NAMES, METHODS, MethodName, named
from .posing import Padding, Pairs, pose
from .problem import Map, Problem
from .select import Plan

_Function = TypeVar("_Function", bound=Callable[..., Tensor])


def large_kernel_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding | Pairs = 0,
    groups: int = 1,
    *,
    method: MethodName = "auto",
) -> Tensor:
    """Computes `torch.nn.functional.conv{1,2,3}d` by a method that is fast for large kernels.

    Args:
        input: (batch, in_channels, *map) or (in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel); its number of axes decides between 1-D, 2-D and 3-D.
        bias: (out_channels) or None.
        stride, padding, groups: As in torch. padding="same" needs stride 1. A tuple of pairs, ((before, after), ...),
            pads the two ends of each axis differently.
        method: "direct" is torch's own, "native" the compiled kernels (on CPU, with a filter for each channel), "fft"
            multiplies spectra by torch's operators, "triton" multiplies rows by banded matrices (on CUDA, with a filter
            for each channel). "auto" takes the fastest expected one for the output and for each gradient, see
            `torchdcls.explain_method`. A named method never falls back to another. All agree to rounding, with these
            exceptions: products of spectra ("fft", and "native" for large kernels) round relative to the largest cells.
            They lose exact zeros and the signs of cells near zero, and spread a NaN or an infinity over the output or a
            tile of it. "triton", and "native" for small kernels, keep signs and zeros, and may spread a NaN or an
            infinity to neighbors. "direct" does none of this.

    Returns:
        (batch, out_channels, *map out), without batch if the input has none.

    Raises:
        ValueError: Shapes or dtypes that do not fit, or a named method that cannot run the call; the reason is in the
            message.
        TypeError: An argument of a wrong type.
    """
    return _convolve("convolve", method, input, weight, bias, stride, padding, groups)


def large_kernel_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    *,
    method: MethodName = "auto",
) -> Tensor:
    """Computes `torch.nn.functional.conv_transpose{1,2,3}d` by a method that is fast for large kernels.

    It is computed as the gradient of a convolution's input. Its own gradients are that convolution and the gradient of
    the weight.

    Args:
        input: (batch, in_channels, *map) or (in_channels, *map).
        weight: (in_channels, out_channels/groups, *kernel); its number of axes decides between 1-D, 2-D and 3-D.
        bias: (out_channels) or None.
        stride, padding, output_padding, groups: As in torch. Output padding is less than the stride.
        method: As in `large_kernel_conv`. "fft" and "triton" run at stride 1.

    Returns:
        (batch, out_channels, *map out), without batch if the input has none. Along each axis the output has (map - 1) *
        stride - 2 * padding + kernel + output_padding cells.

    Raises:
        ValueError: Shapes or dtypes that do not fit, or a named method that cannot run the call; the reason is in the
            message.
        TypeError: An argument of a wrong type.
    """
    return _convolve("transpose", method, input, weight, bias, stride, padding, groups, output_padding)


def large_kernel_weight_gradient(input: Tensor, gradient: Tensor, shape: Sequence[int], padding: int) -> Tensor:
    """The gradient of `large_kernel_conv` in a weight of this shape, each tap of which reads the map somewhere.

    `input` and `gradient`, that of the output, are in one dtype, of float32 at least.
    """
    weight = input.new_empty(()).expand(shape)  # only its shape is read
    _, problem = pose(input, weight, None, 1, padding, input.shape[1] // shape[1])
    assert problem.kernel == tuple(shape[2:])
    plan = select.choose(problem, "convolve", False, True)
    tensors = input, None, gradient, None
    made: Tensor = Convolution.apply(*tensors, problem, plan, input.dtype, ("correlate",))[0]  # type: ignore[no-untyped-call]
    return made


def _convolve(
    output: Map, method: MethodName, input: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any
) -> Tensor:
    # Sizes are stride, padding, groups and, of a transposed convolution, output padding.
    _checks.one_of("method", method, METHOD_NAMES)
    _check_kinds(input, weight=weight, bias=bias)
    weight, problem = pose(input, weight, bias, *sizes, output=output)
    batched = input if input.dim() == weight.dim() else input.unsqueeze(0)
    if method == "auto":
        tracked = torch.is_grad_enabled()
        plan = select.choose(problem, output, tracked and input.requires_grad, tracked and weight.requires_grad)
    else:
        reason = select.unsupported_reason(named(method), problem)
        if reason is not None:
            raise ValueError(f"method: {method!r} cannot run this call: {reason}. Use method='auto' or 'direct'")
        plan = Plan.of_one(method)
    made = _run(batched, weight, bias, problem, output, plan)
    return made if input.dim() == weight.dim() else made.squeeze(0)


def _run(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem, output: Map, plan: Plan) -> Tensor:
    methods = plan.methods()
    if all(method is METHODS[0] for method in methods):
        if output == "transpose":
            return direct.transpose(input, weight, problem, bias)
        return direct.convolve(input, weight, bias, problem)
    device = input.device.type
    dtype = torch.get_autocast_dtype(device) if _autocasts(input) else input.dtype
    # Methods with intermediate results are given float32.
    whole = all(method.own_half or method is METHODS[0] for method in methods)
    inner = dtype if whole else torch.promote_types(dtype, torch.float32)
    differentiated = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (input, weight, bias)
    )
    # Forward-mode differentiation and exported programs go through the steps themselves.
    own_steps = not differentiated or differentiated_forwards() or exporting()
    with autocast_disabled(device):
        bias = None if bias is None else bias.to(inner)
        # For backward the smaller of both dtypes is kept: the given one, or that of the computation.
        given, taken = (
            each.to(inner) if own_steps or each.itemsize > inner.itemsize else each for each in (input, weight)
        )
        # Input, weight, gradient and bias of the problem: its gradient is the input of a transposed convolution.
        tensors: tuple[Any, Tensor, Any, Any] = (None, taken, given, None)
        if output == "convolve":
            tensors = (given, taken, None, bias)
        if own_steps:
            made = make(output, *tensors, problem, plan)
        else:
            (made,) = Convolution.apply(*tensors, problem, plan, inner, (output,))  # type: ignore[no-untyped-call]
        if output == "transpose" and bias is not None:
            made = made + bias.view(-1, *(1 for _ in problem.map))
        made = made.to(dtype)
    # As torch's convolutions do: channels_last in, channels_last out.
    return to_channels_last(made) if is_like_channels_last(input) else made.contiguous()


def _check_kinds(input: Tensor, **others: Tensor | None) -> None:
    _checks.tensors(input=input, **others, optional=("bias",))
    for name, tensor in others.items():
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"{name}: expected the device of input, {input.device}, got {tensor.device}")
        if tensor is not None and tensor.dtype != input.dtype and not (_autocasts(input) and _autocasts(tensor)):
            raise ValueError(f"{name}: expected the dtype of input, {input.dtype}, got {tensor.dtype}")


def _autocasts(tensor: Tensor) -> bool:
    # Whether autocast casts this tensor: not integers and float64.
    return autocast_is_on(tensor.device.type) and tensor.is_floating_point() and tensor.dtype != torch.float64


def explain_method(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    groups: int = 1,
    *,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    training: bool = True,
    channels_last: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Prints the expected time of each method, or why it is unsupported, and the choice of "auto".

    Args:
        input_shape: (batch, in_channels, *map).
        weight_shape: (out_channels, in_channels/groups, *kernel); for a transposed convolution (in_channels,
            out_channels/groups, *kernel).
        stride, padding, groups: As in torch.
        transposed: Whether it is the transposed convolution.
        output_padding: As in torch, of a transposed convolution.
        training: Whether gradients of input and weight are needed.
        channels_last: Whether the input is in that memory format.
        device: The device of the tensors.
        dtype: The dtype of the tensors. Times are fitted to float32, and rough for others.

    Raises:
        ValueError: Shapes that do not fit.
        TypeError: An argument of a wrong type.

    Example:
        >>> from torchdcls import explain_method
        >>> explain_method((4, 96, 56, 56), (96, 1, 23, 23), padding=11, groups=96)  # doctest: +ELLIPSIS
        method               output    input gradient   weight gradient    both gradients   (expected on two cores, ms)
        direct  ...
        auto counts ...
        auto takes: ...
    """
    for name, shape in (("input_shape", input_shape), ("weight_shape", weight_shape)):
        _checks.of_type(name, shape, Sequence, "the sizes of all axes, such as (1, 3, 32, 32)")
        _checks.integers(name, shape, len(shape), 0)
    _checks.flags(transposed=transposed, training=training, channels_last=channels_last)
    _checks.of_type("dtype", dtype, torch.dtype, "a torch.dtype")
    input = torch.empty(tuple(input_shape), device="meta", dtype=dtype)
    if channels_last:
        input = to_channels_last(input)
    weight = torch.empty(tuple(weight_shape), device="meta")
    output: Map = "transpose" if transposed else "convolve"
    _, problem = pose(input, weight, None, stride, padding, groups, output_padding, output=output)
    problem = dataclasses.replace(problem, device=_checks.device(device).type)
    print(select.explain(problem, output, training, training))


def numbered(function: _Function, check: Callable[..., None]) -> tuple[_Function, _Function, _Function]:
    """A function in 1-D, 2-D and 3-D alone: `check(dims, weight, ...)` refuses tensors of another number of axes."""

    def in_axes(dims: int) -> _Function:
        @functools.wraps(function)
        def convolve(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            check(dims, weight, *args, **kwargs)
            return function(input, weight, *args, **kwargs)

        convolve.__name__ = convolve.__qualname__ = f"{function.__name__}{dims}d"
        convolve.__doc__ = f"`{function.__name__}` in {dims}-D."
        return cast(_Function, convolve)

    return in_axes(1), in_axes(2), in_axes(3)


def _check_axes(dims: int, weight: Tensor, *others: Any, **more: Any) -> None:
    _checks.axis_count("weight", weight, dims + 2)


large_kernel_conv1d, large_kernel_conv2d, large_kernel_conv3d = numbered(large_kernel_conv, _check_axes)
large_kernel_conv_transpose1d, large_kernel_conv_transpose2d, large_kernel_conv_transpose3d = numbered(
    large_kernel_conv_transpose, _check_axes
)
