"""Padding that continues a map beyond its edges, by any number of cells."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .tracing import sizes_are_known, traced_by_jit

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def pad(input: Tensor, pads: Sequence[tuple[int, int]], mode: PaddingMode) -> Tensor:
    """The input with the cells (before, after) of `pads` around its last axes, as `numpy.pad` adds them.

    Torch reflects and wraps around at most once. Beyond that, "circular" repeats the map with the period `size`, and
    "reflect" runs there and back with the period `2 * size - 2`.

    Example:
        >>> import torch
        >>> from torchdcls.ops.padding import pad
        >>> pad(torch.arange(3.0).view(1, 1, 3), [(4, 5)], "reflect").int().tolist()
        [[[0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]]]
        >>> pad(torch.arange(3.0).view(1, 1, 3), [(4, 5)], "circular").int().tolist()
        [[[2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]]]
    """
    sizes = input.shape[-len(pads) :]
    traced = traced_by_jit()  # torch's own then pads maps of any size, as far as it can
    if mode != "zeros" and not traced and any(size == 0 for size in sizes):
        raise ValueError(f"input: expected a map with cells for padding_mode={mode!r}, got shape {tuple(input.shape)}")
    # Torch's own is faster. A traced program is for maps of any size, and must not ask for it.
    if mode in ("zeros", "replicate") or traced or _torch_can(sizes, pads, mode):
        cells = [count for pair in reversed(pads) for count in pair]
        return F.pad(input, cells, mode="constant" if mode == "zeros" else mode)
    for axis, (size, (before, after)) in enumerate(zip(sizes, pads, strict=True), start=-len(pads)):
        if before or after:
            cell = torch.arange(-before, size + after, device=input.device)
            if mode == "circular":
                cell = cell % size
            else:
                # There and back: 0 .. size - 1 .. 1, and again.
                back = max(size - 1, 0)
                cell = back - (cell % max(2 * back, 1) - back).abs()
            input = input.index_select(axis, cell)
    return input


def _torch_can(sizes: Sequence[int], pads: Sequence[tuple[int, int]], mode: PaddingMode) -> bool:
    most = 0 if mode == "circular" else 1
    return sizes_are_known(sizes) and all(max(pair) + most <= size for size, pair in zip(sizes, pads, strict=True))
