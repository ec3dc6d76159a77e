"""Batches of images that are held in memory, made where the images are: on a GPU nothing is copied for a batch."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchdcls._checks import integer

from .batches import Batch
from .image_set import ImageSet
from .in_memory import images_per_epoch


class HeldBatches:
    """Normalized batches of images held in memory, on the device of the images.

    With a seed they are to train on: shuffled, cropped at random after padding by a fourteenth of their size, and
    mirrored at random; a last batch that is not full is left out, except where it is the only one. Order and
    augmentation depend on the seed alone, not on torch's global generator nor on the device, and every pass continues
    the random numbers of the one before. Without a seed all images come as they are, in order.

    Args:
        images: What to load.
        batch_size: Images per batch.
        mean: (C,) subtracted from the images on the scale of 0 to 1, usually the training set's.
        std: (C,) divided by afterwards.
        seed: Of order and augmentation.

    Raises:
        ValueError: `batch_size` is below 1, or `mean` or `std` is not (C,), finite and (`std`) positive.
    """

    def __init__(self, images: ImageSet, batch_size: int, mean: Tensor, std: Tensor, seed: int | None = None) -> None:
        self._batch_size = integer("batch_size", batch_size, 1)
        _check_mean_std(images.images.shape[1], mean, std)
        self._images = images
        self._random = None if seed is None else Generator().manual_seed(seed)
        self._mean, self._std = (each[:, None, None].to(images.images.device) for each in (mean, std))

    def __len__(self) -> int:
        """Batches in a pass."""
        count = len(self._images) if self._random is None else images_per_epoch(self._images, self._batch_size)
        return -(-count // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""
        images, labels = self._images.images, self._images.labels
        if self._random is None:
            for part in zip(torch.split(images, self._batch_size), torch.split(labels, self._batch_size), strict=True):
                yield self._normalized(*part)
            return
        margin = max(1, min(images.shape[-2:]) // 14)
        order = torch.randperm(len(images), generator=self._random)[: len(self) * self._batch_size]
        drawn = [self._draw(part, margin) for part in torch.split(order, self._batch_size)]
        # All of a pass goes to the device together.
        whole = [torch.cat(each).to(images.device) for each in zip(*drawn, strict=True)]
        for picked, down, across, mirrored in zip(
            *(torch.split(each, self._batch_size) for each in whole), strict=True
        ):
            yield self._normalized(_moved(images[picked], down, across, mirrored, margin), labels[picked])

    def _draw(self, picked: Tensor, margin: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The images of a batch (B,), and how each is augmented: shifts down and across, and whether it is mirrored."""
        # A batch at once: a GPU would wait for one image after the other.
        down, across = torch.randint(2 * margin + 1, (2, len(picked), 1), generator=self._random)[..., 0]
        return picked, down, across, torch.rand(len(picked), 1, generator=self._random)[:, 0] < 0.5

    def _normalized(self, images: Tensor, labels: Tensor) -> Batch:
        # As torchvision scales bytes; another order of the same operations has other last bits.
        return Batch((images.float() * (1 / 255) - self._mean) / self._std, labels, (), (), 0)


def _moved(images: Tensor, down: Tensor, across: Tensor, mirrored: Tensor, margin: int) -> Tensor:
    """Each image (B, C, H, W) shifted by (down, across) - margin cells, then mirrored or not; zeros where none was."""
    height, width = images.shape[-2:]
    cell = torch.arange(max(height, width), device=images.device)
    column = torch.where(mirrored[:, None], cell[:width].flip(0), cell[:width])
    rows, columns = down[:, None] + cell[:height], across[:, None] + column
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
