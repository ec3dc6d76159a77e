"""Caches: each one enlists how it is cleared, and one call clears them all."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")

_CLEARED: list[Callable[[], object]] = []


def clear_caches() -> None:
    """Frees everything that this package keeps from call to call. Results do not change: the next calls make it again.

    Kept are the kernels of layers in evaluation, the plans of calls, the working memory of compiled kernels for the
    calling thread, and on GPUs the fastest launch configurations that were measured.

    Example:
        >>> import torch, torchdcls
        >>> layer = torchdcls.Dcls2d(4, 4, 3, dilated_kernel_size=9, groups=4).eval()
        >>> with torch.no_grad():
        ...     output = layer(torch.randn(1, 4, 16, 16))
        >>> torchdcls.clear_caches()
    """
    for clear in _CLEARED:
        clear()


def enlist(clear: Callable[[], object]) -> None:
    """Makes `clear_caches` call this too."""
    _CLEARED.append(clear)


def cached(maxsize: int, typed: bool = False) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """`functools.lru_cache`, enlisted."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        kept = functools.lru_cache(maxsize=maxsize, typed=typed)(function)
        enlist(kept.cache_clear)
        return kept  # type: ignore[return-value]

    return decorate


class LastResult(Generic[_R]):
    """Keeps one result and the tensors that it was made from, and makes it again if they differ.

    Tensors are compared by value: they are small, and every change of a parameter counts, also one through `.data`.
    Copies and pickles are empty.
    """

    _all: ClassVar["WeakSet[LastResult[Any]]"] = WeakSet()

    def __init__(self) -> None:
        # Tensors, settings, result: one tuple, so that threads see all of it or nothing.
        self._kept: tuple[list[Tensor | None], tuple[Any, ...], _R] | None = None
        self._all.add(self)

    def get(self, tensors: Sequence[Tensor | None], settings: tuple[Any, ...], make: Callable[[], _R]) -> _R:
        """The result of `make` for these tensors and settings."""
        kept, key = self._kept, (len(tensors), *settings)
        if kept is None or kept[1] != key or not all(map(_equal, tensors, kept[0])):
            copies = [None if tensor is None else tensor.detach().clone() for tensor in tensors]
            kept = self._kept = (copies, key, make())
        return kept[2]

    def clear(self) -> None:
        """Forgets the result."""
        self._kept = None

    @classmethod
    def clear_all(cls) -> None:
        """Forgets every result."""
        for last in list(cls._all):
            last.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return LastResult, ()


enlist(LastResult.clear_all)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
