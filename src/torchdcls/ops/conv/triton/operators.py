"""The operators that torch's compiler sees, whole: it knows what they give, and not how it is made.

Derivatives are not theirs but of `..autograd`, which has both for any method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..layout import is_like_channels_last, to_channels_last
from ..problem import Problem

_LIBRARY: Any = torch.library.Library("torchdcls", "DEF")  # type: ignore[no-untyped-call]


def convolve_triton(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """Depthwise convolution, in the memory format of `input`.

    Args:
        input: (batch, channels, *map) of one or two axes, any strides.
        weight: (channels, 1, *kernel).
        bias: (channels) or None.
        problem: Sizes and padding of the call.

    Returns:
        (batch, channels, *map out).
    """
    return _convolve(input, weight, bias, problem, problem.outputs)


def gradients_triton(
    input: Tensor | None, weight: Tensor, gradient: Tensor, problem: Problem, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `convolve_triton` without bias.

    Args:
        input: As given to `convolve_triton`, or None where the gradient of the weight is not asked for.
        weight, problem: As given to `convolve_triton`.
        gradient: Of the output, (batch, channels, *map out).
        of_input, of_weight: Which gradients to make.

    Returns:
        Gradients of the input, in its memory format, and of the weight, None where not asked for.
    """
    to_input = to_weight = None
    if input is not None:
        gradient = _in_format_of(input, gradient)
    if of_input:
        turned = weight.flip(list(range(2, weight.dim())))
        to_input = _convolve(gradient, turned, None, problem.turned(), problem.map)
    if of_weight:
        assert input is not None
        sizes = _both_axes(_before(problem), 0), _both_axes(problem.kernel, 1)
        to_weight = torch.ops.torchdcls.depthwise_conv_weight_gradient(_rows(input), _rows(gradient), *sizes)
        to_weight = to_weight.reshape(weight.shape)
    return to_input, to_weight


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem, map_out: Sequence[int]) -> Tensor:
    sizes = _both_axes(_before(problem), 0), _both_axes(map_out, 1)
    output: Tensor = torch.ops.torchdcls.depthwise_conv(_rows(input), _rows(weight), bias, *sizes)
    return output if input.dim() == 4 else output.squeeze(2)


def _in_format_of(input: Tensor, gradient: Tensor) -> Tensor:
    # One copy, where a loss gave the gradient another format, for two launches that read neighbours together.
    if is_like_channels_last(input) == is_like_channels_last(gradient):
        return gradient
    return to_channels_last(gradient) if is_like_channels_last(input) else gradient.contiguous()


def _rows(tensor: Tensor) -> Tensor:
    # Of one axis, one row of two.
    return tensor if tensor.dim() == 4 else tensor.unsqueeze(2)


def _both_axes(sizes: Sequence[int], of_the_first: int) -> list[int]:
    return [*(of_the_first for _ in range(2 - len(sizes))), *sizes]


def _before(problem: Problem) -> list[int]:
    # What is padded after the map follows from the sizes.
    return [before for before, _ in problem.padding]


def _made_output(
    input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], map_out: Sequence[int]
) -> Tensor:
    _check_axes(input=input, weight=weight)
    _check_kinds(input, weight=weight, bias=bias)
    _check_two(padding=padding, map_out=map_out)
    if tuple(weight.shape[:2]) != (input.shape[1], 1):
        raise ValueError(f"weight: expected ({input.shape[1]}, 1, rows, columns), got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (input.shape[1],):
        raise ValueError(f"bias: expected ({input.shape[1]},), got {tuple(bias.shape)}")
    shape = (*input.shape[:2], *map_out)
    if is_like_channels_last(input):
        return input.new_empty((shape[0], *shape[2:], shape[1])).movedim(-1, 1)
    return input.new_empty(shape)


def _made_weight_gradient(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    _check_axes(input=input, gradient=gradient)
    _check_kinds(input, gradient=gradient)
    _check_two(padding=padding, kernel=kernel)
    if tuple(gradient.shape[:2]) != tuple(input.shape[:2]):
        raise ValueError(
            f"gradient: expected samples and channels of input, {tuple(input.shape[:2])}, got {tuple(gradient.shape)}"
        )
    return input.new_empty((input.shape[1], 1, *kernel))


def _check_axes(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dim() != 4:
            raise ValueError(f"{name}: expected 4 axes, got shape {tuple(tensor.shape)}")


def _check_kinds(input: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and (tensor.dtype, tensor.device) != (input.dtype, input.device):
            wanted, got = (f"{one.dtype} on {one.device}" for one in (input, tensor))
            raise ValueError(f"{name}: expected {wanted}, as input is, got {got}")


def _check_two(**sizes: Sequence[int]) -> None:
    for name, of_axes in sizes.items():
        if len(of_axes) != 2:
            raise ValueError(f"{name}: expected a number for rows and one for columns, got {tuple(of_axes)}")


def _run_output(
    input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], map_out: Sequence[int]
) -> Tensor:
    from .launch import convolve

    output = _made_output(input, weight, bias, padding, map_out)
    convolve(input, weight, bias, padding, output)
    return output


def _run_weight_gradient(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    from .launch import differentiate

    _made_weight_gradient(input, gradient, padding, kernel)
    return differentiate(input, gradient, padding, kernel)


def _mapped_output(
    info: Any,
    axes: Sequence[int | None],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    map_out: Sequence[int],
) -> tuple[Tensor, int]:
    # Under torch.func.vmap: many inputs are samples, many kernels are channels.
    one, other, third, *_ = axes
    if other is None and third is None:
        assert one is not None
        inputs = input.movedim(one, 0)
        many = inputs.reshape(-1, *inputs.shape[2:])
        output = torch.ops.torchdcls.depthwise_conv(many, weight, bias, padding, map_out)
        return output.reshape(*inputs.shape[:2], *output.shape[1:]), 0
    size = info.batch_size
    many = _beside(input, one, size, 1)
    kernels = _beside(weight, other, size, 0)
    biases = None if bias is None else _beside(bias, third, size, 0)
    output = torch.ops.torchdcls.depthwise_conv(many, kernels, biases, padding, map_out)
    return output.reshape(output.shape[0], size, -1, *output.shape[2:]), 1


def _mapped_weight_gradient(
    info: Any,
    axes: Sequence[int | None],
    input: Tensor,
    gradient: Tensor,
    padding: Sequence[int],
    kernel: Sequence[int],
) -> tuple[Tensor, int]:
    one, other, *_ = axes
    inputs, gradients = _beside(input, one, info.batch_size, 1), _beside(gradient, other, info.batch_size, 1)
    made = torch.ops.torchdcls.depthwise_conv_weight_gradient(inputs, gradients, padding, kernel)
    return made.reshape(info.batch_size, -1, *made.shape[1:]), 0


def _beside(tensor: Tensor, mapped: int | None, size: int, axis: int) -> Tensor:
    # The tensors that are mapped over, one beside the other along an axis; one that is not, as often as the others.
    if mapped is None:
        many = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        many = tensor.movedim(mapped, axis)
    return many.flatten(axis, axis + 1)


def _register(
    name: str,
    schema: str,
    run: Callable[..., Tensor],
    made: Callable[..., Tensor],
    mapped: Callable[..., tuple[Tensor, int]],
) -> None:
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, run, device)
    torch.library.register_fake(f"torchdcls::{name}", made, lib=_LIBRARY)
    torch.library.register_vmap(f"torchdcls::{name}", mapped, lib=_LIBRARY)


_register(
    "depthwise_conv",
    "(Tensor input, Tensor weight, Tensor? bias, SymInt[] padding, SymInt[] map_out) -> Tensor",
    _run_output,
    _made_output,
    _mapped_output,
)
_register(
    "depthwise_conv_weight_gradient",
    "(Tensor input, Tensor gradient, SymInt[] padding, SymInt[] kernel) -> Tensor",
    _run_weight_gradient,
    _made_weight_gradient,
    _mapped_weight_gradient,
)
