"""Convolution of small maps as one dense matrix product per group: every output cell against every input cell."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Part, Problem


def convolve_matmul(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """Convolution as a product of the map with a Toeplitz matrix, for any stride and any number of groups.

    Costs (map cells in x map cells out) whatever the kernel's size, and multiplies nothing by padding.

    Args:
        input: (batch, in_channels, *map).
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (out_channels) or None.
        problem: Sizes, stride, padding and groups of the call.

    Returns:
        (batch, out_channels, *map out).
    """
    return _product(input, _toeplitz(weight, problem), bias, problem, problem.map, problem.outputs)


def transpose_matmul(input: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem) -> Tensor:
    """The transpose of `convolve_matmul`: a product with the transposed matrix.

    Args:
        input: (batch, out_channels, *map out) of the problem.
        weight: (out_channels, in_channels/groups, *kernel).
        bias: (in_channels) or None.
        problem: Sizes, stride, padding and groups.

    Returns:
        (batch, in_channels, *map) of the problem.
    """
    matrix = _toeplitz(weight, problem).transpose(1, 2)
    return _product(input, matrix, bias, problem, problem.outputs, problem.map)


def _toeplitz(weight: Tensor, problem: Problem) -> Tensor:
    # (groups, channels in of a group * cells in, channels out of a group * cells out)
    dims = len(problem.kernel)
    # Along an axis, the weight between cells i (in) and o (out) is tap i - o * stride + before. Taps are laid out so
    # that each output cell, from the last to the first, sees a window of them.
    spans, edges = [], []
    for size, taps, cells, step, (before, _) in zip(
        problem.map, problem.kernel, problem.outputs, problem.stride, problem.padding, strict=True
    ):
        first, span = (cells - 1) * step - before, size + (cells - 1) * step
        spans.append((max(0, -first), span))
        edges.append((max(0, first), max(0, span - first - taps)))
    matrix = F.pad(weight, [edge for pair in reversed(edges) for edge in pair])
    for axis, (start, span) in enumerate(spans):
        matrix = matrix.narrow(2 + axis, start, span).unfold(2 + axis, problem.map[axis], problem.stride[axis])
    matrix = matrix.flip(list(range(2, 2 + dims)))  # (C_out, C_in/groups, *map out, *map)

    cells_in, cells_out = math.prod(problem.map), math.prod(problem.outputs)
    # (groups, C_out/groups, C_in/groups, out, in) -> (groups, C_in/groups * in, C_out/groups * out)
    matrix = matrix.reshape(problem.groups, -1, weight.shape[1], cells_out, cells_in).permute(0, 2, 4, 1, 3)
    return matrix.reshape(problem.groups, weight.shape[1] * cells_in, -1)


def _product(
    input: Tensor, matrix: Tensor, bias: Tensor | None, problem: Problem, map_in: Sequence[int], map_out: Sequence[int]
) -> Tensor:
    rows = input.reshape(problem.batch, problem.groups, -1, *map_in).transpose(0, 1)
    product = torch.bmm(rows.reshape(problem.groups, problem.batch, -1), matrix)
    output = product.view(problem.groups, problem.batch, -1, *map_out).transpose(0, 1).flatten(1, 2)
    return output if bias is None else output + bias.to(output.dtype).view(-1, *(1 for _ in map_out))


def matmul_operations(problem: Problem, part: Part) -> dict[str, float]:
    """How many of which operations a part takes: what the cost rule multiplies by measured times."""
    elements = matrix_bytes(problem) // 4
    cells = problem.in_channels * math.prod(problem.map) + problem.out_channels * math.prod(problem.outputs)
    kind = f"{len(problem.kernel)}-D {'depthwise' if problem.depthwise else 'grouped'} {part}"
    counts = {
        f"matmul {kind} call": 1.0,
        f"matmul {kind} element": float(elements),
        f"matmul {kind} flop": 2.0 * problem.batch * elements,
        f"matmul {kind} cell": float(problem.batch * cells),
        f"matmul {kind} product": float(problem.groups),
    }
    if problem.channels_last:
        counts[f"matmul {kind} moved cell"] = float(problem.batch * cells)
    return counts


def matrix_bytes(problem: Problem) -> int:
    """Memory of the Toeplitz matrices in float32."""
    return (
        4 * problem.out_channels * problem.in_channels // problem.groups * math.prod((*problem.map, *problem.outputs))
    )
