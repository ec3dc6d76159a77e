"""Reads an image folder with train/ and test/ (or val/), one folder per class, into tensors.

Differs from `torchvision.datasets.ImageFolder` in that every image is decoded once at the start, so that a broken file
is met there and not in the middle of an epoch.
"""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import v2

from torchdcls._checks import also_nearest, alternatives, first_names

from ..settings import MAX_IMAGE_PIXELS
from . import NAMED
from .decoding import decode, reason
from .image_set import ImageData, ImageSet


class _Split(NamedTuple):
    images: list[Tensor]
    labels: list[int]
    unreadable: list[tuple[Path, str]]


def read_image_folder(
    folder: Path, image_size: int, *, least_classes: int = 2, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> ImageData:
    """Decodes all images of a folder; unreadable ones are left out, with one line about them on stderr.

    Images are cropped to their central square and resized. They are RGB, or keep one channel where every image of the
    folder is grayscale. Class numbers are the places of train/'s folder names in alphabetical order.

    Args:
        folder: Holds train/ and test/ (or val/, read where there is no test/), each with one folder per class.
        image_size: Height and width of the result. Unit: pixels.
        least_classes: 2 to train on, 1 to score.
        max_image_pixels: An image with more pixels counts as unreadable.

    Raises:
        ValueError: The folder is missing or not laid out as above, has fewer classes, a class in test/ that
            train/ lacks, a class without a readable training image, or no readable test image.
    """
    train_folder, test_folder = _split_folders(folder)
    classes = _class_names(train_folder)
    if len(classes) < least_classes:
        raise ValueError(
            f"data: expected at least two classes in '{train_folder}', got only '{classes[0]}'; add another"
        )
    check_classes(train_folder, classes, test_folder, _class_names(test_folder))

    class_to_index = {name: index for index, name in enumerate(classes)}
    train, test = (
        _decode_split(split_folder, class_to_index, image_size, max_image_pixels)
        for split_folder in (train_folder, test_folder)
    )
    unreadable = [*train.unreadable, *test.unreadable]
    _report_unreadable(unreadable, folder)
    _check_readable(train_folder, train, classes, test_folder, test)

    # One channel only where it loses nothing: a single color image makes all of them RGB.
    channels = max(image.shape[0] for image in (*train.images, *test.images))
    train_set, test_set = (
        ImageSet(torch.stack([image.expand(channels, -1, -1) for image in split.images]), torch.tensor(split.labels))
        for split in (train, test)
    )
    return ImageData(train_set, test_set, classes, folder.resolve().name, skipped=len(unreadable))


def check_folder(setting: str, expected: str, folder: Path) -> None:
    """Refuses what is no folder; `setting` begins the message, `expected` says what it was to be."""
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{setting}: expected {expected}, got '{folder}', which {came}")


def check_data_folder(folder: Path, layout: str, others: Sequence[str] = ()) -> None:
    """Refuses what is no folder.

    Args:
        folder: What the data setting names.
        layout: What it was to be, in words.
        others: What the setting takes besides names of data sets.
    """
    if not folder.exists():
        raise ValueError(
            f"data: expected {layout}, {alternatives((*NAMED, *others))}, got '{folder}', which does not exist; "
            "check the spelling of the name or path" + also_nearest(str(folder), NAMED)
        )
    if not folder.is_dir():
        raise ValueError(f"data: expected {layout}, got '{folder}', which is a file; pass the folder that holds train/")


def _split_folders(folder: Path) -> tuple[Path, Path]:
    layout = "a folder with train/ and test/ (or val/), one folder per class"
    check_data_folder(folder, layout)
    present = ", ".join(sorted(f"{entry.name}/" for entry in folder.iterdir() if entry.is_dir())) or "no folders"
    if not (folder / "train").is_dir():
        raise ValueError(
            f"data: expected {layout}, got '{folder}', which has no train/ ({present}); put the training images there"
        )
    for name in ("test", "val"):
        if (folder / name).is_dir():
            return folder / "train", folder / name
    raise ValueError(
        f"data: expected {layout}, got '{folder}', which has neither test/ nor val/ ({present}); "
        "make test/ and move some images of every class into it"
    )


def _class_names(split_folder: Path) -> tuple[str, ...]:
    # Hidden folders (.ipynb_checkpoints) are no classes.
    names = sorted(entry.name for entry in split_folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"data: expected one folder per class in '{split_folder}', got no folders; "
            f"move the images into one folder per class, for example '{split_folder}/cat/'"
        )
    return tuple(names)


def check_classes(train_folder: Path, train: Collection[str], other_folder: Path, other: Collection[str]) -> None:
    """Refuses classes that the folder to train on does not have."""
    unknown = sorted(set(other) - set(train))
    if unknown:
        raise ValueError(
            f"data: expected the classes of '{other_folder}' to be among those of '{train_folder}', "
            f"got {shortened(unknown)} besides; rename or remove these folders, or add training images of their classes"
        )


def _check_readable(
    train_folder: Path, train: _Split, classes: tuple[str, ...], test_folder: Path, test: _Split
) -> None:
    for split_folder, split in ((train_folder, train), (test_folder, test)):
        if not split.images:
            found = "no image files"
            if split.unreadable:
                first, why = split.unreadable[0]
                found = f"{len(split.unreadable)} files of which none can be read, first '{first.name}' ({why})"
            raise ValueError(
                f"data: expected images in the class folders of '{split_folder}', got {found}; "
                f"the formats read are {' '.join(IMG_EXTENSIONS)}"
            )
    seen = set(train.labels)
    missing = [name for index, name in enumerate(classes) if index not in seen]
    if missing:
        raise ValueError(
            f"data: expected a readable image of every class in '{train_folder}', got none of {shortened(missing)}; "
            "add images or remove the folder"
        )


def _decode_split(split_folder: Path, class_to_index: dict[str, int], image_size: int, max_image_pixels: int) -> _Split:
    samples = make_dataset(str(split_folder), class_to_index, extensions=IMG_EXTENSIONS, allow_empty=True)
    split = _Split([], [], [])
    console = Console(stderr=True)
    for file_name, label in track(
        samples,
        description=f"Reading {split_folder.name}/",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        path = Path(file_name)
        # Pillow's decoders answer broken files with many kinds of exception, SyntaxError and struct.error among them.
        try:
            image = _decode(path, image_size, max_image_pixels)
        except Exception as error:
            split.unreadable.append((path, reason(error)))
        else:
            split.images.append(image)
            split.labels.append(label)
    return split


def _decode(path: Path, image_size: int, max_image_pixels: int) -> Tensor:
    """One image as (1 or 3, image_size, image_size) uint8: one channel where the file is grayscale."""
    image = decode(path, max_image_pixels, upright=True)
    # Cropping first gives the same picture as resizing the short side first, and a panorama costs no more.
    square = v2.functional.center_crop(image, [min(image.size)])
    resized = v2.functional.resize(square, [image_size, image_size], antialias=True)
    pixels: Tensor = v2.functional.pil_to_tensor(resized)
    return pixels


def _report_unreadable(unreadable: Sequence[tuple[Path, str]], folder: Path) -> None:
    if unreadable:
        noun = "image" if len(unreadable) == 1 else "images"
        names = first_names([f"'{path.relative_to(folder)}' ({why})" for path, why in unreadable])
        print(f"Left out {len(unreadable)} unreadable {noun} of '{folder}': {names}", file=sys.stderr)


def shortened(names: Sequence[str]) -> str:
    """The first few names in quotes, and how many more there are."""
    return first_names([f"'{name}'" for name in names])
