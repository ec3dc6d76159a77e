"""Batches of images that are held in memory, made where the images are: on a GPU nothing is copied for a batch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchdcls._checks import integer

from .batches import Batch
from .image_set import ImageSet
from .named import images_per_epoch


class Moves(NamedTuple):
    """How the images of a batch are augmented: each is shifted by (down, across) - margin cells, then mirrored or not.

    Args:
        down: (B,) int64, from 0 to twice the margin.
        across: (B,) int64, likewise.
        mirrored: (B,) bool.
    """

    down: Tensor
    across: Tensor
    mirrored: Tensor


class BatchDraws:
    """Order and augmentation, pass after pass, drawn batch by batch: a GPU would wait for one image after the other.

    Args:
        seed: Of random numbers of its own, on the CPU.
    """

    def __init__(self, seed: int) -> None:
        self._random = Generator().manual_seed(seed)

    def order(self, count: int) -> Tensor:
        """The order of the images in the next pass, (count,) int64."""
        return torch.randperm(count, generator=self._random)

    def moves(self, count: int, margin: int) -> Moves:
        """The augmentation of the next `count` images of the pass."""
        down, across = torch.randint(2 * margin + 1, (2, count, 1), generator=self._random)[..., 0]
        return Moves(down, across, torch.rand(count, 1, generator=self._random)[:, 0] < 0.5)


class HeldBatches:
    """Normalized batches of images held in memory, on the device of the images.

    With `draws` they are to train on: shuffled, cropped at random after padding by a fourteenth of their size, and
    mirrored at random; a last batch that is not full is left out, except where it is the only one. Order and
    augmentation depend on `draws` alone, not on torch's global generator nor on the device, and every pass continues
    the random numbers of the one before. Without `draws` all images come as they are, in order.

    Args:
        images: What to load.
        batch_size: Images per batch, at least 1.
        mean: (C,) subtracted from the images on the scale of 0 to 1, usually the training set's.
        std: (C,) positive, divided by afterwards.
        draws: Order and augmentation.

    Raises:
        ValueError: `batch_size` is below 1, or `mean` or `std` is not (C,), finite and (`std`) positive.
    """

    def __init__(
        self, images: ImageSet, batch_size: int, mean: Tensor, std: Tensor, draws: BatchDraws | None = None
    ) -> None:
        self._batch_size = integer("batch_size", batch_size, 1)
        _check_mean_std(images.images.shape[1], mean, std)
        self._images, self._draws = images, draws
        self._mean, self._std = (each[:, None, None].to(images.images.device) for each in (mean, std))

    def __len__(self) -> int:
        """Batches in a pass."""
        count = len(self._images) if self._draws is None else images_per_epoch(self._images, self._batch_size)
        return -(-count // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""
        images, labels = self._images.images, self._images.labels
        if self._draws is None:
            for part in zip(torch.split(images, self._batch_size), torch.split(labels, self._batch_size), strict=True):
                yield self._normalized(*part)
            return
        margin = max(1, min(images.shape[-2:]) // 14)
        order = self._draws.order(len(images))[: images_per_epoch(self._images, self._batch_size)]
        moves = [self._draws.moves(len(part), margin) for part in torch.split(order, self._batch_size)]
        # All of a pass goes to the device together.
        whole = [each.to(images.device) for each in (order, *map(torch.cat, zip(*moves, strict=True)))]
        for picked, *move in zip(*(torch.split(each, self._batch_size) for each in whole), strict=True):
            yield self._normalized(_moved(images[picked], Moves(*move), margin), labels[picked])

    def _normalized(self, images: Tensor, labels: Tensor) -> Batch:
        # As torchvision scales bytes; another order of the same operations has other last bits.
        return Batch((images.float() * (1 / 255) - self._mean) / self._std, labels, (), (), 0)


def _moved(images: Tensor, moves: Moves, margin: int) -> Tensor:
    """Each image (B, C, H, W) shifted and mirrored, zeros where nothing was."""
    height, width = images.shape[-2:]
    cell = torch.arange(max(height, width), device=images.device)
    column = torch.where(moves.mirrored[:, None], cell[:width].flip(0), cell[:width])
    rows, columns = moves.down[:, None] + cell[:height], moves.across[:, None] + column
    number = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices around a slice come first: (batch, height, width, channels).
    picked = F.pad(images, (margin,) * 4)[number, :, rows[:, :, None], columns[:, None, :]]
    # Not `contiguous`: of one channel it would leave strides that torch takes for another memory format.
    return picked.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _check_mean_std(channels: int, mean: Tensor, std: Tensor) -> None:
    for name, value in (("mean", mean), ("std", std)):
        if tuple(value.shape) != (channels,) or not bool(value.isfinite().all()):
            raise ValueError(
                f"{name}: expected {channels} finite numbers, one per channel, got {value.tolist()} "
                f"of shape {tuple(value.shape)}"
            )
    if not bool((std > 0).all()):
        raise ValueError(f"std: expected positive numbers, got {std.tolist()}")
