"""CIFAR-10: from a folder, in torchvision's layout or as one file of arrays, or a download."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from .downloads import downloaded
from .image_folder import check_folder
from .image_set import ImageSet

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILE = "cifar10.npz"

_BATCHES = "cifar-10-batches-py"


def find_cifar10(data_dir: Path | None) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 from a folder, else what was downloaded before, else a download.

    Args:
        data_dir: Holds `cifar10.npz` (`train_images` and `test_images`, (N, 32, 32, 3) uint8, `train_labels` and
            `test_labels`, (N,) of any integer type), or `cifar-10-batches-py` as torchvision unpacks it, or is that
            folder. None for the user's cache.

    Returns:
        Training and test images, (N, 3, 32, 32).

    Raises:
        ValueError: The files are missing, broken or cannot be fetched.
    """
    if data_dir is None:
        return _read_batches(
            downloaded(
                _BATCHES,
                lambda root: CIFAR10(root=root, download=True),
                missing="'cifar10'",
                advice=f"pass a folder with {_BATCHES}/ or {CIFAR10_FILE} as --data-dir",
            )
        )
    check_folder("data_dir", "a folder with the files of CIFAR-10", data_dir)
    if (data_dir / CIFAR10_FILE).is_file():
        return _read_arrays(data_dir / CIFAR10_FILE)
    for folder in (data_dir / _BATCHES, data_dir):
        if folder.name == _BATCHES and folder.is_dir():
            return _read_batches(folder)
    raise ValueError(
        f"data_dir: expected {CIFAR10_FILE} or the folder {_BATCHES}/ of CIFAR-10 in '{data_dir}', got neither; "
        "pass the folder that holds one of them"
    )


def _read_batches(folder: Path) -> tuple[ImageSet, ImageSet]:
    # The files are pickles: torchvision opens them only where their checksums are those of the published ones.
    try:
        parts = [CIFAR10(root=str(folder.absolute().parent), train=train) for train in (True, False)]
    except RuntimeError as error:
        raise ValueError(
            f"data: expected the files of CIFAR-10 as published in '{folder}', got others ({error}); "
            "remove the folder and fetch them again"
        ) from None
    train, test = (_image_set(str(folder), part.data, np.asarray(part.targets)) for part in parts)
    return train, test


def _read_arrays(file: Path) -> tuple[ImageSet, ImageSet]:
    names = [f"{split}_{content}" for split in ("train", "test") for content in ("images", "labels")]
    try:
        with np.load(file) as arrays:
            missing = [name for name in names if name not in arrays]
            read = [arrays[name] for name in names if name not in missing]
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"data_dir: expected a file of arrays in '{file}', got {error}; write it again") from None
    if missing:
        raise ValueError(
            f"data_dir: expected the arrays {', '.join(names)} in '{file}', got no {' and no '.join(missing)}; "
            "write it again"
        )
    return _image_set(str(file), read[0], read[1]), _image_set(str(file), read[2], read[3])


def _image_set(place: str, images: np.ndarray, labels: np.ndarray) -> ImageSet:
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) == 0:
        raise ValueError(
            f"data_dir: expected images (N, 32, 32, 3) uint8 in '{place}', got {images.shape} {images.dtype}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"data_dir: expected {len(images)} whole numbers as labels in '{place}', one per image, "
            f"got {labels.shape} {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"data_dir: expected labels from 0 to 9 in '{place}', got {labels.min()} to {labels.max()}")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return ImageSet(pixels, torch.from_numpy(labels.astype(np.int64)))
