"""Convolution whose output and gradients are each made by the method that suits them.

A convolution is linear in the input and in the weight, and so are its gradients: the gradient of a gradient is again a
convolution, or a gradient of one. Two functions that name each other are therefore differentiable any number of times.
The second of them, asked for the gradient of the input alone, is the transposed convolution.
"""

from typing import Any

import torch
from torch import Tensor

from ..autocast import autocast_disabled
from ..tracing import owned
from .layout import is_like_channels_last, to_channels_last
from .problem import Problem
from .select import Plan
from .ways import named


class Convolution(torch.autograd.Function):
    """Output of a convolution: `Convolution.apply(input, weight, bias, problem, plan, dtype)`, made in that dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem, plan: Plan, dtype: torch.dtype
    ) -> Tensor:
        """Output, (batch, out_channels, *map out)."""
        with autocast_disabled(input.device.type):
            return owned(named(plan.convolve).convolve(input.to(dtype), weight.to(dtype), bias, problem))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps the input and the weight, and no more."""
        input, weight, _, ctx.problem, ctx.plan, _ = inputs
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias."""
        input, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_input, of_weight, of_bias, *_ = ctx.needs_input_grad
        settings = ctx.problem, ctx.plan, gradient.dtype
        to_input, to_weight = _gradients(input, weight, gradient, *settings, of_input, of_weight)
        to_bias = gradient.sum([0, *range(2, gradient.dim())]) if of_bias else None
        return to_input, to_weight, to_bias, None, None, None


def convolve_transposed(input: Tensor, weight: Tensor, problem: Problem, plan: Plan, dtype: torch.dtype) -> Tensor:
    """Transposed convolution: from what is the problem's output to what is its input, made in that dtype.

    Args:
        input: (batch, out_channels, *map out) of the problem.
        weight: (out_channels, in_channels/groups, *kernel).
        problem: Sizes, stride, padding and groups of the convolution of which this is the transpose.
        plan: Methods of that convolution's maps.
        dtype: In which it is made.

    Returns:
        (batch, in_channels, *map) of the problem.
    """
    output, _ = _gradients(None, weight, input, problem, plan, dtype, True, False)
    assert output is not None
    return output


class _Gradients(torch.autograd.Function):
    """Gradients of a convolution to input and weight, made in a dtype; one that is not wanted is an empty tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor | None,
        weight: Tensor,
        gradient: Tensor,
        problem: Problem,
        plan: Plan,
        dtype: torch.dtype,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        of_input, of_weight = wanted
        input = None if input is None else input.to(dtype)
        weight, gradient = weight.to(dtype), gradient.to(dtype)
        if input is not None and is_like_channels_last(input) != is_like_channels_last(gradient):
            # One copy, where a loss gave the gradient another format, for two maps that read neighbors together.
            gradient = to_channels_last(gradient) if is_like_channels_last(input) else gradient.contiguous()
        to_input = to_weight = None
        with autocast_disabled(gradient.device.type):
            both = named(plan.transpose).gradients if plan.transpose == plan.correlate else None
            if of_input and of_weight and both is not None:
                assert input is not None
                to_input, to_weight = both(input, weight, gradient, problem)
            else:
                if of_input:
                    to_input = named(plan.transpose).transpose(gradient, weight, problem)
                if of_weight:
                    assert input is not None
                    to_weight = named(plan.correlate).correlate(input, gradient, problem)
        return (
            gradient.new_zeros(()) if to_input is None else owned(to_input),
            gradient.new_zeros(()) if to_weight is None else owned(to_weight),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        input, weight, gradient, ctx.problem, ctx.plan, ctx.dtype, ctx.wanted = inputs
        ctx.save_for_backward(input, weight, gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # With T(x, w, g) = <g, x * w>, what is differentiated is T(a, w, g) + T(x, b, g), a and b the cotangents.
        input, weight, gradient = ctx.saved_tensors
        settings = ctx.problem, ctx.plan, ctx.dtype
        of_input, of_weight = ctx.wanted
        need_input, need_weight, need_gradient, *_ = ctx.needs_input_grad
        along_input, along_weight = gradients
        to_input = to_weight = to_gradient = None
        if of_input and need_weight:
            _, to_weight = _gradients(along_input, weight, gradient, *settings, False, True)
        if of_weight and need_input:
            to_input, _ = _gradients(input, along_weight, gradient, *settings, True, False)
        if need_gradient:
            if of_input:
                to_gradient = Convolution.apply(along_input, weight, None, *settings)  # type: ignore[no-untyped-call]
            if of_weight:
                more = Convolution.apply(input, along_weight, None, *settings)  # type: ignore[no-untyped-call]
                to_gradient = more if to_gradient is None else to_gradient + more
        return to_input, to_weight, to_gradient, None, None, None, None


def _gradients(
    input: Tensor | None,
    weight: Tensor,
    gradient: Tensor,
    problem: Problem,
    plan: Plan,
    dtype: torch.dtype,
    of_input: bool,
    of_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    if not (of_input or of_weight):
        return None, None
    made = _Gradients.apply(input, weight, gradient, problem, plan, dtype, (of_input, of_weight))  # type: ignore[no-untyped-call]
    return made[0] if of_input else None, made[1] if of_weight else None
