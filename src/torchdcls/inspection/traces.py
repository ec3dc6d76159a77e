"""Which cells of the input an element of a tensor depends on, and how that changes as tensors are cut and joined.

A dimension of a tensor is a product of factors, as reshapes leave it: (batch * height * width, channels) has three in
its first. A factor that is an axis of the map has a span, from which follows what each of its cells reads.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class Span:
    """Cell `i` depends on the pixels from `step * i + low` to `step * i + high`, borders of the image left out.

    Attributes:
        step: Pixels from one cell to the next.
        low, high: First and last pixel of cell 0.
        exact: Whether all cells read as many; else it is the most.
    """

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    exact: bool = True

    def window(self, first: Fraction | int, last: Fraction | int, stride: Fraction | int, exact: bool = True) -> "Span":
        """Of cells of which the one at `i` reads those from `stride * i + first` to `stride * i + last`."""
        low, high = self.low + self.step * first, self.high + self.step * last
        return Span(self.step * stride, low, high, self.exact and exact)

    def union(self, other: "Span") -> "Span":
        """Of cells that depend on both; the steps are the same."""
        return Span(self.step, min(self.low, other.low), max(self.high, other.high), self.exact and other.exact)

    @property
    def pixels(self) -> int:
        """How many pixels a cell depends on."""
        return math.floor(self.high - self.low) + 1


@dataclass(frozen=True)
class Factor:
    """A factor of a dimension.

    Attributes:
        size: Its cells.
        axes: Axes of the map that it holds; none for channels and the batch.
        span: What a cell reads; None where there is no axis, or where the order of cells is lost.
        complete: Whether it holds all cells of its axes, so that a sum over it reads the whole image.
    """

    size: int
    axes: frozenset[int] = frozenset()
    span: Span | None = None
    complete: bool = True


Dimension = tuple[Factor, ...]


@dataclass(frozen=True)
class Trace:
    """What a tensor's elements depend on.

    Attributes:
        dimensions: The factors of each of its dimensions.
        whole: Axes along which they depend on the whole image, each with what made them.
        unknown: What lost their dependence.
    """

    dimensions: tuple[Dimension, ...]
    whole: frozenset[tuple[int, str]] = frozenset()
    unknown: frozenset[str] = frozenset()

    @property
    def axes(self) -> frozenset[int]:
        """Axes of the map that are among its dimensions."""
        return frozenset(axis for dimension in self.dimensions for factor in dimension for axis in factor.axes)

    def spans(self) -> dict[int, Span]:
        """What is known of each axis."""
        factors = (factor for dimension in self.dimensions for factor in dimension if factor.span is not None)
        return {min(factor.axes): factor.span for factor in factors if factor.span is not None}

    def lost(self, shape: Sequence[int], why: str, complete: bool = False) -> "Trace":
        """That of a tensor made of this one's elements in an order that is not followed."""
        axes = self.axes
        dimensions = tuple((Factor(size),) for size in shape)
        if axes and dimensions:
            dimensions = (*dimensions[:-1], (Factor(shape[-1], axes, None, complete),))
        return replace(self, dimensions=dimensions, unknown=self.unknown | {why})

    def mixed(self, over: Iterable[int], by: str) -> "Trace":
        """That of elements that depend on all of some dimensions, whether these stay or not."""
        # A factor that is not complete is unknown already.
        factors = [factor for dimension in over for factor in self.dimensions[dimension] if factor.complete]
        return replace(self, whole=self.whole | {(axis, by) for factor in factors for axis in factor.axes})

    def reshaped(self, shape: Sequence[int], why: str) -> "Trace":
        """That of the same elements, read row by row into another shape."""
        # Factors of one cell that are no axis come and go with the shape.
        left = [f for dimension in self.dimensions for f in dimension if f.size != 1 or f.axes]
        dimensions: list[Dimension] = []
        broken = False
        for size in shape:
            taken: list[Factor] = []
            missing = size
            while left and (missing > 1 or (size == 1 and left[0].size == 1 and not taken)):
                factor = left.pop(0)
                if factor.size > missing:
                    if factor.size % missing:
                        return self.lost(shape, why)
                    # Halves of an axis are axes no more.
                    first = Factor(missing, factor.axes, None, not factor.axes)
                    left.insert(0, replace(first, size=factor.size // missing))
                    broken, factor = broken or bool(factor.axes), first
                elif missing % factor.size:
                    return self.lost(shape, why)
                taken.append(factor)
                missing //= factor.size
            dimensions.append(tuple(taken))
        if left and dimensions:  # axes of one cell
            dimensions[-1] = (*dimensions[-1], *left)
        return replace(self, dimensions=tuple(dimensions), unknown=self.unknown | ({why} if broken else frozenset()))


def joined(traces: Sequence[Trace], shape: Sequence[int], why: str) -> Trace:
    """That of a tensor whose elements depend on those of several at the same place, broadcast to `shape`."""
    unknown = frozenset[str]().union(*(trace.unknown for trace in traces))
    dimensions: list[Dimension] = []
    for place in range(-len(shape), 0):
        found: Dimension = (Factor(shape[place]),)
        for trace in traces:
            if len(trace.dimensions) < -place or not any(factor.axes for factor in trace.dimensions[place]):
                continue
            other = trace.dimensions[place]
            if math.prod(factor.size for factor in other) != shape[place]:  # a map of one cell, spread over another
                axes = frozenset[int]().union(*(factor.axes for factor in other))
                other, unknown = (Factor(shape[place], axes, None, False),), unknown | {why}
            if not any(factor.axes for factor in found):
                found = other
                continue
            both = _together(found, other)
            if both is None:
                axes = frozenset[int]().union(*(factor.axes for factor in (*found, *other)))
                both, unknown = (Factor(shape[place], axes, None, False),), unknown | {why}
            found = both
        dimensions.append(found)
    return Trace(tuple(dimensions), frozenset[tuple[int, str]]().union(*(trace.whole for trace in traces)), unknown)


def _together(one: Dimension, other: Dimension) -> Dimension | None:
    one, other = ([f for f in dimension if f.size != 1 or f.axes] for dimension in (one, other))  # type: ignore[assignment]
    if [(f.size, f.axes) for f in one] != [(f.size, f.axes) for f in other]:
        return None
    factors = []
    for left, right in zip(one, other, strict=True):
        span = None
        if left.span is not None and right.span is not None:
            if left.span.step != right.span.step:
                return None
            span = left.span.union(right.span)
        factors.append(replace(left, span=span, complete=left.complete and right.complete))
    return tuple(factors)
