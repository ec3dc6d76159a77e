"""Images held in memory as tensors, and data sets made of them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, the class numbers.

    Raises:
        ValueError: A shape or dtype differs from these, the counts differ, or there is no image.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or len(self.images) == 0:
            raise ValueError(
                "images: expected (N, C, H, W) uint8 with N of at least 1, "
                f"got {tuple(self.images.shape)} {self.images.dtype}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels: expected ({len(self.images)},) int64, one for each image, "
                f"got {tuple(self.labels.shape)} {self.labels.dtype}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "ImageSet":
        """The same on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: what to train on, what to test on, and what the class numbers mean.

    Args:
        train: Images to train on.
        test: Images to test on, of the same channels and size.
        classes: Names of the classes, in the order of their numbers.
        name: What tables and result files call the data.
        skipped: Number of unreadable images left out.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    name: str
    skipped: int = 0

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.train.images.shape[-1]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def balanced(images: ImageSet, count: int) -> ImageSet:
    """The first `count` images with as many of each class as there are, give or take one; all where there are fewer."""
    kept = balanced_indices(images.labels, count).sort().values
    return images if len(kept) == len(images) else ImageSet(images.images[kept], images.labels[kept])


def balanced_indices(labels: Tensor, count: int) -> Tensor:
    """The first `count` of the labels (N,) with as many of each class as there are, give or take one, as indices."""
    # Rank within the class, then class.
    rank = torch.empty_like(labels)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        rank[members] = torch.arange(len(members))
    return rank.argsort(stable=True)[:count]
