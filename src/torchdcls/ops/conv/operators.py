"""The three maps of a depthwise convolution as operators, whole: torch's compiler knows what they give, not how.

Derivatives are not theirs but of `autograd.py`, which has them for any method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import is_like_channels_last
from .problem import Problem

_LIBRARY: Any = torch.library.Library("torchdcls", "DEF")  # type: ignore[no-untyped-call]
_SIZES = "SymInt[] stride, SymInt[] before, SymInt[] sizes"


class DepthwiseOperators:
    """`torchdcls::NAME_convolve`, `NAME_transpose` and `NAME_correlate`, for maps of one to three axes and any strides.

    Args:
        name: What they are called after.
        devices: Keys of dispatch, such as "CPU".
        convolve: Writes the output of (input, weight, bias or None, stride, before, output).
        transpose: Writes the gradient of the input of (gradient, weight, stride, before, output).
        correlate: Writes the gradient of the weight of (input, gradient, stride, before, output).

    `before` holds zeros before each axis. What is written is uninitialized, in the memory format of the map that comes.
    """

    def __init__(
        self,
        name: str,
        devices: Sequence[str],
        convolve: Callable[..., None],
        transpose: Callable[..., None],
        correlate: Callable[..., None],
    ) -> None:

        def called(map: str) -> Callable[..., Tensor]:
            def call(*arguments: Any) -> Tensor:
                made: Tensor = getattr(torch.ops.torchdcls, f"{name}_{map}")(*arguments)
                return made

            return call

        self._convolve, self._transpose, self._correlate = called("convolve"), called("transpose"), called("correlate")

        def run_convolve(
            input: Tensor,
            weight: Tensor,
            bias: Tensor | None,
            stride: Sequence[int],
            before: Sequence[int],
            sizes: Sequence[int],
        ) -> Tensor:
            output = _empty_map(input, weight, bias, stride, before, sizes)
            convolve(input, weight, bias, stride, before, output)
            return output

        def run_transpose(
            gradient: Tensor, weight: Tensor, stride: Sequence[int], before: Sequence[int], sizes: Sequence[int]
        ) -> Tensor:
            output = _empty_map(gradient, weight, None, stride, before, sizes)
            transpose(gradient, weight, stride, before, output)
            return output

        def run_correlate(
            input: Tensor, gradient: Tensor, stride: Sequence[int], before: Sequence[int], sizes: Sequence[int]
        ) -> Tensor:
            output = _empty_weight(input, gradient, stride, before, sizes)
            correlate(input, gradient, stride, before, output)
            return output

        def mapped_convolve(info: Any, axes: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
            return _mapped_map(self._convolve, info.batch_size, axes[:3], arguments[:3], arguments[3:])

        def mapped_transpose(info: Any, axes: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
            return _mapped_map(self._transpose, info.batch_size, axes[:2], arguments[:2], arguments[2:])

        def mapped_correlate(
            info: Any, axes: Sequence[int | None], input: Tensor, gradient: Tensor, *sizes: Sequence[int]
        ) -> tuple[Tensor, int]:
            inputs, gradients = (
                _beside(tensor, axis, info.batch_size, 1) for tensor, axis in zip((input, gradient), axes, strict=False)
            )
            made = self._correlate(inputs, gradients, *sizes)
            return made.reshape(info.batch_size, -1, *made.shape[1:]), 0

        for schema, run, made, mapped in (
            (
                f"convolve(Tensor input, Tensor weight, Tensor? bias, {_SIZES})",
                run_convolve,
                _empty_map,
                mapped_convolve,
            ),
            (f"transpose(Tensor gradient, Tensor weight, {_SIZES})", run_transpose, _empty_gradient, mapped_transpose),
            (f"correlate(Tensor input, Tensor gradient, {_SIZES})", run_correlate, _empty_weight, mapped_correlate),
        ):
            operator = f"{name}_{schema.partition('(')[0]}"
            _LIBRARY.define(f"{name}_{schema} -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
            for device in devices:
                _LIBRARY.impl(operator, run, device)
            torch.library.register_fake(f"torchdcls::{operator}", made, lib=_LIBRARY)
            torch.library.register_vmap(f"torchdcls::{operator}", mapped, lib=_LIBRARY)

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
        """Output, (batch, channels, *map out)."""
        return self._convolve(input, weight, bias, problem.stride, problem.before, problem.outputs)

    def transpose(self, gradient: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """Gradient of the input, (batch, channels, *map)."""
        return self._transpose(gradient, weight, problem.stride, problem.before, problem.map)

    def correlate(self, input: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
        """Gradient of the weight, (channels, 1, *kernel)."""
        return self._correlate(input, gradient, problem.stride, problem.before, problem.kernel)


def not_depthwise(problem: Problem) -> str:
    """The reason of a depthwise method against a problem that is not."""
    channels = f"{problem.in_channels} and {problem.out_channels} in {problem.groups} groups"
    return f"it convolves each channel by itself, with one filter, and channels are {channels}"


def _empty_map(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    before: Sequence[int],
    sizes: Sequence[int],
) -> Tensor:
    _check_axes(input, weight=weight)
    _check_kinds(input, weight=weight, bias=bias)
    _check_sizes(input, stride=stride, before=before, sizes=sizes)
    if tuple(weight.shape[:2]) != (input.shape[1], 1):
        raise ValueError(f"weight: expected ({input.shape[1]}, 1, *kernel), got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (input.shape[1],):
        raise ValueError(f"bias: expected ({input.shape[1]},), got {tuple(bias.shape)}")
    if is_like_channels_last(input):
        return input.new_empty((input.shape[0], *sizes, input.shape[1])).movedim(-1, 1)
    return input.new_empty((*input.shape[:2], *sizes))


def _empty_gradient(
    gradient: Tensor, weight: Tensor, stride: Sequence[int], before: Sequence[int], sizes: Sequence[int]
) -> Tensor:
    return _empty_map(gradient, weight, None, stride, before, sizes)


def _empty_weight(
    input: Tensor, gradient: Tensor, stride: Sequence[int], before: Sequence[int], sizes: Sequence[int]
) -> Tensor:
    _check_axes(input, gradient=gradient)
    _check_kinds(input, gradient=gradient)
    _check_sizes(input, stride=stride, before=before, sizes=sizes)
    if tuple(gradient.shape[:2]) != tuple(input.shape[:2]):
        raise ValueError(
            f"gradient: expected samples and channels of input, {tuple(input.shape[:2])}, got {tuple(gradient.shape)}"
        )
    return input.new_empty((input.shape[1], 1, *sizes))


def _check_axes(input: Tensor, **others: Tensor) -> None:
    if input.dim() not in (3, 4, 5):
        raise ValueError(f"input: expected (batch, channels, *map) of 1 to 3 axes, got shape {tuple(input.shape)}")
    for name, tensor in others.items():
        if tensor.dim() != input.dim():
            raise ValueError(f"{name}: expected {input.dim()} axes, as input has, got shape {tuple(tensor.shape)}")


def _check_kinds(input: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and (tensor.dtype, tensor.device) != (input.dtype, input.device):
            wanted, got = (f"{one.dtype} on {one.device}" for one in (input, tensor))
            raise ValueError(f"{name}: expected {wanted}, as input is, got {got}")


def _check_sizes(input: Tensor, **sizes: Sequence[int]) -> None:
    for name, of_axes in sizes.items():
        if len(of_axes) != input.dim() - 2:
            raise ValueError(f"{name}: expected {input.dim() - 2} numbers, one per axis, got {tuple(of_axes)}")
    if any(step < 1 for step in sizes["stride"]):
        raise ValueError(f"stride: expected at least 1 along each axis, got {tuple(sizes['stride'])}")


def _mapped_map(
    run: Callable[..., Tensor],
    size: int,
    axes: Sequence[int | None],
    tensors: Sequence[Tensor | None],
    sizes: Sequence[Sequence[int]],
) -> tuple[Tensor, int]:
    # Under torch.func.vmap: many inputs are samples, many kernels are channels.
    input, *others = tensors
    assert input is not None
    if all(axis is None for axis in axes[1:]):
        assert axes[0] is not None
        inputs = input.movedim(axes[0], 0)
        output = run(inputs.reshape(-1, *inputs.shape[2:]), *others, *sizes)
        return output.reshape(*inputs.shape[:2], *output.shape[1:]), 0
    many = [
        None if tensor is None else _beside(tensor, axis, size, 0)
        for tensor, axis in zip(others, axes[1:], strict=True)
    ]
    output = run(_beside(input, axes[0], size, 1), *many, *sizes)
    return output.reshape(output.shape[0], size, -1, *output.shape[2:]), 1


def _beside(tensor: Tensor, mapped: int | None, size: int, axis: int) -> Tensor:
    # The tensors that are mapped over, one beside the other along an axis; one that is not, as often as the others.
    if mapped is None:
        many = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        many = tensor.movedim(mapped, axis)
    return many.flatten(axis, axis + 1)
