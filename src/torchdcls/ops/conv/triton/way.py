"""The record of the method of GPUs. Launches are imported with the first one."""

from collections.abc import Sequence

from torch import Tensor

from ..operators import depthwise_maps
from ..way import Way
from .support import undesired, unsupported


def _convolve(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], before: Sequence[int], output: Tensor
) -> None:
    from .launch import convolve

    padding = [*(0 for _ in range(2 - len(before))), *before]
    convolve(_rows(input), _rows(weight), bias, padding, _rows(output))


def _transpose(gradient: Tensor, weight: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    # The same with the kernel turned.
    around = [taps - 1 - cells for taps, cells in zip(weight.shape[2:], before, strict=True)]
    _convolve(gradient, weight.flip(list(range(2, weight.dim()))), None, stride, around, output)


def _correlate(input: Tensor, gradient: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    from .launch import differentiate

    padding = [*(0 for _ in range(2 - len(before))), *before]
    made = differentiate(_rows(input), _rows(gradient), padding, _rows(output).shape[2:])
    output.copy_(made.view(output.shape))


def _rows(tensor: Tensor) -> Tensor:
    # Of one axis, one row of two.
    return tensor if tensor.dim() == 4 else tensor.unsqueeze(2)


TRITON = Way(
    name="triton",
    **depthwise_maps("triton", ("CPU", "CUDA"), convolve=_convolve, transpose=_transpose, correlate=_correlate),
    unsupported=unsupported,
    undesired=undesired,
    own_half=True,
)
