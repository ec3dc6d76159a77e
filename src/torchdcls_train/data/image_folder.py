"""Image folders: each split has one folder per class. Training reads them image by image, comparisons all at once."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from timm.utils.misc import natural_key
from torch import Tensor
from torchvision.transforms import v2

from torchdcls._checks import also_nearest, alternatives, first_names

from ..settings import MAX_IMAGE_PIXELS, NAMED
from .decoding import decode, reason
from .image_set import ImageData, ImageSet
from .source_types import fingerprint, read_rgb, shortened

ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class FolderImages:
    """The images of a split, a folder with one folder per class; none is decoded before it is asked for.

    Args:
        folder: The split.
        endings: What the names of image files end in.
        max_pixels: The most pixels of an image that are decoded.
        like: The split whose class numbers are taken; None numbers its own classes in natural order (2 before 10).
        empty_classes: Whether a folder without images is a class.

    Raises:
        ValueError: There is no class, there are images outside of classes or in hidden folders, or a class that `like`
            does not have.
    """

    def __init__(
        self,
        folder: Path,
        endings: Sequence[str] = ENDINGS,
        max_pixels: int = MAX_IMAGE_PIXELS,
        *,
        like: "FolderImages | None" = None,
        empty_classes: bool = False,
    ) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        files = _class_files(folder, endings)
        files = {name: found for name, found in files.items() if found or empty_classes}
        if not files:
            raise ValueError(
                f"data: expected images in the class folders of '{folder}', got none that ends in {';'.join(endings)}; "
                "input_key takes other endings, such as '.jfif;.png'"
            )
        self.classes: tuple[str, ...] = tuple(files) if like is None else like.classes
        if like is not None and (unknown := sorted(set(files) - set(self.classes))):
            raise ValueError(
                f"data: expected the classes of '{folder}' to be among those of '{like.folder}', got "
                f"{shortened(unknown)} besides; rename or remove these folders, or add training images of their classes"
            )
        samples = [(file, self.classes.index(name)) for name, found in files.items() for file in found]
        # As timm's readers order them.
        self.samples = sorted(samples, key=lambda sample: natural_key(str(sample[0])))  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.samples[index]
        return read_rgb(file, self.max_pixels), label

    def name(self, index: int) -> str:
        return str(self.samples[index][0])

    def class_numbers(self) -> list[int]:
        return [label for _, label in self.samples]

    def fingerprint(self) -> str:
        # From the split's folder on, which may have been moved.
        return fingerprint((str(file.relative_to(self.folder)), label) for file, label in self.samples)


def _class_files(folder: Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """The image files in and below each class folder of a split."""
    ends = tuple(endings)
    entries = sorted(folder.iterdir(), key=lambda entry: natural_key(entry.name))  # type: ignore[no-untyped-call]
    found = {
        entry.name: [
            Path(place, name)
            for place, _, names in os.walk(entry, followlinks=True)
            for name in names
            if name.lower().endswith(ends)
        ]
        for entry in entries
        if entry.is_dir()
    }
    # Empty ones (.ipynb_checkpoints) are no classes.
    if hidden := [name for name in list(found) if name.startswith(".") and found.pop(name)]:
        raise ValueError(
            f"data: expected folders of classes in '{folder}', got images in {shortened(hidden)}, which is hidden; "
            "remove it"
        )
    if not found:
        raise ValueError(
            f"data: expected one folder per class in '{folder}', got no folders; "
            f"move the images into one folder per class, for example '{folder}/cat/'"
        )
    if loose := [entry.name for entry in entries if entry.is_file() and entry.name.lower().endswith(ends)]:
        raise ValueError(
            f"data: expected one folder per class in '{folder}', got images in none of them, such as '{loose[0]}'; "
            "move them into the folders of their classes"
        )
    return found


class _Split(NamedTuple):
    """Decoded images of a folder, and the files that cannot be read, with the reason."""

    folder: Path
    images: list[Tensor]
    labels: list[int]
    unreadable: list[tuple[Path, str]]


def read_image_folder(
    folder: Path, image_size: int, *, least_classes: int = 2, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> ImageData:
    """Decodes all images of a folder; unreadable ones are left out, with one line about them on stderr.

    Images are cropped to their central square and resized. They are RGB, or keep one channel where every image of the
    folder is grayscale.

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
    own = FolderImages(train_folder, max_pixels=max_image_pixels, empty_classes=True)
    classes = own.classes
    if len(classes) < least_classes:
        raise ValueError(
            f"data: expected at least two classes in '{train_folder}', got only '{classes[0]}'; add another"
        )
    other = FolderImages(test_folder, max_pixels=max_image_pixels, like=own, empty_classes=True)
    train, test = (_decode_split(images, image_size) for images in (own, other))
    unreadable = [*train.unreadable, *test.unreadable]
    if unreadable:
        noun = "image" if len(unreadable) == 1 else "images"
        names = first_names([f"'{path.relative_to(folder)}' ({why})" for path, why in unreadable])
        print(f"Left out {len(unreadable)} unreadable {noun} of '{folder}': {names}", file=sys.stderr)
    _check_readable(train, test, classes)

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
    """Refuses what is no folder; `layout` says what it was to be, `others` what the setting takes besides names."""
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


def _check_readable(train: _Split, test: _Split, classes: tuple[str, ...]) -> None:
    for split in (train, test):
        if not split.images:
            found = "no image files"
            if split.unreadable:
                first, why = split.unreadable[0]
                found = f"{len(split.unreadable)} files of which none can be read, first '{first.name}' ({why})"
            raise ValueError(
                f"data: expected images in the class folders of '{split.folder}', got {found}; "
                f"the formats read are {' '.join(ENDINGS)}"
            )
    if missing := [name for index, name in enumerate(classes) if index not in set(train.labels)]:
        raise ValueError(
            f"data: expected a readable image of every class in '{train.folder}', got none of {shortened(missing)}; "
            "add images or remove the folder"
        )


def _decode_split(images: FolderImages, image_size: int) -> _Split:
    split = _Split(images.folder, [], [], [])
    console = Console(stderr=True)
    shown = f"Reading {images.folder.name}/"
    for path, label in track(images.samples, shown, console=console, transient=True, disable=not console.is_terminal):
        # Pillow's decoders answer broken files with many kinds of exception, SyntaxError and struct.error among them.
        try:
            image = _decode(path, image_size, images.max_pixels)
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
