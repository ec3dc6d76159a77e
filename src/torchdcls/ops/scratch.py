"""Memory for intermediate results that is kept from call to call.

A large tensor that is freed goes back to the system, and the next one costs a page fault every 4 KiB: as much as the
arithmetic itself. What a kernel or a convolution makes on its way does not outlive it, so that the same memory serves
all calls.
"""

import math
import mmap
import threading
from typing import Any

import torch
from torch import Tensor

from .caches import enlist
from .tracing import special_tensors

# Larger pieces are allocated as usual, so that little memory is held. Unit: bytes.
LARGEST_BYTES = 2**24


class Scratch:
    """Named pieces of memory of one thread, for eager calls on CPU.

    Where tensors are not plain ones (traced by a compiler, batched by vmap, dual numbers) there is none: every piece is
    None, which as `out=None` makes torch allocate.
    """

    _kept = threading.local()

    def __init__(self, example: Tensor, usable: bool = True) -> None:
        self.usable = usable and example.device.type == "cpu" and not special_tensors()
        self.dtype = example.dtype

    def take(self, name: str, *shape: int) -> Tensor | None:
        """Uninitialised memory of that shape, overwriting what the name held before; None where there is none."""
        count = math.prod(shape)
        if not self.usable or count * self.dtype.itemsize > LARGEST_BYTES:
            return None
        pieces: dict[Any, Tensor] = self._kept.__dict__
        piece = pieces.get((name, self.dtype))
        if piece is None or piece.numel() < count:
            piece = pieces[name, self.dtype] = _memory(count, self.dtype)
        return piece[:count].view(shape)

    @classmethod
    def clear(cls) -> None:
        """Frees what this thread has kept."""
        cls._kept.__dict__.clear()


enlist(Scratch.clear)


def _memory(count: int, dtype: torch.dtype) -> Tensor:
    # Mapped apart from the heap: kept pieces in the midst of it would leave no room for a model's large tensors.
    count = max(1, count)
    length = count * dtype.itemsize
    # Private: a forked process that writes here has a copy of its own.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, length, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    with torch.inference_mode(False):
        return torch.frombuffer(memory, dtype=dtype, count=count)
