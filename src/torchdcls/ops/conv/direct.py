"""Direct convolution: torch's own, with any padding. It runs whatever torch runs."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracing import exporting, shape_of, traced_by_jit
from .method import Method, Part
from .problem import Problem

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED_CONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """`torch.nn.functional.convNd`, with padding that may differ before and after an axis."""
    padding = safe_padding(problem)
    input = evenly_padded(input, problem.padding, padding)
    # Torch's gradients refuse some weights in another order, channels_last too ("grad_weight must be contiguous").
    weight = weight.contiguous()
    return CONVOLUTIONS[len(problem.kernel)](input, weight, bias, problem.stride, padding, 1, problem.groups)


def transpose(gradient: Tensor, weight: Tensor, problem: Problem, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.conv_transposeNd` of the problem, with padding that may differ before and after an axis."""
    sizes, padding = problem.map, safe_padding(problem)
    # Torch cuts both ends alike. The rest is cut here.
    rows = zip(sizes, problem.kernel, problem.stride, problem.padding, shape_of(gradient)[2:], strict=True)
    beyond = [size + sum(pads) - (cells - 1) * step - taps for size, taps, step, pads, cells in rows]
    output = TRANSPOSED_CONVOLUTIONS[len(sizes)](
        gradient, weight.contiguous(), bias, problem.stride, padding, beyond, problem.groups
    )
    for axis, (size, (before, after), even) in enumerate(zip(sizes, problem.padding, padding, strict=True), start=2):
        if before != even or after != even:
            output = output.narrow(axis, before - even, size)
    return output


def correlate(input: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
    """Gradient of the weight of `convolve`, (out_channels, in_channels/groups, *kernel)."""
    weight = gradient.new_empty((problem.out_channels, problem.in_channels // problem.groups, *problem.kernel))
    return _backward(input, weight, gradient, problem, of_input=False)[1]


def gradients(input: Tensor, weight: Tensor, gradient: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the input and of the weight of `convolve`, by one call of torch's."""
    return _backward(input, weight, gradient, problem, of_input=True)


def _backward(
    input: Tensor, weight: Tensor, gradient: Tensor, problem: Problem, of_input: bool
) -> tuple[Tensor, Tensor]:
    padding = safe_padding(problem)
    padded = evenly_padded(input, problem.padding, padding)
    dims = len(problem.kernel)
    settings = problem.stride, padding, [1] * dims, False, [0] * dims, problem.groups
    to_input, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, padded, weight.contiguous(), None, *settings, [of_input, True, False]
    )
    if of_input:
        rows = zip(problem.map, problem.padding, padding, strict=True)
        for axis, (size, (before, _), even) in enumerate(rows, start=2):
            to_input = to_input.narrow(axis, before - even, size)
    return to_input, to_weight


def even_padding(padding: Sequence[tuple[int, int]]) -> list[int]:
    """What torch can pad of (before, after): both ends of an axis alike."""
    return [max(0, min(pads)) for pads in padding]


def safe_padding(problem: Problem) -> list[int]:
    """The padding that torch may do itself: without the rows on which a routine of oneDNN writes out of bounds.

    On AVX-512 the gradient of a two-dimensional weight is written beyond its end if the map has padding on top and
    kernel and stride together are higher than the map (`compute_oh_loop_partial`, seen in oneDNN 3.7 to 3.12). Kernels
    of more than 14 columns, and depthwise ones, take other routines. Exported and traced programs keep torch's padding:
    they serve maps of any size, and are run rather than trained.
    """
    even = even_padding(problem.padding)
    for_any_map = exporting() or traced_by_jit()
    if problem.device != "cpu" or for_any_map or len(even) != 2 or not even[0]:
        return even
    taken = problem.kernel[1] <= 14 and (problem.groups == 1 or not problem.depthwise)
    if taken and problem.kernel[0] + problem.stride[0] > problem.map[0]:
        even[0] = 0
    return even


def evenly_padded(input: Tensor, padding: Sequence[tuple[int, int]], both: Sequence[int]) -> Tensor:
    """The input with the padding that remains when torch pads `both` ends of each axis; negative padding cuts cells."""
    if all(before == after == even for (before, after), even in zip(padding, both, strict=True)):
        return input
    rest = [(before - even, after - even) for (before, after), even in zip(padding, both, strict=True)]
    for each in (max, min):  # cut off last: more may go than there is before it is padded
        pads = [each(0, cells) for pair in reversed(rest) for cells in pair]
        if any(pads):
            input = F.pad(input, pads)
    return input


def operations(problem: Problem, part: Part) -> dict[str, float]:
    """Products by the routine of torch's that makes them, and cells."""
    if part == "gradients":
        both = operations(problem, "transpose"), operations(problem, "correlate")
        return both[0] | both[1]
    inputs = problem.in_channels // problem.groups
    products = problem.batch * problem.out_channels * math.prod(problem.outputs) * math.prod(problem.kernel) * inputs
    cells = problem.in_channels * math.prod(problem.map) + problem.out_channels * math.prod(problem.outputs)
    # Rates are of float32. Torch has no fast routine for float64 and float16, least of all for few channels a group.
    factor = 1.0
    if problem.dtype in (torch.float64, torch.float16):
        factor = 10.0 if problem.groups > 1 else 3.0
    kind = "grouped" if problem.groups > 1 else "dense"
    if problem.depthwise:
        kind = f"{len(problem.kernel)}-D depthwise" + (" last" if problem.channels_last else "")
        # Few channels leave vectors empty.
        products = products * (-(-problem.in_channels // 16) * 16) // max(1, problem.in_channels)
    name = f"direct {kind} {part}"
    return {"direct call": 1.0, f"{name} product": factor * products, "direct cell": factor * problem.batch * cells}


DIRECT = Method(
    name="direct",
    convolve=convolve,
    transpose=transpose,
    correlate=correlate,
    gradients=gradients,
    operations=operations,
)
