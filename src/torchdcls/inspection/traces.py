"""Which cells of the input an element of a tensor depends on, and how that changes as tensors are cut and joined.

A dimension of a tensor is a product of factors, as reshapes leave it: (batch * height * width, channels) has three in
its first. A factor that is an axis of the map has a span, from which follows what each of its cells reads.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

_Element = TypeVar("_Element")


def union(sets: Iterable[frozenset[_Element]]) -> frozenset[_Element]:
    """All that is in any of the sets."""
    return frozenset[_Element]().union(*sets)


@dataclass(frozen=True)
class Span:
    """Cell `i` depends on the pixels from `step * i + low` to `step * i + high`, borders of the image left out.

    Attributes:
        step: Pixels from one cell to the next; 0 where all cells read the same.
        low, high: First and last pixel of cell 0.
        exact: Whether all cells read as many; else it is the most.
        image: Pixels of the image along this axis.
    """

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    exact: bool = True
    image: int = 1

    def window(self, first: Fraction | int, last: Fraction | int, stride: Fraction | int, exact: bool = True) -> "Span":
        """Of cells of which the one at `i` reads those from `stride * i + first` to `stride * i + last`."""
        before, behind = self.step * first, self.step * last
        before, behind = min(before, behind), max(before, behind)  # steps are negative in a mirrored map
        return replace(
            self,
            step=self.step * stride,
            low=self.low + before,
            high=self.high + behind,
            exact=self.exact and exact,
        )

    def union(self, other: "Span") -> "Span":
        """Of cells that depend on both; the steps are the same."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return replace(self, low=low, high=high, exact=self.exact and other.exact)

    def over(self, size: int) -> "Span":
        """Of cells of which each depends on the first `size` of these."""
        return self.window(0, size - 1, 0)

    def covers(self, size: int) -> bool:
        """Whether the first `size` cells read the whole image, but for pixels that a stride leaves over."""
        all_of_them, left_over = self.over(size), max(abs(self.step), Fraction(1))
        return all_of_them.low < left_over and all_of_them.high > self.image - 1 - left_over

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
        complete: Whether it holds all cells of its axes, where the order of cells is lost.
        others: Cells among them that are none of the map, such as a class token.
        uneven: Whether some of its cells may depend on fewer pixels than is said of all, as channels of two branches.
    """

    size: int
    axes: frozenset[int] = frozenset()
    span: Span | None = None
    complete: bool = True
    others: int = 0
    uneven: bool = False

    @property
    def covers(self) -> bool:
        """Whether its cells together read the whole image, or hold no axis."""
        return self.complete if self.span is None else self.span.covers(self.size)


Dimension = tuple[Factor, ...]


def axes_of(dimension: Dimension) -> frozenset[int]:
    """Axes of the map that a dimension holds."""
    return union(factor.axes for factor in dimension)


def cells_of(dimension: Dimension) -> int:
    """The size of a dimension."""
    return math.prod(factor.size for factor in dimension)


def disordered(size: int, axes: frozenset[int]) -> Dimension:
    """A dimension of cells of some axes, not all, in an order that is not followed."""
    return (Factor(size, axes, None, False),)


@dataclass(frozen=True)
class Trace:
    """What a tensor's elements depend on.

    Attributes:
        dimensions: The factors of each of its dimensions.
        whole: Axes along which they depend on the whole image, each with what made them.
        unknown: What lost their dependence.
        fixed: Axes along which all of them depend on the same pixels, such as a video's frame; none of them is among
            the dimensions.
    """

    dimensions: tuple[Dimension, ...]
    whole: frozenset[tuple[int, str]] = frozenset()
    unknown: frozenset[str] = frozenset()
    fixed: frozenset[tuple[int, Span]] = frozenset()

    @property
    def map_axes(self) -> frozenset[int]:
        """Axes of the map that are among its dimensions."""
        return union(map(axes_of, self.dimensions))

    @property
    def axes(self) -> frozenset[int]:
        """The same, and those along which all elements depend on the same pixels."""
        return self.map_axes | {axis for axis, _ in self.fixed}

    @property
    def depends(self) -> bool:
        """Whether they depend on the image at all, as far as is known."""
        return bool(self.axes or self.whole or self.unknown)

    def spans(self) -> dict[int, Span]:
        """What is known of each axis."""
        factors = (factor for dimension in self.dimensions for factor in dimension if factor.span is not None)
        return dict(self.fixed) | {min(factor.axes): factor.span for factor in factors if factor.span is not None}

    def but_not(self, *why: str) -> "Trace":
        """The same, but for what lost their dependence."""
        return replace(self, unknown=self.unknown | set(why))

    def with_dimension(self, at: int, *dimensions: Dimension) -> "Trace":
        """With others, or none, in the place of one of its dimensions."""
        at %= len(self.dimensions)
        return replace(self, dimensions=(*self.dimensions[:at], *dimensions, *self.dimensions[at + 1 :]))

    def lost(self, shape: Sequence[int], why: str) -> "Trace":
        """That of a tensor made of this one's elements in an order that is not followed."""
        axes = self.axes
        dimensions: tuple[Dimension, ...] = tuple((Factor(size),) for size in shape)
        if axes and dimensions:
            dimensions = (*dimensions[:-1], disordered(shape[-1], axes))
        return Trace(dimensions, self.whole, self.unknown | {why})

    def at_most(self, axes: Iterable[int]) -> "Trace":
        """The same, but that cells may depend on less along some axes."""
        less = frozenset(axes)

        def at_most(factor: Factor) -> Factor:
            if factor.span is None or not factor.axes & less:
                return factor
            return replace(factor, span=replace(factor.span, exact=False))

        fixed = frozenset((axis, replace(span, exact=span.exact and axis not in less)) for axis, span in self.fixed)
        return replace(self, dimensions=tuple(tuple(map(at_most, d)) for d in self.dimensions), fixed=fixed)

    def mixed(self, over: Iterable[int], by: str) -> "Trace":
        """That of elements that depend on all of some dimensions, all of which stay."""
        mixed, whole = self, self.whole
        for at in over:
            factors = []
            for factor in mixed.dimensions[at]:
                if factor.covers:
                    whole |= {(axis, by) for axis in factor.axes}
                elif factor.span is not None:  # one that is not complete is unknown already
                    factor = replace(factor, span=factor.span.over(factor.size))
                factors.append(factor)
            mixed = mixed.with_dimension(at, tuple(factors))
        return replace(mixed, whole=whole)

    def pooled(self, over: Iterable[int], by: str) -> "Trace":
        """The same, but that one cell is left of these dimensions."""
        over = list(over)
        pooled = self.mixed(over, by)
        whole = {axis for axis, _ in pooled.whole}
        for at in over:
            # What is mixed is the same for all cells.
            spans = [(min(factor.axes), factor.span) for factor in pooled.dimensions[at] if factor.span is not None]
            pooled = pooled.with_dimension(at, (Factor(1),))
            pooled = pooled.fixed_at([(axis, span) for axis, span in spans if axis not in whole], by)
        return pooled

    def fixed_at(self, spans: Iterable[tuple[int, Span]], why: str) -> "Trace":
        """That of elements all of which depend on these pixels too."""
        fixed = dict(self.fixed)
        for axis, span in spans:
            fixed[axis] = span.union(fixed.get(axis, span))
        both = self.map_axes & set(fixed)  # cells at their own places and all at another
        kept = frozenset((axis, span) for axis, span in fixed.items() if axis not in both)
        return replace(self.but_not(why) if both else self, fixed=kept)

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
                    first = Factor(missing, factor.axes, None, not factor.axes, uneven=factor.uneven)
                    left.insert(0, replace(first, size=factor.size // missing))
                    broken, factor = broken or bool(factor.axes), first
                elif missing % factor.size:
                    return self.lost(shape, why)
                taken.append(factor)
                missing //= factor.size
            dimensions.append(tuple(taken))
        if left and dimensions:  # axes of one cell
            dimensions[-1] = (*dimensions[-1], *left)
        return replace(self.but_not(why) if broken else self, dimensions=tuple(dimensions))


def joined(traces: Sequence[Trace], shape: Sequence[int], why: str) -> Trace:
    """That of a tensor whose elements depend on those of several at the same place, broadcast to `shape`."""
    dimensions: list[Dimension] = []
    lost = False
    for place, size in zip(range(-len(shape), 0), shape, strict=True):
        there = [trace.dimensions[place] for trace in traces if len(trace.dimensions) >= -place]
        uneven = any(factor.uneven for dimension in there for factor in dimension)
        found: Dimension = (Factor(size, uneven=uneven),)
        for other in there:
            if not axes_of(other):
                continue
            both = None
            if cells_of(other) == size:  # else a map of one cell, spread over another
                both = _together(found, other) if axes_of(found) else other
            lost = lost or both is None
            found = disordered(size, axes_of((*found, *other))) if both is None else both
        dimensions.append(found)
    whole, unknown = union(trace.whole for trace in traces), union(trace.unknown for trace in traces)
    together = Trace(tuple(dimensions), whole, unknown | ({why} if lost else set()))
    return together.fixed_at([pair for trace in traces for pair in trace.fixed], why)


def end_to_end(pieces: Sequence[tuple[int, Span | None]]) -> Span | None:
    """The span of cells that were laid end to end; None where they are not those of one map, one after the other.

    Args:
        pieces: Number and span of each piece's cells. Pieces without one do not depend on the image: such cells may
            stand before and behind a map, as its padding.
    """
    starts = [sum(size for size, _ in pieces[:number]) for number in range(len(pieces))]
    laid = [(start, size, span) for start, (size, span) in zip(starts, pieces, strict=True) if span is not None]
    if not laid or sum(size for _, size, _ in laid) != laid[-1][0] + laid[-1][1] - laid[0][0]:
        return None
    start, size, first = laid[0]
    # One cell has no step.
    step = first.step if size > 1 or len(laid) == 1 else (laid[1][2].low - first.low) / (laid[1][0] - start)
    whole = replace(first, step=step, exact=all(span.exact for _, _, span in laid)).window(-start, -start, 1)
    for start, size, span in laid:
        expected = whole.window(start, start, 1)
        if (span.low, span.high) != (expected.low, expected.high) or (size > 1 and span.step != step):
            return None
    return whole


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
        uneven = left.uneven or right.uneven
        factors.append(replace(left, span=span, complete=left.complete and right.complete, uneven=uneven))
    return tuple(factors)
