"""Fashion-MNIST: the subset inside the package, Debian's package, or a download."""

import gzip
import math
import struct
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from .downloads import downloaded
from .image_folder import check_folder
from .image_set import ImageSet

EMBEDDED_FILE = "fashion_mnist_subset.npz"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_SHAPE = (28, 28)
_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_embedded() -> tuple[ImageSet, ImageSet]:
    """The subset inside the package: 6,000 training and 1,000 test images."""
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


def find_fashion_mnist(data_dir: Path | None) -> tuple[ImageSet, ImageSet]:
    """The whole of Fashion-MNIST from a folder, else Debian's files, else those downloaded before, else a download.

    Raises:
        ValueError: The files are missing, broken or cannot be fetched.
    """
    if data_dir is not None:
        return read_fashion_mnist(data_dir)
    if DEBIAN_FOLDER.is_dir():
        return read_fashion_mnist(DEBIAN_FOLDER)
    folder = downloaded(
        "FashionMNIST",
        lambda root: FashionMNIST(root=root, download=True),
        missing=f"'fashion-mnist' is not in '{DEBIAN_FOLDER}' and",
        advice="install it with `apt-get install dataset-fashion-mnist`, "
        "pass the folder of its idx files as --data-dir",
    )
    return read_fashion_mnist(folder.parent)


def read_fashion_mnist(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Reads training and test images from the four idx files of the whole of Fashion-MNIST.

    Args:
        folder: Holds the files, gzipped or plain, itself or in `FashionMNIST/raw` or `raw` below it.

    Raises:
        ValueError: The folder or a file is missing, a file is broken, or the files do not fit each other.
    """
    check_folder("data_dir", "a folder with the files of Fashion-MNIST", folder)
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
    return _read_pair(found[names[0]], found[names[1]]), _read_pair(found[names[2]], found[names[3]])


def _read_pair(image_file: Path, label_file: Path) -> ImageSet:
    images, labels = read_idx(image_file, dims=3), read_idx(label_file, dims=1)
    if len(images) == 0 or tuple(images.shape[1:]) != _SHAPE:
        raise ValueError(f"{image_file}: expected images of shape {_SHAPE}, got {tuple(images.shape)}")
    if len(labels) != len(images):
        raise ValueError(f"{label_file}: expected {len(images)} labels, one per image, got {len(labels)}")
    if int(labels.max()) >= len(FASHION_MNIST_CLASSES):
        raise ValueError(f"{label_file}: expected labels from 0 to 9, got {int(labels.max())}")
    return ImageSet(images.unsqueeze(1), labels.long())


def read_idx(path: Path, dims: int) -> Tensor:
    """The array of unsigned bytes in an idx file, the format of MNIST and its relatives.

    torchvision reads no files that were compressed again, as Linux distributions have them.

    Args:
        path: File, plain or gzipped (told by its content, not by its name).
        dims: Number of axes the array must have.

    Raises:
        ValueError: The file cannot be read, is no idx file of unsigned bytes with `dims` axes, or is shorter or longer
            than its header says. The message names the file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP_MAGIC:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable idx file, plain or gzipped, got {error}") from None
    start = 4 + 4 * dims
    magic = bytes([0, 0, _UNSIGNED_BYTE, dims])
    if content[:4] != magic or len(content) < start:
        raise ValueError(
            f"{path}: expected an idx file of unsigned bytes with {dims} axes (first bytes {magic.hex(' ')}), "
            f"got {content[:4].hex(' ') or 'an empty file'}; fetch the file again"
        )
    shape = struct.unpack_from(f">{dims}I", content, 4)
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path}: expected {start + math.prod(shape)} bytes for an array of shape {shape}, got {len(content)}; "
            "fetch the file again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
