"""A task with a known answer: find the taps of a kernel from its response to real images.

Each channel is a trial of its own: it has its own teacher kernel, its own images and its own elements, and shares
nothing with the others. Many channels are trained at once because that is faster, and change nothing by it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchdcls import Dcls2d, clamp_positions_, large_kernel_conv, param_groups
from torchdcls.profiles import PROFILES, Interpolation

from ...trainer import plain_updates
from ..config import StudentName

# A tap is found by an element that is less than one cell away and has its sign. An element of the other sign counts as
# one cell farther away. Taps are far enough apart that no element finds two.
FOUND = 1.0
_APART = 3.0
# Share of the updates in which sigma falls; in the others elements settle.
_ANNEALED = 0.75


@dataclass(frozen=True)
class Student:
    """How elements are to find taps.

    Args:
        interpolation: Of its DCLS layer.
        sigma: Where sigma starts; None for the paper's start, or where the interpolation has none. Unit: grid cells.
        annealed: Whether sigma is not learned, but falls from `sigma` to 0 in three quarters of the updates.
    """

    interpolation: Interpolation
    sigma: float | None = None
    annealed: bool = False


STUDENTS: dict[StudentName, Student] = {
    "bilinear": Student("bilinear"),
    "triangle": Student("triangle"),
    "triangle-2": Student("triangle", 2.0),
    "gaussian": Student("gaussian"),
    "gaussian-1": Student("gaussian", 1.0),
    "gaussian-3": Student("gaussian", 3.0),
    "gaussian-annealed": Student("gaussian", 3.0, annealed=True),
}


@dataclass(frozen=True)
class Teacher:
    """Kernels with taps at known cells.

    Args:
        position: (2, kernels, taps), rows then columns, whole numbers. Unit: grid cells; origin: the kernel's center.
        weight: (kernels, taps), magnitudes from 0.5 to 1.
        size: Height and width of the kernels, odd.
    """

    position: Tensor
    weight: Tensor
    size: int

    @classmethod
    def drawn(cls, kernels: int, taps: int, reach: float, size: int, random: np.random.Generator) -> "Teacher":
        """Taps at random cells within `reach` cells of the center, at least 3 cells apart, of random sign.

        Raises:
            ValueError: `taps`: there is no room for so many.
        """
        axis = np.arange(-(size // 2), size // 2 + 1)
        cells = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        cells = cells[np.hypot(*cells.T) <= reach]
        position = np.stack([_apart(cells, taps, random) for _ in range(kernels)])
        weight = random.uniform(0.5, 1, (kernels, taps)) * random.choice([-1, 1], (kernels, taps))
        return cls(torch.from_numpy(position).permute(2, 0, 1).float(), torch.from_numpy(weight).float(), size)

    def kernel(self) -> Tensor:
        """The dense kernels, (kernels, 1, size, size)."""
        rows, columns = (self.position + self.size // 2).long()
        dense = torch.zeros(len(self.weight), 1, self.size, self.size)
        dense[torch.arange(len(dense))[:, None], 0, rows, columns] = self.weight
        return dense


@dataclass(frozen=True)
class Outcome:
    """How far the elements of each kernel are at one moment.

    Args:
        update: Number of updates before it.
        loss: (kernels,), squared error over the squared response of the teacher.
        distance: (kernels, taps), see `distances`. Unit: grid cells.
    """

    update: int
    loss: Tensor
    distance: Tensor

    @property
    def found(self) -> Tensor:
        """Share of the taps of each kernel that are found, (kernels,)."""
        return (self.distance < FOUND).float().mean(1)


@dataclass(frozen=True)
class Search:
    """A training run.

    Args:
        outcomes: Before, during and after it.
        path: (updates + 1, 3, kernels, elements), row, column (grid cells) and weight of the elements.
    """

    outcomes: list[Outcome]
    path: Tensor


def find_taps(
    student: Student,
    teacher: Teacher,
    start: Tensor,
    weight: Tensor,
    draw: Callable[[], Tensor],
    test: Tensor,
    *,
    updates: int,
    lr: float,
    position_lr_scale: float,
    moments: int,
) -> Search:
    """Trains a student's elements to respond as the teacher does.

    Args:
        teacher: Has no more taps than the student has elements.
        start: (2, kernels, elements), where elements start. Unit: grid cells.
        weight: (kernels, elements), their weights at the start.
        draw: Returns the images of an update, (batch, kernels, height, width).
        test: Other images, by which the loss is measured, (images, kernels, height, width).
        updates: Number of updates by AdamW.
        lr: Learning rate of weights, which falls to 0 by a cosine.
        position_lr_scale: Learning rate of positions and sigmas over `lr`.
        moments: Number of outcomes after the first, evenly over the updates.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    layer = _layer(student, teacher, start, weight)
    optimizer = torch.optim.AdamW(param_groups(layer, lr, 0.0, position_lr_scale))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    target = teacher.kernel()
    power = _power(test, target)
    outcomes = [_outcome(layer, teacher, test, target, power, 0)]
    path = [_elements(layer)]
    seen = {round(updates * moment / moments) for moment in range(1, moments + 1)}

    def loss(update: int) -> Tensor:
        if student.annealed and layer.sigma is not None and student.sigma is not None:
            layer.sigma.detach().fill_(student.sigma * max(0.0, 1 - update / (_ANNEALED * updates)))
        # The difference of two responses is the response of the difference, and costs one convolution less.
        return (_power(draw(), layer.kernel() - target) / power).sum()

    for update, _ in enumerate(plain_updates(optimizer, schedule, range(1, updates + 1), loss), start=1):
        clamp_positions_(layer)
        path.append(_elements(layer))
        if update in seen:
            outcomes.append(_outcome(layer, teacher, test, target, power, update))
    return Search(outcomes, torch.stack(path))


def distances(position: Tensor, weight: Tensor, teacher: Teacher) -> Tensor:
    """From each tap to its element, and a cell more where they differ in sign.

    Each tap is given an element of its own, so that the distances add up to the least.

    Args:
        position: (2, kernels, elements), of the elements. Unit: grid cells.
        weight: (kernels, elements), of the elements.
        teacher: Has the taps, no more than there are elements.

    Returns:
        (kernels, taps). Unit: grid cells.
    """
    taps, elements = (places.permute(1, 2, 0).double() for places in (teacher.position, position))
    differ = teacher.weight.sign()[:, :, None] != weight.sign()[:, None]
    away = torch.cdist(taps, elements) + FOUND * differ
    return torch.from_numpy(np.stack([matrix[linear_sum_assignment(matrix)] for matrix in away.numpy()])).float()


def _layer(student: Student, teacher: Teacher, start: Tensor, weight: Tensor) -> Dcls2d:
    kernels, elements = weight.shape
    profile = PROFILES[student.interpolation]
    if student.sigma is not None:
        profile = replace(profile, start=student.sigma)
    layer = Dcls2d(
        kernels,
        kernels,
        elements,
        padding="same",
        dilated_kernel_size=teacher.size,
        groups=kernels,
        bias=False,
        interpolation=profile,
        position_init=start[:, :, None],
    )
    layer.weight.detach().copy_(weight[:, None])
    if student.annealed and layer.sigma is not None:
        layer.sigma.requires_grad_(False)
    return layer


def _power(images: Tensor, kernel: Tensor) -> Tensor:
    """Mean square of the response to images, (kernels,)."""
    response = large_kernel_conv(images, kernel, padding="same", groups=len(kernel))
    return response.square().mean((0, 2, 3))


@torch.no_grad()
def _outcome(layer: Dcls2d, teacher: Teacher, test: Tensor, target: Tensor, power: Tensor, update: int) -> Outcome:
    loss = _power(test, layer.kernel() - target) / power
    return Outcome(update, loss, distances(layer.position[:, :, 0], layer.weight[:, 0], teacher))


@torch.no_grad()
def _elements(layer: Dcls2d) -> Tensor:
    return torch.cat([layer.position[:, :, 0], layer.weight[None, :, 0]])


def _apart(cells: np.ndarray, taps: int, random: np.random.Generator) -> np.ndarray:
    """Random cells, (taps, 2), no two of them closer than `_APART`."""
    for _ in range(100):
        chosen: list[np.ndarray] = []
        for cell in random.permutation(cells):
            if all(np.hypot(*(cell - other)) >= _APART for other in chosen):
                chosen.append(cell)
            if len(chosen) == taps:
                return np.stack(chosen)
    raise ValueError(f"taps: expected a number that fits within reach, {_APART:g} cells apart, got {taps}")
