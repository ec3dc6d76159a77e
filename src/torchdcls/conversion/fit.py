"""Elements that make given kernels as well as possible: positions by search and descent, weights by least squares.

The kernels of a row share their positions: one kernel over the learned axes, or one of each of several layers. All rows
are fitted at once, in float64. Nothing of the size of a new kernel is made: products of elements with each other and
with the old kernels separate over the axes, as the kernel itself does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops.separable import EPSILON
from ..profiles import Profile

# A triangle whose middle is on a cell has no gradient with respect to its position. Elements stay this far off, in
# cells; float32 can tell up to cell 128.
OFF_CELL = 2.0**-16
# This share of each element's own energy is added to the squared error, so that the weights of elements at the same
# place do not grow against each other.
RIDGE = 1e-3
# How often weights are solved again for the error that the ridge leaves: none, where elements are well apart.
PASSES = 6
# Where a start is chosen from: places this far apart, with these sigmas if there are any.
STEP = 0.5
SIGMAS = (0.0, 0.25, 0.75)
# A row's descent ends after so many rounds, with one that gains less than this share, or with steps as short as this
# damping makes them.
ROUNDS = 30
LEAST_GAIN = 1e-3
MOST_DAMPING = 1e6
# Rows are fitted in parts, of so many numbers in their largest matrices: what a processor's cache holds.
PART_NUMBERS = 2**20


@dataclass(frozen=True)
class Grid:
    """Where kernels lie: `sizes` cells along each axis, of which the old ones have those from `starts` to `stops`."""

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    profile: Profile

    @property
    def taps(self) -> int:
        """Cells of an old kernel."""
        return math.prod(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    def places(self, step: float, device: torch.device) -> Tensor:
        """All from the first to the last cells of an old kernel, (axes, places), in cells from the origin."""
        along = []
        for size, start, stop in zip(self.sizes, self.starts, self.stops, strict=True):
            count = round((stop - 1 - start) / step) + 1
            along.append(start - size // 2 + step * torch.arange(count, dtype=torch.float64, device=device))
        return torch.stack([axis.flatten() for axis in torch.meshgrid(along, indexing="ij")])


@dataclass(frozen=True)
class Placement:
    """Positions and sigmas, each (axes, rows, elements); a sigma is 0 at least, and 0 where the profile has none."""

    position: Tensor
    sigma: Tensor

    def of(self, rows: Tensor) -> "Placement":
        """The elements of some rows."""
        return Placement(self.position[:, rows], self.sigma[:, rows])


def fit(old: Tensor, count: int, grid: Grid) -> tuple[Placement, Tensor]:
    """Elements and weights that make the old kernels with least squared error.

    With as many elements as an old kernel has taps there is one on each. With fewer, a start is chosen, from where
    elements are moved and spread as long as it helps.

    Args:
        old: (layers, rows, *cells), float64.
        count: Placement per row.
        grid: Where kernels lie.

    Returns:
        Elements, no more of them than taps, off the cells by `OFF_CELL` at least and exact in float32; and weights,
        (layers, rows, elements).
    """
    layers, rows = old.shape[:2]
    if count >= grid.taps:
        # The same places for all rows: all kernels are layers of one.
        elements = _rounded(_on_taps(grid, old.device))
        weight = least_squares(old.flatten(0, 1).unsqueeze(1), elements, grid).reshape(layers, rows, grid.taps)
        return Placement(elements.position.expand(-1, rows, -1), elements.sigma.expand(-1, rows, -1)), weight
    largest = (1 + 2 * len(grid.sizes)) * count
    fitted = []
    for part in torch.split(old, max(1, PART_NUMBERS // largest**2), dim=1):
        elements = _rounded(descended(part, _choices(part, count, grid)[0], grid))
        fitted.append((elements.position, elements.sigma, least_squares(part, elements, grid)))
    position, sigma, weight = (torch.cat(parts, 1) for parts in zip(*fitted, strict=True))
    return Placement(position, sigma), weight


def least_squares(old: Tensor, elements: Placement, grid: Grid) -> Tensor:
    """Weights with which elements make the old kernels best, (layers, rows, elements).

    It is the least squares solution where elements are apart; weights of those that are nearly the same stay bounded.
    """
    columns = _columns(elements, grid)
    products, with_old = _products(columns), _products_with(old, columns, grid)
    root = _root(products)
    weight = torch.zeros_like(with_old)
    for _ in range(PASSES):
        weight = weight + _solved(root, with_old - _times(products, weight))
    return weight


def objective(old: Tensor, elements: Placement, grid: Grid) -> Tensor:
    """The least value of squared error plus `RIDGE` times the energies of elements, for each row. A fit lowers it."""
    columns = _columns(elements, grid)
    with_old = _products_with(old, columns, grid)
    weight = _solved(_root(_products(columns)), with_old)
    return old.square().flatten(2).sum((0, 2)) - (with_old * weight).sum((0, 2))


def left_by_count(old: Tensor, grid: Grid) -> Tensor:
    """The most squared error of each layer's kernels with 1, 2, ... elements, (taps, layers); 0 at the end.

    It is the error of a start, before elements are moved.
    """
    candidates = len(SIGMAS) * grid.places(STEP, old.device).shape[1]
    parts = torch.split(old, max(1, PART_NUMBERS // (grid.taps * candidates)), dim=1)
    gained = sum((_choices(part, grid.taps, grid)[1] for part in parts), start=old.new_zeros(()))
    left = old.square().flatten(1).sum(1) - gained.cumsum(0)
    left[-1] = 0
    return left.clamp_min(0)


def _choices(old: Tensor, count: int, grid: Grid) -> tuple[Placement, Tensor]:
    """Elements chosen one by one, and by how much each lowers the squared error of each layer, (count, layers).

    Each time it is the element with which least is left of all of a row's kernels.

    Source:
        Chen, Billings, Luo, "Orthogonal least squares methods", Int. J. Control 50 (1989).
    """
    places = grid.places(STEP, old.device)
    sigmas = SIGMAS if grid.profile.start is not None else SIGMAS[:1]
    position = places.repeat(1, len(sigmas)).unsqueeze(1)
    sigma = position.new_tensor(sigmas).repeat_interleave(places.shape[1]).expand_as(position)
    columns = _columns(Placement(position, sigma), grid)
    products = _products(columns)[0]  # (candidates, candidates), the same for all rows

    # Of each candidate only what it has beyond those chosen counts: its energy, and what it has in common with the old
    # kernels. `parts` are the coordinates of all candidates on those chosen, each made orthogonal to the ones before.
    energy = products.diagonal().repeat(old.shape[1], 1)
    common = _products_with(old, columns, grid)
    parts = energy.new_empty(old.shape[1], 0, energy.shape[1])
    least = 1e-6 * energy
    rows = torch.arange(old.shape[1], device=old.device)
    taken, gained = [], []
    for _ in range(count):
        gain = common.square().sum(0) / energy.clamp_min(least)
        pick = gain.masked_fill(energy <= least, -1.0).argmax(-1)
        taken.append(pick)
        gained.append((common[:, rows, pick].square() / energy[rows, pick].clamp_min(least[rows, pick])).sum(1))
        length = energy[rows, pick].clamp_min(least[rows, pick]).sqrt().unsqueeze(-1)
        before = (parts[rows, :, pick].unsqueeze(1) @ parts).squeeze(1)
        part = (products[pick] - before) / length
        common = common - common[:, rows, pick].unsqueeze(-1) / length * part
        energy = energy - part.square()
        parts = torch.cat([parts, part.unsqueeze(1)], 1)
    picks = torch.stack(taken, -1)
    return Placement(position[:, 0, picks], sigma[:, 0, picks]), torch.stack(gained)


def descended(old: Tensor, start: Placement, grid: Grid) -> Placement:
    """Elements moved and spread from a start so that the objective falls in every row, weights following.

    Source:
        Levenberg and Marquardt's method with Kaufman's variable projection, BIT 15 (1975).
    """
    elements = _beside(old, start, grid)
    value = objective(old, elements, grid)
    damping = torch.full_like(value, 1e-2)
    active = torch.arange(old.shape[1], device=old.device)
    for _ in range(ROUNDS):
        kernels, now, before = old[:, active], elements.of(active), value[active]
        moved = _Descent(kernels, now, grid).step(damping[active])
        after = objective(kernels, moved, grid)
        better = after < before
        elements.position[:, active[better]] = moved.position[:, better]
        elements.sigma[:, active[better]] = moved.sigma[:, better]
        value[active[better]] = after[better]
        damping[active] *= torch.where(better, 0.2, 8.0)
        ended = better & (before - after < LEAST_GAIN * before) | (damping[active] > MOST_DAMPING)
        active = active[~ended]
        if not len(active):
            break
    return elements


class _Descent:
    """Slope and curvature of the objective in the positions and sigmas of elements.

    Unknowns are in the order of the derivatives of `_columns`: one kind after the other, each of all elements.
    """

    def __init__(self, old: Tensor, elements: Placement, grid: Grid) -> None:
        self.elements, self.grid = elements, grid
        self.count = count = elements.position.shape[-1]
        columns = _columns(elements, grid, derivatives=True)
        self.products, with_old = _products(columns), _products_with(old, columns, grid)
        self.root = _root(self.products[:, :count, :count])
        self.weight = _solved(self.root, with_old[..., :count])
        # Products of derivatives with elements; the ridge adds to those with the element itself.
        self.mixed = self.products[:, count:, :count].clone()
        for kind in torch.split(self.mixed, count, dim=1):
            kind.diagonal(dim1=-2, dim2=-1).mul_(1 + RIDGE)
        self.kinds = self.mixed.shape[1] // count
        slope = with_old[..., count:] - _times(self.mixed, self.weight)
        self.downhill = (self.weight.repeat(1, 1, self.kinds) * slope).sum(0)

    def step(self, damping: Tensor) -> Placement:
        """Elements after a step, short for a large damping (rows), half a cell at most."""
        # Of the derivatives only what no change of weights can make counts.
        beyond = self.products[:, self.count :, self.count :] - self.mixed @ torch.cholesky_solve(
            self.mixed.mT, self.root
        )
        weights = torch.einsum("lrk,lrm->rkm", self.weight, self.weight)
        curvature = beyond.mul_(weights.repeat(1, self.kinds, self.kinds))
        diagonal = curvature.diagonal(dim1=-2, dim2=-1)
        diagonal += damping.unsqueeze(-1) * (diagonal + 1e-3 * diagonal.mean(-1, keepdim=True))
        diagonal += torch.finfo(diagonal.dtype).tiny
        root, _ = torch.linalg.cholesky_ex(curvature)
        # A row whose curvature rounding made indefinite stays where it is, and is damped.
        move = torch.cholesky_solve(self.downhill.unsqueeze(-1), root).squeeze(-1)
        move = move.nan_to_num(0.0, 0.0, 0.0).clamp(-0.5, 0.5).reshape(-1, self.kinds, self.count).movedim(1, 0)
        axes = len(self.grid.sizes)
        sigma = self.elements.sigma + move[axes:] if self.kinds > axes else self.elements.sigma
        return _inside(self.elements.position + move[:axes], sigma, self.grid)


def _beside(old: Tensor, elements: Placement, grid: Grid) -> Placement:
    # Off the cells, along each axis to the side that leaves less.
    downhill = []
    for side in (OFF_CELL, -OFF_CELL):
        moved = _inside(elements.position + side, elements.sigma, grid)
        descent = _Descent(old, moved, grid)
        by_kind = descent.downhill.reshape(-1, descent.kinds, descent.count).movedim(1, 0)
        downhill.append(by_kind[: len(grid.sizes)])
    sides = torch.where(downhill[0] > -downhill[1], OFF_CELL, -OFF_CELL)
    return _inside(elements.position + sides, elements.sigma, grid)


def _on_taps(grid: Grid, device: torch.device) -> Placement:
    # A little to the middle of the old kernel, where nothing is lost over its edge: the weights can be exact.
    places = grid.places(1.0, device)
    middle = places.mean(1, keepdim=True)
    position = places + torch.where(places < middle, OFF_CELL, -OFF_CELL)
    return _inside(position.unsqueeze(1), torch.zeros_like(position).unsqueeze(1), grid)


def _inside(position: Tensor, sigma: Tensor, grid: Grid) -> Placement:
    # On the grid, and off its cells.
    cell = position.round()
    gap = position - cell
    position = cell + torch.where(gap < 0, gap.clamp_max(-OFF_CELL), gap.clamp_min(OFF_CELL))
    for axis, size in enumerate(grid.sizes):
        off = OFF_CELL if size > 1 else 0.0
        position[axis].clamp_(off - size // 2, size - 1 - size // 2 - off)
    return Placement(position, sigma.clamp(0.0, float(max(grid.sizes))))


def _rounded(elements: Placement) -> Placement:
    return Placement(elements.position.float().double(), elements.sigma.float().double())


def _columns(elements: Placement, grid: Grid, derivatives: bool = False) -> list[Tensor]:
    """The kernels of elements of weight 1, as one factor per axis, (rows, elements, cells).

    With `derivatives`, the derivatives with respect to the position along each axis, and then to the sigma along each
    if there are any, follow the elements in the same dimension; they are products of factors too.
    """
    profile, position = grid.profile, elements.position
    values, by_position, by_sigma = [], [], []
    for axis, size in enumerate(grid.sizes):
        cell = torch.arange(size, dtype=position.dtype, device=position.device) - size // 2
        scale = (profile.smallest_scale + elements.sigma[axis]).unsqueeze(-1)
        distance = (cell - position[axis].unsqueeze(-1)) / scale
        if derivatives:
            with torch.enable_grad():
                leaf = distance.requires_grad_()
                value = profile.function(leaf)
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            by_position.append(-slope / scale)
            by_sigma.append(-slope * distance.detach() / scale)
        else:
            values.append(profile.function(distance))
    masses = [value.sum(-1, keepdim=True) for value in values]
    mass = math.prod(masses[1:], start=masses[0]) + EPSILON
    columns = [[value] for value in values]
    slopes = by_position + by_sigma if profile.start is not None else by_position
    for kind, slope in enumerate(slopes):
        axis = kind % len(values)
        others = math.prod((other for at, other in enumerate(masses) if at != axis), start=torch.ones_like(mass))
        changed = slope - values[axis] * slope.sum(-1, keepdim=True) * others / mass
        for at, value in enumerate(values):
            columns[at].append(changed if at == axis else value)
    columns[0] = [column / mass for column in columns[0]]
    return [torch.cat(column, -2) for column in columns]


def _products(columns: Sequence[Tensor]) -> Tensor:
    # (rows, columns, columns)
    along = [column @ column.mT for column in columns]
    return math.prod(along[1:], start=along[0])


def _products_with(old: Tensor, columns: Sequence[Tensor], grid: Grid) -> Tensor:
    # (layers, rows, columns): the last axis by a matrix product; then the others, which have the columns behind them.
    *first, last = (
        column[..., start:stop].mT for column, start, stop in zip(columns, grid.starts, grid.stops, strict=True)
    )
    product = (old.flatten(2, -2) if first else old.unsqueeze(2)) @ last
    product = product.reshape(*old.shape[:-1], last.shape[-1])
    for axis in reversed(range(len(first))):
        factor = first[axis]
        product = (product * factor.reshape(factor.shape[0], *(1,) * axis, *factor.shape[1:])).sum(-2)
    return product


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    # matrix: (rows, m, n); vectors: (layers, rows, n)
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def _root(products: Tensor) -> Tensor:
    ridge = RIDGE * products.diagonal(dim1=-2, dim2=-1)
    root: Tensor = torch.linalg.cholesky_ex(products + torch.diag_embed(ridge))[0]
    return root


def _solved(root: Tensor, right: Tensor) -> Tensor:
    # right: (layers, rows, elements)
    return torch.cholesky_solve(right.permute(1, 2, 0), root).permute(2, 0, 1)
