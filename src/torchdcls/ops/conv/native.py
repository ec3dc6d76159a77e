"""Torch's own convolutions: one for each number of axes, how they pad, and where they are fast on CPU."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# Depthwise kernels of at least `WIDE` taps along the last axis are fast in torch's forward convolution where channels
# are last, and many times slower where they are not. Those of `SLOW_WIDTH` and more, but narrower, are slow where
# channels are last. Torch's gradient of the weight is fast below `THIN`.
THIN, SLOW_WIDTH, WIDE = 4, 11, 14
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED_CONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def evenly_padded(input: Tensor, padding: Sequence[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """The input, and how much torch is to pad both ends of each axis: it pads them alike, the rest is padded before.

    Args:
        input: (batch, channels, *map).
        padding: Zeros before and after each axis; fewer than none are cells that are cut off.
    """
    both = [max(0, min(pads)) for pads in padding]
    if all(before == after >= 0 for before, after in padding):
        return input, both
    rest = [(before - even, after - even) for (before, after), even in zip(padding, both, strict=True)]
    for each in (max, min):  # cut off last: more may go than there is before it is padded
        pads = [each(0, cells) for pair in reversed(rest) for cells in pair]
        if any(pads):
            input = F.pad(input, pads)
    return input, both
