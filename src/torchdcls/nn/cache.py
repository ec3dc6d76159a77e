"""The kernel of a layer that is not being trained, kept from call to call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class KernelCache:
    """Keeps one kernel with the elements that it was made from, and makes it again where these differ.

    Elements are compared by value: they are few, and every way of changing a parameter is noticed, `.data` included.
    Copies and pickles of a cache are empty.
    """

    def __init__(self) -> None:
        # Elements, settings, kernel: one tuple, so that threads see all of it or nothing.
        self._kept: tuple[list[Tensor | None], tuple[Any, ...], Tensor] | None = None

    def get(self, elements: Sequence[Tensor | None], settings: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """The kernel that `make` makes from these elements with these settings."""
        kept = self._kept
        if kept is None or kept[1] != settings or not _all_equal(elements, kept[0]):
            copies = [None if tensor is None else tensor.detach().clone() for tensor in elements]
            kept = self._kept = (copies, settings, make())
        return kept[2]

    def clear(self) -> None:
        """Forgets the kernel."""
        self._kept = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "KernelCache":
        return KernelCache()

    def __reduce__(self) -> tuple[Any, ...]:
        return KernelCache, ()


def _all_equal(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    return len(some) == len(others) and all(map(_equal, some, others))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
