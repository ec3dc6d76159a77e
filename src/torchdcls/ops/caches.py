"""What is kept from call to call: every cache enlists how it is cleared, and one call clears them all."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

_CLEARED: list[Callable[[], object]] = []


def enlist(clear: Callable[[], object]) -> None:
    """Has `clear_caches` call this too."""
    _CLEARED.append(clear)


def cached(maxsize: int, typed: bool = False) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """`functools.lru_cache`, enlisted."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        kept = functools.lru_cache(maxsize=maxsize, typed=typed)(function)
        enlist(kept.cache_clear)
        return kept  # type: ignore[return-value]

    return decorate


def clear_caches() -> None:
    """Frees everything that functions of this package keep from call to call."""
    for clear in _CLEARED:
        clear()
