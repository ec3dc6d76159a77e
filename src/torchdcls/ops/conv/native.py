"""Torch's own convolutions: one for each number of axes, how they pad, and where they are fast on CPU."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracing import traced_by_jit
from .problem import Problem

# Depthwise kernels of at least `WIDE` taps along the last axis are fast in torch's forward convolution where channels
# are last, and many times slower where they are not. Those of `SLOW_WIDTH` and more, but narrower, are slow where
# channels are last. Torch's gradient of the weight is fast below `THIN`.
THIN, SLOW_WIDTH, WIDE = 4, 11, 14
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED_CONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def even_padding(padding: Sequence[tuple[int, int]]) -> list[int]:
    """What torch can pad of (before, after): both ends of an axis alike."""
    return [max(0, min(pads)) for pads in padding]


def safe_padding(problem: Problem) -> list[int]:
    """What torch may pad of a problem whose weight may get a gradient: no rows that oneDNN loses count of.

    On AVX-512 the gradient of a two-dimensional weight is written beyond its end where the map has padding on top and
    the kernel with its step is higher than the map (`compute_oh_loop_partial`, seen in oneDNN 3.7 to 3.12). Kernels of
    more than 14 columns, and of one filter for each of several channels, take other routines. Exported and traced
    programs, for maps of any size, are left as torch has them: they are made to be run, not to be trained.
    """
    even = even_padding(problem.padding)
    for_any_map = torch.compiler.is_exporting() or traced_by_jit()
    if problem.device != "cpu" or for_any_map or len(even) != 2 or not even[0]:
        return even
    taken = problem.kernel[1] <= 14 and (problem.groups == 1 or not problem.depthwise)
    if taken and problem.kernel[0] + problem.stride[0] > problem.map[0]:
        even[0] = 0
    return even


def evenly_padded(input: Tensor, padding: Sequence[tuple[int, int]], both: Sequence[int]) -> Tensor:
    """The input with zeros for what remains to be padded when torch pads `both` ends of each axis.

    Args:
        input: (batch, channels, *map).
        padding: Zeros before and after each axis; fewer than none are cells that are cut off.
        both: How many of them torch adds, one integer per axis.
    """
    if all(before == after == even for (before, after), even in zip(padding, both, strict=True)):
        return input
    rest = [(before - even, after - even) for (before, after), even in zip(padding, both, strict=True)]
    for each in (max, min):  # cut off last: more may go than there is before it is padded
        pads = [each(0, cells) for pair in reversed(rest) for cells in pair]
        if any(pads):
            input = F.pad(input, pads)
    return input
