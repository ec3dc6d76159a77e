"""The three maps of a depthwise convolution as operators, which torch's compiler does not look into.

They have no derivatives of their own: `autograd.py` has those of all methods.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..tracing import define_operator
from .layout import is_like_channels_last
from .problem import Problem

# The tensors that each map takes, and the field of a problem that holds the sizes of its result.
_MAPS = {
    "convolve": ("Tensor input, Tensor weight, Tensor? bias", "outputs"),
    "transpose": ("Tensor gradient, Tensor weight", "map"),
    "correlate": ("Tensor input, Tensor gradient", "kernel"),
}


def depthwise_maps(name: str, devices: Sequence[str], **writers: Callable[..., None]) -> dict[str, Any]:
    """The maps of a method's record as operators `torchdcls::NAME_MAP`, for one to three axes and any strides.

    Args:
        name: The name of the method.
        devices: Dispatch keys, such as "CPU".
        writers: `convolve` of (input, weight, bias or None, stride, before, output), `transpose` of (gradient, weight,
            stride, before, output) and `correlate` of (input, gradient, stride, before, output). They write their last
            argument, which is uninitialized. `before` holds the zeros before each axis.
    """
    return {map: _defined(f"{name}_{map}", map, writer, devices) for map, writer in writers.items()}


def _defined(name: str, map: str, write: Callable[..., None], devices: Sequence[str]) -> Callable[..., Tensor]:
    tensors, sizes = _MAPS[map]

    def run(*arguments: Any) -> Tensor:
        made = _empty(map, *arguments)
        write(*arguments[:-1], made)
        return made

    def call(*arguments: Any) -> Tensor:
        made: Tensor = getattr(torch.ops.torchdcls, name)(*arguments)
        return made

    def of_problem(*arguments: Any) -> Tensor:
        *given, problem = arguments
        return call(*given, problem.stride, problem.before, getattr(problem, sizes))

    schema = f"{name}({tensors}, SymInt[] stride, SymInt[] before, SymInt[] sizes) -> Tensor"
    define_operator(schema, run, partial(_empty, map), devices)
    torch.library.register_vmap(f"torchdcls::{name}", partial(_mapped, map, call))
    return of_problem


def not_depthwise(problem: Problem) -> str:
    """The reason of a depthwise method against a problem that is not depthwise."""
    channels = f"{problem.in_channels} and {problem.out_channels} in {problem.groups} groups"
    return f"it convolves each channel by itself, with one filter, and channels are {channels}"


def _empty(map: str, input: Tensor, other: Tensor, *more: Any) -> Tensor:
    # Memory for the result of a map from `input` and `other`, its two tensors.
    *biases, stride, before, sizes = more
    bias: Tensor | None = biases[0] if biases else None
    name = "gradient" if map == "correlate" else "weight"
    if input.dim() not in (3, 4, 5):
        raise ValueError(f"input: expected (batch, channels, *map) of 1 to 3 axes, got shape {tuple(input.shape)}")
    if other.dim() != input.dim():
        raise ValueError(f"{name}: expected {input.dim()} axes, as input has, got shape {tuple(other.shape)}")
    for each, tensor in ((name, other), ("bias", bias)):
        if tensor is not None and (tensor.dtype, tensor.device) != (input.dtype, input.device):
            wanted, got = (f"{one.dtype} on {one.device}" for one in (input, tensor))
            raise ValueError(f"{each}: expected {wanted}, as input is, got {got}")
    for each, of_axes in (("stride", stride), ("before", before), ("sizes", sizes)):
        if len(of_axes) != input.dim() - 2:
            raise ValueError(f"{each}: expected {input.dim() - 2} numbers, one per axis, got {tuple(of_axes)}")
    if any(step < 1 for step in stride):
        raise ValueError(f"stride: expected at least 1 along each axis, got {tuple(stride)}")

    batch, channels = input.shape[:2]
    if map == "correlate":
        if tuple(other.shape[:2]) != (batch, channels):
            expected = f"samples and channels of input, {(batch, channels)}"
            raise ValueError(f"gradient: expected {expected}, got {tuple(other.shape)}")
        return input.new_empty((channels, 1, *sizes))
    if tuple(other.shape[:2]) != (channels, 1):
        raise ValueError(f"weight: expected ({channels}, 1, *kernel), got {tuple(other.shape)}")
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ValueError(f"bias: expected ({channels},), got {tuple(bias.shape)}")
    if is_like_channels_last(input):
        return input.new_empty((batch, *sizes, channels)).movedim(-1, 1)
    return input.new_empty((batch, channels, *sizes))


def _mapped(
    map: str, run: Callable[..., Tensor], info: Any, axes: Sequence[int | None], *arguments: Any
) -> tuple[Tensor, int]:
    # torch.func.vmap over inputs adds samples, and over kernels adds channels.
    (input, *others), sizes = arguments[:-3], arguments[-3:]
    first, *rest = axes[: 1 + len(others)]
    if first is not None and map != "correlate" and all(axis is None for axis in rest):
        inputs = input.movedim(first, 0)
        output = run(inputs.reshape(-1, *inputs.shape[2:]), *others, *sizes)
        return output.reshape(*inputs.shape[:2], *output.shape[1:]), 0
    beside = 1 if map == "correlate" else 0
    many = [_beside(tensor, axis, info.batch_size, beside) for tensor, axis in zip(others, rest, strict=True)]
    made = run(_beside(input, first, info.batch_size, 1), *many, *sizes)
    if map == "correlate":
        return made.reshape(info.batch_size, -1, *made.shape[1:]), 0
    return made.reshape(made.shape[0], info.batch_size, -1, *made.shape[2:]), 1


def _beside(tensor: Tensor | None, mapped: int | None, size: int, axis: int) -> Tensor | None:
    # The tensors of a mapped axis side by side along another axis; a tensor without one is repeated.
    if tensor is None:
        return None
    if mapped is None:
        many = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        many = tensor.movedim(mapped, axis)
    return many.flatten(axis, axis + 1)
