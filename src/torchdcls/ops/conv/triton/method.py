"""The record of the method of GPUs. The first launch imports `launch`, and Triton with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...gpu import missing
from ...tracing import differentiated_forwards
from ..method import Method
from ..operators import depthwise_maps, not_depthwise
from ..problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Taps along the longer axis from and up to which "auto" takes it on CUDA, by counts of operations and bytes.
LEAST_LENGTH, MOST_LENGTH = 9, 63


def _convolve(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], before: Sequence[int], output: Tensor
) -> None:
    from .launch import convolve

    padding = [*(0 for _ in range(2 - len(before))), *before]
    convolve(_rows(input), _rows(weight), bias, padding, _rows(output))


def _transpose(gradient: Tensor, weight: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    # The convolution with the flipped kernel.
    around = [taps - 1 - cells for taps, cells in zip(weight.shape[2:], before, strict=True)]
    _convolve(gradient, weight.flip(list(range(2, weight.dim()))), None, stride, around, output)


def _correlate(input: Tensor, gradient: Tensor, stride: Sequence[int], before: Sequence[int], output: Tensor) -> None:
    from .launch import differentiate

    padding = [*(0 for _ in range(2 - len(before))), *before]
    made = differentiate(_rows(input), _rows(gradient), padding, _rows(output).shape[2:])
    output.copy_(made.view(output.shape))


def _rows(tensor: Tensor) -> Tensor:
    # A map of one axis as one row.
    return tensor if tensor.dim() == 4 else tensor.unsqueeze(2)


def unsupported(problem: Problem) -> str | None:
    """Why Triton cannot run a problem, or None if it can."""
    if not problem.depthwise:
        return not_depthwise(problem)
    if len(problem.kernel) == 3:
        return "it convolves along one or two axes, and the kernel has three"
    if any(step != 1 for step in problem.stride):
        return f"it computes every output, and stride {problem.stride} skips most of them"
    if problem.dtype not in DTYPES:
        return f"it does not support {problem.dtype}"
    if differentiated_forwards():
        return "it has no forward-mode derivative"
    return missing(problem.device)


def undesired(problem: Problem) -> str | None:
    """Why "auto" leaves Triton out although it can run, or None."""
    longest = max(problem.kernel)
    if problem.device == "cpu":
        return "its interpreter is for tests"
    if longest < LEAST_LENGTH:
        return f"torch's own is expected to be faster below {LEAST_LENGTH} taps along an axis"
    if longest > MOST_LENGTH:
        return f"spectra are expected to be faster beyond {MOST_LENGTH} taps along an axis"
    return None


TRITON = Method(
    name="triton",
    **depthwise_maps("triton", ("CPU", "CUDA"), convolve=_convolve, transpose=_transpose, correlate=_correlate),
    unsupported=unsupported,
    undesired=undesired,
    own_half=True,
)
