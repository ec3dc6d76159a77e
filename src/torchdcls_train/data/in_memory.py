"""Images for training and testing, held in memory as tensors.

Four sources: the subset of Fashion-MNIST inside the package, the whole of Fashion-MNIST, CIFAR-10, and a folder of
images.
"""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from torchdcls._checks import integer

from ..settings import MAX_IMAGE_PIXELS
from .cifar10 import CIFAR10_CLASSES, find_cifar10
from .fashion_mnist import FASHION_MNIST_CLASSES, find_fashion_mnist, read_embedded
from .image_folder import read_image_folder
from .image_set import ImageData, ImageSet

_FOLDER_IMAGE_SIZE = 64
_SMALLEST_IMAGE_SIZE = 8
# Images resized at once: bounds the float copy that resizing makes.
_RESIZE_CHUNK = 4096


def load_data(
    data: str | Path = "embedded",
    data_dir: Path | None = None,
    image_size: int | None = None,
    *,
    least_classes: int = 2,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> ImageData:
    """Loads a data set into memory (one byte per pixel and channel).

    Args:
        data: "embedded" for the subset of Fashion-MNIST inside the package (6,000 training and 1,000 test images),
            "fashion-mnist" for the whole of it (60,000 and 10,000), "cifar10" for CIFAR-10 (50,000 and 10,000), else
            the path of a folder with train/ and test/ (or val/), one folder per class.
        data_dir: Where the files of "fashion-mnist" or "cifar10" are. Those of "fashion-mnist" are gzipped or plain,
            also as torchvision stores them in `FashionMNIST/raw` below it; None looks for Debian's package
            `dataset-fashion-mnist`, then downloads with torchvision to the user's cache. `find_cifar10` says what
            "cifar10" reads.
        image_size: Height and width to resize to. None keeps 28 for Fashion-MNIST, 32 for CIFAR-10, and takes 64 for a
            folder. Unit: pixels.
        least_classes: How many classes a folder must have: 2 to train on, 1 to score.
        max_image_pixels: An image of a folder with more pixels counts as unreadable.

    Raises:
        ValueError: The data are missing, broken or not laid out as above; `image_size` is below 8; `data_dir` is given
            for other data than "fashion-mnist" and "cifar10".

    Example:
        >>> data = load_data()
        >>> data.train.images.shape, data.num_classes
        (torch.Size([6000, 1, 28, 28]), 10)
    """
    if image_size is not None:
        image_size = integer("image_size", image_size, _SMALLEST_IMAGE_SIZE)
    if data_dir is not None and data not in ("fashion-mnist", "cifar10"):
        raise ValueError(
            f"data_dir: expected None unless data is 'fashion-mnist' or 'cifar10', got '{data_dir}' with data='{data}'"
        )
    if data == "embedded":
        return _named("fashion-mnist-subset", *read_embedded(), FASHION_MNIST_CLASSES, image_size)
    if data == "fashion-mnist":
        return _named("fashion-mnist", *find_fashion_mnist(data_dir), FASHION_MNIST_CLASSES, image_size)
    if data == "cifar10":
        return _named("cifar10", *find_cifar10(data_dir), CIFAR10_CLASSES, image_size)

    folder = Path(data).expanduser()
    return read_image_folder(
        folder, image_size or _FOLDER_IMAGE_SIZE, least_classes=least_classes, max_image_pixels=max_image_pixels
    )


def channel_mean_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all images and pixels, on the scale of 0 to 1.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        Two tensors (C,) float32. The deviation of a channel that is the same everywhere is given as 1, so that
        dividing by it is safe.
    """
    levels = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    # Counting the 256 levels is exact and needs no float copy of the images.
    counts = torch.stack([images[:, channel].flatten().bincount(minlength=256) for channel in range(images.shape[1])])
    weights = counts / counts.sum(dim=1, keepdim=True).double()
    mean = weights @ levels
    std = (weights * (levels - mean[:, None]) ** 2).sum(dim=1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def images_per_epoch(images: ImageSet, batch_size: int) -> int:
    """How many images a pass of training takes: those of a last batch that is not full are left out."""
    return len(images) // batch_size * batch_size or len(images)


def _named(name: str, train: ImageSet, test: ImageSet, classes: tuple[str, ...], image_size: int | None) -> ImageData:
    return ImageData(_resized(train, image_size), _resized(test, image_size), classes, name)


def _resized(images: ImageSet, image_size: int | None) -> ImageSet:
    if image_size is None or tuple(images.images.shape[-2:]) == (image_size, image_size):
        return images
    resize = v2.Resize((image_size, image_size), antialias=True)
    return ImageSet(torch.cat([resize(chunk) for chunk in torch.split(images.images, _RESIZE_CHUNK)]), images.labels)
