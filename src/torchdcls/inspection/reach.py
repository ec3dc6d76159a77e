"""What the elements of a tensor depend on: for each, along each axis of the image, the first and the last pixel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

# Stands for a cell where there is none.
NOWHERE = -(2**40)


@dataclass(frozen=True)
class Reach:
    """What a tensor's elements depend on.

    Attributes:
        bounds: (2 * axes, *shape of the tensor). The first pixel along each axis of the image, then minus the last
            pixel along each, so that the minimum over two elements covers both. Infinite where an element does not
            depend on pixels of its own. Pixels beyond the image's borders count.
        steps: For each axis the pixels from a cell of the feature map to the next, for maps that have no other cell.
        whole: Axes along which they depend on the whole image, each with the module that reads it.
        unknown: Operations that were not followed.
    """

    bounds: Tensor
    steps: tuple[float, ...]
    whole: frozenset[tuple[int, str]] = frozenset()
    unknown: frozenset[str] = frozenset()

    @property
    def depends(self) -> bool:
        """Whether they depend on the image at all, as far as is known."""
        return bool(self.whole or self.unknown or self.axes)

    @property
    def axes(self) -> frozenset[int]:
        """Axes along which some element depends on pixels of its own."""
        if not self.bounds.numel():
            return frozenset()
        first = _compact(self.bounds[: len(self.steps)])
        least = first.amin(list(range(1, first.dim()))) if first.dim() > 1 else first
        return frozenset(axis for axis, pixel in enumerate(least.tolist()) if pixel < inf)

    def widths(self, axis: int) -> Tensor:
        """How many pixels each element depends on, without elements that depend on none."""
        first, last = self.bounds[axis], -self.bounds[axis + len(self.steps)]
        return (last - first)[first.isfinite()].floor() + 1

    def spread(self) -> list[float]:
        """For each axis how far the middles of elements are from each other."""
        if not self.bounds.numel():
            return [0.0] * len(self.steps)
        first, minus_last = _compact(self.bounds).flatten(1).tensor_split(2)
        middles = (first - minus_last) / 2
        there = first.isfinite()
        least, most = middles.where(there, inf).amin(1), middles.where(there, -inf).amax(1)
        return (most - least).clamp_min(0).tolist()

    def at_one_place(self) -> "Reach":
        """The reach of all elements together that stand at one place of the map, such as its channels."""
        found = self
        for dim in range(1 - self.bounds.dim(), 0):
            merged = found.of(found.bounds.amin(dim, keepdim=True))
            spreads = zip(found.spread(), merged.spread(), self.steps, strict=True)
            if all(after or before < step for before, after, step in spreads):
                found = merged
        return found

    def but_not(self, *why: str) -> "Reach":
        """The same, with operations that were not followed."""
        return replace(self, unknown=self.unknown | set(why))

    def of(self, bounds: Tensor) -> "Reach":
        """The reach of other elements, made of these."""
        return replace(self, bounds=bounds)

    def expanded(self, shape: Sequence[int]) -> "Reach":
        """The reach of elements that are broadcast to a shape."""
        own = self.bounds.shape[1:]
        return self.of(self.bounds.reshape(-1, *[1] * (len(shape) - len(own)), *own).expand(-1, *shape))

    def pooled(self, dims: Sequence[int], images: Sequence[int], by: str) -> "Reach":
        """The reach of elements that each depend on all along some dimensions, along which one element is left.

        Args:
            dims: The dimensions, counted from the last, -1.
            images: Size of the image.
            by: The module that does it. Where it reads all of an axis, it reads the whole image.
        """
        pooled = self.of(_compact(self.bounds).amin(list(dims), keepdim=True)) if dims else self
        whole = self._read_whole(pooled, dims, images) if dims else []
        bounds = pooled.bounds.masked_fill(self._rows(whole), inf) if whole else pooled.bounds
        shape = [1 if dim - self.bounds.dim() in dims else size for dim, size in enumerate(self.bounds.shape)]
        return replace(self, bounds=bounds.expand(shape), whole=self.whole | {(axis, by) for axis in whole})

    def mixed(self, dims: Sequence[int], images: Sequence[int], by: str) -> "Reach":
        """As `pooled`, but all elements stay. One that reads the whole image keeps its own pixels beside it."""
        pooled = self.of(_compact(self.bounds).amin(list(dims), keepdim=True)) if dims else self
        whole = self._read_whole(pooled, dims, images) if dims else []
        bounds = torch.where(self._rows(whole), _compact(self.bounds), pooled.bounds) if whole else pooled.bounds
        return replace(self, bounds=bounds.expand_as(self.bounds), whole=self.whole | {(axis, by) for axis in whole})

    def _read_whole(self, pooled: "Reach", dims: Sequence[int], images: Sequence[int]) -> list[int]:
        """Axes along which each pooled element reads the whole image, by all cells or by some from half of the map."""
        first, minus_last = _compact(self.bounds).tensor_split(2)
        there, middles = first.isfinite(), (first - minus_last) / 2
        most = middles.where(there, -inf).amax(list(dims), keepdim=True)
        apart = most - middles.where(there, inf).amin(list(dims), keepdim=True)
        whole, count = [], len(self.steps)
        before, after = self.spread(), pooled.spread()
        for axis, (step, pixels) in enumerate(zip(self.steps, images, strict=True)):
            ends = pooled.bounds[[axis, axis + count]].flatten(1)
            ends, far = ends[:, ends[0].isfinite()], apart[axis][apart[axis] >= 0]
            left_over = max(step, 1.0)  # pixels that a stride does not reach
            if not before[axis] or before[axis] < step or not far.numel():
                continue
            if after[axis] and far.min() < before[axis] / 2:
                continue
            least, minus_most = (ends.amax(1) if after[axis] else ends.amin(1)).tolist()
            if least < left_over and minus_most < left_over + 1 - pixels:
                whole.append(axis)
        return whole

    def _rows(self, axes: Sequence[int]) -> Tensor:
        """A mask of the bounds along some axes."""
        found = torch.tensor([row % len(self.steps) in axes for row in range(len(self.bounds))])
        return found.view(-1, *[1] * (self.bounds.dim() - 1))

    def gathered(self, dim: int, cells: Tensor, stride: float = 1.0) -> "Reach":
        """The reach of elements that each depend on some along a dimension.

        Args:
            dim: The dimension, counted from the last, -1.
            cells: (size, count), for each element the places along the dimension, or `NOWHERE`. Places beyond its ends
                stand for more cells of the same map.
            stride: How many cells the next element's places are further.
        """
        there, size = cells != NOWHERE, self.bounds.shape[dim]
        before, after = max(-int(cells[there].min()), 0), max(int(cells[there].max()) - size + 1, 0)
        bounds = _compact(self.extended(dim, before, after).bounds, dim)
        index = (cells + before).where(there, 0)
        found = torch.unflatten(bounds.index_select(dim, index.flatten()).movedim(dim, -1), -1, cells.shape)
        if not there.all():
            found = found.where(there, inf)
        moved = self._steps_along(dim).flatten(1).abs().amax(1).tolist()
        steps = tuple(new * stride if new else old for old, new in zip(self.steps, moved, strict=False))
        shape = list(self.bounds.shape[1:])
        shape[dim] = len(cells)
        return replace(self, bounds=found.amin(-1).movedim(-1, dim), steps=steps).expanded(shape)

    def extended(self, dim: int, before: int, after: int) -> "Reach":
        """With more cells of the same map at both ends of a dimension, or fewer."""
        size = self.bounds.shape[dim]
        if before < 0 or after < 0:
            cut = max(-before, 0)
            kept = self.of(self.bounds.narrow(dim, cut, size - cut + min(after, 0)))
            return kept.extended(dim, max(before, 0), max(after, 0))
        if not before and not after:
            return self
        bounds, steps = _compact(self.bounds, dim), self._steps_along(dim)
        numbers = torch.arange(1, max(before, after) + 1, dtype=bounds.dtype).view(-1, *[1] * (-dim - 1))
        ahead = bounds.narrow(dim, 0, 1) - steps * numbers[:before].flip(0)
        behind = bounds.narrow(dim, size - 1, 1) + steps * numbers[:after]
        shape = list(self.bounds.shape[1:])
        shape[dim] += before + after
        return self.of(torch.cat([ahead, bounds, behind], dim)).expanded(shape)

    def is_even(self, dim: int) -> bool:
        """Whether the cells along a dimension lie at even steps."""
        differences = _compact(self.bounds, dim).diff(dim=dim)
        return bool((differences.nan_to_num(0) == self._steps_along(dim)).all())

    def _steps_along(self, dim: int) -> Tensor:
        """Pixels from a cell to the next along a dimension, on average; the dimension has one cell in the result."""
        if self.bounds.shape[dim] > 1:
            differences = _compact(self.bounds, dim).diff(dim=dim)
            steps = differences.masked_fill(~differences.isfinite(), torch.nan).nanmean(dim, keepdim=True)
            return steps.nan_to_num(0)
        # Axes of one cell are told apart by their order.
        steps = self.bounds.new_zeros([len(self.bounds)] + [1] * (self.bounds.dim() - 1))
        singles = [at for at in range(-(self.bounds.dim() - 1), 0) if self.bounds.shape[at] == 1]
        still = sorted(axis for axis, far in enumerate(self.spread()) if not far and axis in self.axes)
        place = len(singles) - singles.index(dim)
        if place <= len(still):
            axis = still[-place]
            steps[axis], steps[axis + len(self.steps)] = self.steps[axis], -self.steps[axis]
        return steps


def independent(shape: Sequence[int], axes: int) -> Reach:
    """The reach of a tensor that was not made from the image."""
    return Reach(torch.tensor(inf, dtype=torch.float32).expand(2 * axes, *shape), (0.0,) * axes)


def joined(reaches: Iterable[Reach], shape: Sequence[int]) -> Reach:
    """The reach of elements that depend on several tensors' elements at the same place, broadcast to `shape`."""
    reaches = list(reaches)
    bounds = _compact(reaches[0].expanded(shape).bounds)
    for reach in reaches[1:]:
        bounds = torch.minimum(bounds, _compact(reach.expanded(shape).bounds))
    return together(reaches).of(bounds.expand(-1, *shape))


def everything(reaches: Iterable[Reach], shape: Sequence[int]) -> Reach:
    """The reach of elements that may each depend on all elements of several tensors."""
    reaches = list(reaches)
    each = [_compact(reach.bounds).flatten(1).amin(1) for reach in reaches if reach.bounds.numel()]
    bounds = torch.stack(each).amin(0) if each else independent((), len(reaches[0].steps)).bounds
    return together(reaches).of(bounds).expanded(shape)


def together(reaches: Sequence[Reach]) -> Reach:
    """What several have in common beside their bounds."""
    return Reach(
        reaches[0].bounds,
        tuple(max(steps) for steps in zip(*(reach.steps for reach in reaches), strict=True)),
        frozenset[tuple[int, str]]().union(*(reach.whole for reach in reaches)),
        frozenset[str]().union(*(reach.unknown for reach in reaches)),
    )


def _compact(bounds: Tensor, but: int = 0) -> Tensor:
    """The bounds without copies along broadcast dimensions, except along the dimension `but`."""
    for dim, stride in enumerate(bounds.stride()):
        if stride == 0 and bounds.shape[dim] > 1 and dim not in (0, but % bounds.dim()):
            bounds = bounds.narrow(dim, 0, 1)
    return bounds
