"""The images of a study: training, validation and test."""

from dataclasses import dataclass, replace

import torch
from torch import Generator

from torchdcls_train.data.image_set import ImageSet, balanced, balanced_indices
from torchdcls_train.data.in_memory import load_data

from .config import StudyConfig

# The split is one thing that all seeds of a study have in common.
_SPLIT_SEED = 20211207


@dataclass(frozen=True, eq=False)
class StudyImages:
    """The images of a study; nothing but the score of a final cell reads `test`."""

    training: ImageSet  # what is trained on, in final cells too
    validation: ImageSet  # what settings are chosen by
    test: ImageSet  # what final cells are scored on, once
    classes: int
    name: str  # what pages call the data

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.training.images.shape[1]

    def on(self, device: torch.device) -> "StudyImages":
        """The same with training and validation images on a device; test images stay until they are scored."""
        return replace(self, training=self.training.to(device), validation=self.validation.to(device))


def load_images(config: StudyConfig) -> StudyImages:
    """Loads the data and sets the validation images apart, as many of each class.

    Raises:
        ValueError: The data cannot be found, or nothing would be left to train on.
    """
    # The images in the package are nowhere else.
    data = load_data(config.data, None if config.data == "embedded" else config.data_dir, config.image_size)
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
    return StudyImages(
        training=ImageSet(source.images[rest], source.labels[rest]),
        validation=ImageSet(source.images[apart], source.labels[apart]),
        test=data.test,
        classes=data.num_classes,
        name=data.name,
    )
