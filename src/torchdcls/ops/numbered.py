"""Functions for a number of axes, as torch has them: the generic ones, and a check."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

from .. import _checks

Function = TypeVar("Function", bound=Callable[..., Tensor])


def numbered(function: Function, dims: int, checked: str, axes: int) -> Function:
    """`function` under a name that ends in `1d`, for one that has so many axes.

    Args:
        function: Takes tensors of any number of axes, first `input`, then `weight`.
        dims: Axes of the map.
        checked: Name of the second argument.
        axes: That it has to have.
    """

    @functools.wraps(function)
    def alias(input: Tensor, weight: Tensor, *arguments: Any, **options: Any) -> Tensor:
        _checks.axis_count(checked, weight, axes)
        return function(input, weight, *arguments, **options)

    alias.__name__ = alias.__qualname__ = f"{function.__name__}{dims}d"
    return cast(Function, alias)
