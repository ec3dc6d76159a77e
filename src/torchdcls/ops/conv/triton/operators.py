"""The operators that torch's compiler sees, whole: it knows what they give, and not how it is made.

Derivatives are not theirs but of `..autograd`, which has both for any method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..layout import is_like_channels_last
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
        Gradients of the input and of the weight, None where not asked for.
    """
    to_input = to_weight = None
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
    shape = (*input.shape[:2], *map_out)
    if is_like_channels_last(input):
        return input.new_empty((shape[0], *shape[2:], shape[1])).movedim(-1, 1)
    return input.new_empty(shape)


def _made_weight_gradient(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    return input.new_empty((input.shape[1], 1, *kernel))


def _run_output(
    input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], map_out: Sequence[int]
) -> Tensor:
    from .launch import convolve

    output = _made_output(input, weight, bias, padding, map_out)
    convolve(input, weight, bias, padding, output)
    return output


def _run_weight_gradient(input: Tensor, gradient: Tensor, padding: Sequence[int], kernel: Sequence[int]) -> Tensor:
    from .launch import differentiate

    return differentiate(input, gradient, padding, kernel)


def _register(name: str, schema: str, run: Callable[..., Tensor], made: Callable[..., Tensor]) -> None:
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, run, device)
    torch.library.register_fake(f"torchdcls::{name}", made, lib=_LIBRARY)


_register(
    "depthwise_conv",
    "(Tensor input, Tensor weight, Tensor? bias, SymInt[] padding, SymInt[] map_out) -> Tensor",
    _run_output,
    _made_output,
)
_register(
    "depthwise_conv_weight_gradient",
    "(Tensor input, Tensor gradient, SymInt[] padding, SymInt[] kernel) -> Tensor",
    _run_weight_gradient,
    _made_weight_gradient,
)
