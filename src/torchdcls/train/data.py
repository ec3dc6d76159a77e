"""Images for training and testing, held in memory as tensors, and the loader that feeds them to a model.

Three sources: the subset of Fashion-MNIST inside the package, the whole of Fashion-MNIST, and a folder of images.
"""

import os
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import v2

from .._checks import integer
from .idx import read_idx
from .image_folder import read_image_folder

EMBEDDED_FILE = "fashion_mnist_subset.npz"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FASHION_MNIST_SIZE = 28
_FOLDER_IMAGE_SIZE = 64
_SMALLEST_IMAGE_SIZE = 8
# Images resized at once: bounds the float copy that resizing makes.
_RESIZE_CHUNK = 4096


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


def load_data(data: str | Path = "embedded", data_dir: Path | None = None, image_size: int | None = None) -> ImageData:
    """Loads a data set into memory (one byte per pixel and channel).

    Args:
        data: "embedded" for the subset of Fashion-MNIST inside the package (6,000 training and 1,000 test images),
            "fashion-mnist" for the whole of it (60,000 and 10,000), else the path of a folder with train/ and test/
            (or val/), one folder per class.
        data_dir: Where the files of "fashion-mnist" are, gzipped or plain, also as torchvision stores them in
            `FashionMNIST/raw` below it. None looks for Debian's package `dataset-fashion-mnist`, then downloads with
            torchvision to the user's cache.
        image_size: Height and width to resize to. None keeps 28 for Fashion-MNIST and takes 64 for a folder. Unit:
            pixels.

    Raises:
        ValueError: The data are missing, broken or not laid out as above; `image_size` is below 8; `data_dir` is given
            for other data than "fashion-mnist".

    Example:
        >>> data = load_data()
        >>> data.train.images.shape, data.num_classes
        (torch.Size([6000, 1, 28, 28]), 10)
    """
    if image_size is not None:
        image_size = integer("image_size", image_size, _SMALLEST_IMAGE_SIZE)
    if data_dir is not None and data != "fashion-mnist":
        raise ValueError(f"data_dir: expected None unless data is 'fashion-mnist', got '{data_dir}' with data='{data}'")
    if data == "embedded":
        train, test = _read_embedded()
        return _fashion_mnist("fashion-mnist-subset", train, test, image_size)
    if data == "fashion-mnist":
        train, test = read_fashion_mnist(data_dir) if data_dir is not None else _find_fashion_mnist()
        return _fashion_mnist("fashion-mnist", train, test, image_size)

    folder = Path(data).expanduser()
    found = read_image_folder(folder, image_size or _FOLDER_IMAGE_SIZE)
    return ImageData(
        train=ImageSet(found.train_images, found.train_labels),
        test=ImageSet(found.test_images, found.test_labels),
        classes=found.classes,
        name=folder.resolve().name,
        skipped=found.skipped,
    )


def read_fashion_mnist(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Reads the whole of Fashion-MNIST from its four idx files.

    Args:
        folder: Holds the files, gzipped or plain, itself or in `FashionMNIST/raw` or `raw` below it.

    Returns:
        Training and test images.

    Raises:
        ValueError: The folder or a file is missing, a file is broken, or the files do not fit each other.
    """
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"data_dir: expected a folder with the files of Fashion-MNIST, got '{folder}', which {came}")
    train_images, train_labels, test_images, test_labels = _idx_files(folder)
    return _read_idx_pair(train_images, train_labels), _read_idx_pair(test_images, test_labels)


def channel_mean_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all images and pixels, on the scale of 0 to 1.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        Two tensors (C,) float32. The deviation of a channel that is the same everywhere is given as 1, so that
        dividing by it is safe.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    # Counting the 256 levels is exact and needs no float copy of the images.
    counts = torch.stack([images[:, channel].flatten().bincount(minlength=256) for channel in range(images.shape[1])])
    weights = counts / counts.sum(dim=1, keepdim=True).double()
    mean = weights @ levels
    std = (weights * (levels - mean[:, None]) ** 2).sum(dim=1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def make_loader(
    images: ImageSet, batch_size: int, *, training: bool, seed: int, mean: Tensor, std: Tensor
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Loader of normalised batches: images (B, C, H, W) float32 and labels (B,) int64.

    For training the images are shuffled, cropped at random after padding by a fourteenth of their size, and mirrored at
    random; a last batch that is not full is left out, except where it is the only one. For testing they come as they
    are, all of them, in order.

    Order and augmentation depend on `seed` alone: they neither draw from torch's global generator nor change it. Every
    pass over the loader continues the random numbers of the one before. For an epoch that can be repeated by itself
    make a loader for it, with a seed of its own; nothing is copied.

    Args:
        images: What to load.
        batch_size: Images per batch, at least 1.
        training: Shuffle and augment.
        seed: Seed of order and augmentation; without effect for testing.
        mean: (C,) subtracted from the images on the scale of 0 to 1, usually the training set's.
        std: (C,) positive, divided by afterwards.

    Raises:
        ValueError: `batch_size` is below 1, or `mean` or `std` is not (C,), finite and (`std`) positive.
    """
    batch_size = integer("batch_size", batch_size, 1)
    _check_mean_std(images.images.shape[1], mean, std)
    order = Generator().manual_seed(seed)
    # Augmentation draws from a stream of its own, started from the loader's.
    augmentation_seed = int(torch.randint(2**62, (), generator=order))
    return DataLoader(
        _AugmentedImages(images, augmentation_seed) if training else _PlainImages(images),
        batch_size,
        shuffle=training,
        drop_last=training and len(images) >= batch_size,
        generator=order,
        collate_fn=_NormalisedBatch(mean, std),
    )


def images_per_epoch(images: ImageSet, batch_size: int) -> int:
    """How many images a pass over the training loader takes: those of a last batch that is not full are left out."""
    return len(images) // batch_size * batch_size or len(images)


class _PlainImages(Dataset[tuple[Tensor, Tensor]]):
    """The images as they are, with their labels."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images.images[index], self.images.labels[index]


class _AugmentedImages(_PlainImages):
    """The images shifted and mirrored at random, from a stream of random numbers that belongs to this object."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        super().__init__(images)
        height, width = images.images.shape[-2:]
        self.augment = v2.Compose(
            [v2.RandomCrop((height, width), padding=max(1, min(height, width) // 14)), v2.RandomHorizontalFlip()]
        )
        self.stream = Generator().manual_seed(seed).get_state()

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        # torchvision's transforms draw from the global generator and take no other: lend it this stream for a batch.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.stream)
            batch = [(self.augment(image), label) for image, label in map(self.__getitem__, indices)]
            self.stream = torch.get_rng_state()
        return batch


class _NormalisedBatch:
    """Stacks images and labels, then scales and normalises the whole batch at once."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.transform = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=mean.tolist(), std=std.tolist())]
        )

    def __call__(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, labels = zip(*samples, strict=True)
        return self.transform(torch.stack(images)), torch.stack(labels)


def _check_mean_std(channels: int, mean: Tensor, std: Tensor) -> None:
    for name, value in (("mean", mean), ("std", std)):
        if tuple(value.shape) != (channels,) or not bool(value.isfinite().all()):
            raise ValueError(
                f"{name}: expected {channels} finite numbers, one per channel, got {value.tolist()} "
                f"of shape {tuple(value.shape)}"
            )
    if not bool((std > 0).all()):
        raise ValueError(f"std: expected positive numbers, got {std.tolist()}")


def _read_embedded() -> tuple[ImageSet, ImageSet]:
    file = resources.files(__package__) / "embedded" / EMBEDDED_FILE
    with file.open("rb") as stream, np.load(stream) as arrays:
        train, test = (
            ImageSet(
                torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{split}_labels"]).long(),
            )
            for split in ("train", "test")
        )
    return train, test


def _find_fashion_mnist() -> tuple[ImageSet, ImageSet]:
    """Debian's files, else those downloaded before, else a download."""
    if DEBIAN_FOLDER.is_dir():
        return read_fashion_mnist(DEBIAN_FOLDER)
    cache = _cache_folder()
    if not (cache / "FashionMNIST").is_dir():
        try:
            _download_fashion_mnist(cache)
        except (RuntimeError, OSError, HTTPException) as error:
            # torchvision's message has a line for each mirror, the last of which tells the reason.
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ValueError(
                f"data: 'fashion-mnist' is not in '{DEBIAN_FOLDER}' and could not be downloaded to '{cache}' "
                f"({reason}); install it with `apt-get install dataset-fashion-mnist`, pass the folder of its idx "
                "files as --data-dir, or connect to the network"
            ) from None
    return read_fashion_mnist(cache)


def _download_fashion_mnist(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    # Moved into place at the end: an interrupted download leaves nothing that would be read as complete.
    with TemporaryDirectory(dir=cache) as unfinished:
        FashionMNIST(root=unfinished, download=True)
        (Path(unfinished) / "FashionMNIST").rename(cache / "FashionMNIST")


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "torchdcls"


def _idx_files(folder: Path) -> list[Path]:
    names = [f"{split}-{content}-ubyte" for split in ("train", "t10k") for content in ("images-idx3", "labels-idx1")]
    found: dict[str, Path] = {}
    for place in (folder, folder / "FashionMNIST" / "raw", folder / "raw"):
        # The plain file is read where both are there, as after torchvision's download.
        here = {name: path for name in names for path in (place / f"{name}.gz", place / name) if path.is_file()}
        found = max(found, here, key=len)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"data_dir: expected the four files of Fashion-MNIST, gzipped or plain, in '{folder}' or in "
            f"FashionMNIST/raw below it, got no {' and no '.join(missing)}; pass the folder that holds them"
        )
    return [found[name] for name in names]


def _read_idx_pair(image_file: Path, label_file: Path) -> ImageSet:
    images, labels = read_idx(image_file, dims=3), read_idx(label_file, dims=1)
    expected = (_FASHION_MNIST_SIZE, _FASHION_MNIST_SIZE)
    if len(images) == 0 or tuple(images.shape[1:]) != expected:
        raise ValueError(f"{image_file}: expected images of shape {expected}, got {tuple(images.shape)}")
    if len(labels) != len(images):
        raise ValueError(f"{label_file}: expected {len(images)} labels, one per image, got {len(labels)}")
    if int(labels.max()) >= len(FASHION_MNIST_CLASSES):
        raise ValueError(f"{label_file}: expected labels from 0 to 9, got {int(labels.max())}")
    return ImageSet(images.unsqueeze(1), labels.long())


def _fashion_mnist(name: str, train: ImageSet, test: ImageSet, image_size: int | None) -> ImageData:
    return ImageData(_resized(train, image_size), _resized(test, image_size), FASHION_MNIST_CLASSES, name)


def _resized(images: ImageSet, image_size: int | None) -> ImageSet:
    if image_size is None or tuple(images.images.shape[-2:]) == (image_size, image_size):
        return images
    resize = v2.Resize((image_size, image_size), antialias=True)
    return ImageSet(torch.cat([resize(chunk) for chunk in torch.split(images.images, _RESIZE_CHUNK)]), images.labels)
