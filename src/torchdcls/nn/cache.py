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
        self._elements: list[Tensor | None] = []
        self._kernel: Tensor | None = None

    def get(self, elements: Sequence[Tensor | None], make: Callable[[], Tensor]) -> Tensor:
        """The kernel that `make` makes from these elements."""
        same = len(elements) == len(self._elements) and all(map(_equal, elements, self._elements))
        if self._kernel is None or not same:
            self._kernel = make()
            self._elements = [None if tensor is None else tensor.detach().clone() for tensor in elements]
        return self._kernel

    def clear(self) -> None:
        """Forgets the kernel."""
        self._elements, self._kernel = [], None

    def __deepcopy__(self, memo: dict[int, Any]) -> "KernelCache":
        return KernelCache()

    def __reduce__(self) -> tuple[Any, ...]:
        return KernelCache, ()


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
