"""The images of a study: training, validation and test, and batches of them on the device that trains."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchdcls_train.data.image_set import ImageSet, balanced, balanced_indices
from torchdcls_train.data.named import channel_mean_std, load_data

from .config import StudyConfig

# The split is one thing that all seeds of a study have in common.
_SPLIT_SEED = 20211207


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a study; nothing but the score of a final cell reads `test`.

    Args:
        training: What is trained on, in final cells too.
        validation: What settings are chosen by.
        test: What final cells are scored on, once.
        classes: Number of classes.
        name: What pages call the data.
    """

    training: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: int
    name: str

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.training.images.shape[1]

    def on(self, device: torch.device) -> "Images":
        """The same with training and validation images on a device; test images stay until they are scored."""
        training, validation = (
            ImageSet(part.images.to(device), part.labels.to(device)) for part in (self.training, self.validation)
        )
        return replace(self, training=training, validation=validation)


def load_images(config: StudyConfig) -> Images:
    """Loads the data and sets the validation images apart, as many of each class.

    Raises:
        ValueError: The data cannot be found, or nothing would be left to train on.
    """
    data = load_data(config.data, _data_dir(config), config.image_size)
    source = data.train if config.train_images is None else balanced(data.train, config.train_images)
    if config.validation_images >= len(source):
        raise ValueError(
            f"validation_images: expected fewer than the {len(source):,} training images, "
            f"got {config.validation_images:,}"
        )
    order = torch.randperm(len(source), generator=Generator().manual_seed(_SPLIT_SEED))
    apart = order[balanced_indices(source.labels[order], config.validation_images)].sort().values
    rest = torch.ones(len(source), dtype=torch.bool)
    rest[apart] = False
    return Images(
        training=ImageSet(source.images[rest], source.labels[rest]),
        validation=ImageSet(source.images[apart], source.labels[apart]),
        test=data.test,
        classes=data.num_classes,
        name=data.name,
    )


class TrainingBatches:
    """Batches of shuffled images, cropped at random after padding by a fourteenth of their size and mirrored at random.

    What a seed gives does not depend on the model that is trained, nor on the device. Unlike `make_loader` it takes a
    batch at once, keeps the images where the model is, and sends the random numbers of a whole pass there together: a
    GPU would wait for one after the other. A last batch that is not full is left out, except where it is the only one.

    Args:
        images: What to train on.
        batch_size: Images per batch.
        seed: Of order and augmentation.
        device: Where batches are made.
    """

    def __init__(self, images: ImageSet, batch_size: int, seed: int, device: torch.device) -> None:
        self._height, self._width = images.images.shape[-2:]
        self._margin = max(1, min(self._height, self._width) // 14)
        self._images = F.pad(images.images.to(device), (self._margin,) * 4)
        self._labels = images.labels.to(device)
        self._batch_size = batch_size
        self._random = Generator().manual_seed(seed)
        self._scale = _Scale(images, device)

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self._labels) // self._batch_size or 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        order = torch.randperm(len(self._labels), generator=self._random)[: len(self) * self._batch_size]
        device = self._images.device
        shifts, mirrored = zip(*(self._draw(len(part)) for part in torch.split(order, self._batch_size)), strict=True)
        down, across = torch.cat(shifts, 1).to(device)
        column = torch.arange(self._width, device=device)
        rows = down + torch.arange(self._height, device=device)
        columns = across + torch.where(torch.cat(mirrored).to(device), column.flip(0), column)
        order = order.to(device)
        for parts in zip(*(torch.split(each, self._batch_size) for each in (order, rows, columns)), strict=True):
            picked, rows_of, columns_of = parts
            # Indices around a slice come first: (batch, height, width, channels).
            batch = self._images[picked[:, None, None], :, rows_of[:, :, None], columns_of[:, None, :]]
            yield self._scale(batch.permute(0, 3, 1, 2).contiguous()), self._labels[picked]

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        # Shifts down and across, (2, count, 1), and whether to mirror, (count, 1).
        shift = torch.randint(2 * self._margin + 1, (2, count, 1), generator=self._random)
        return shift, torch.rand(count, 1, generator=self._random) < 0.5


class PlainBatches:
    """Batches of all images as they are, in order.

    Args:
        images: The images.
        training: The training images, by whose mean and deviation they are normalised.
        batch_size: Images per batch.
        device: Where batches are made.
    """

    def __init__(self, images: ImageSet, training: ImageSet, batch_size: int, device: torch.device) -> None:
        self._images, self._batch_size, self._device = images, batch_size, device
        self._scale = _Scale(training, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        for start in range(0, len(self._images), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield self._scale(self._images.images[part].to(self._device)), self._images.labels[part].to(self._device)


class _Scale:
    """Bytes to numbers of mean 0 and deviation 1 a channel."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        mean, std = channel_mean_std(images.images)
        self._mean, self._std = mean[:, None, None].to(device), std[:, None, None].to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self._mean) / self._std


def _data_dir(config: StudyConfig) -> Path | None:
    # The images in the package are nowhere else.
    return None if config.data == "embedded" else config.data_dir
