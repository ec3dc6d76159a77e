"""Convolution with a method of its own for the output and for each gradient.

A convolution is one form, linear in the input x, in the weight w and in the gradient g of the output: <g, x * w>. Each
of the three maps computes the gradient of the form in one of them from the two others. Gradients of the maps are maps
again, so that one function is differentiable any number of times.
"""

from typing import Any

import torch
from torch import Tensor

from ..autocast import autocast_disabled
from ..tracing import owned
from .layout import is_like_channels_last, to_channels_last
from .problem import Map, Problem
from .select import Plan

# The map that computes the gradient in the input, in the weight, and in the gradient of the output.
_ROLES: tuple[Map, ...] = ("transpose", "correlate", "convolve")


def make(map: Map, input: Any, weight: Any, gradient: Any, bias: Tensor | None, problem: Problem, plan: Plan) -> Tensor:
    """The result of a map by the plan's method, from the two tensors that it takes; not differentiable."""
    method = plan.of(map)
    if map == "convolve":
        return method.convolve(input, weight, bias, problem)
    if map == "transpose":
        return method.transpose(gradient, weight, problem)
    return method.correlate(input, gradient, problem)


class Convolution(torch.autograd.Function):
    """The results of maps in a dtype: `Convolution.apply(input, weight, gradient, bias, problem, plan, dtype, maps)`.

    Input, weight and gradient are those of the problem, or None if no map takes them. The bias is for "convolve".
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Any,
        weight: Any,
        gradient: Any,
        bias: Tensor | None,
        problem: Problem,
        plan: Plan,
        dtype: torch.dtype,
        maps: tuple[Map, ...],
    ) -> tuple[Tensor, ...]:
        """A tensor for each map."""
        input, weight, gradient = (None if each is None else each.to(dtype) for each in (input, weight, gradient))
        both_maps = input is not None and gradient is not None
        if both_maps and is_like_channels_last(input) != is_like_channels_last(gradient):
            # The loss may give the gradient another memory format: one copy serves both maps.
            gradient = to_channels_last(gradient) if is_like_channels_last(input) else gradient.contiguous()
        at_once = maps == ("transpose", "correlate") and plan.transpose == plan.correlate
        both = plan.of("transpose").gradients if at_once else None
        with autocast_disabled(problem.device):
            made: Any = (make(map, input, weight, gradient, bias, problem, plan) for map in maps)
            return tuple(owned(each) for each in (made if both is None else both(input, weight, gradient, problem)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keeps the tensors of the form."""
        *tensors, _, ctx.problem, ctx.plan, ctx.dtype, ctx.maps = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight, gradient and bias."""
        # A cotangent takes the place of the tensor in which its map is the gradient.
        totals: dict[Map, Tensor] = {}
        to_bias = None
        for map, along in zip(ctx.maps, cotangents, strict=True):
            needed = zip(_ROLES, ctx.needs_input_grad[:3], strict=True)
            maps = tuple(role for role, need in needed if need and role != map)
            roles = zip(_ROLES, ctx.saved_tensors, strict=True)
            tensors = [along if role == map else tensor for role, tensor in roles]
            if maps:
                made = Convolution.apply(*tensors, None, ctx.problem, ctx.plan, ctx.dtype, maps)  # type: ignore[no-untyped-call]
                for role, more in zip(maps, made, strict=True):
                    totals[role] = totals[role] + more if role in totals else more
            if ctx.needs_input_grad[3]:
                to_bias = along.sum([0, *range(2, along.dim())])
        return *(totals.get(role) for role in _ROLES), to_bias, None, None, None, None
