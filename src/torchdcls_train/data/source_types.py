"""What yields images: a source that is read in any order, and one that is read as a stream."""

import hashlib
import io
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import fsspec
from PIL import Image

from torchdcls._checks import first_names

from ..settings import MAX_IMAGE_PIXELS
from .decoding import decode


class DataError(ValueError):
    """Data that cannot be used at all; differs from what an unreadable image raises, which is replaced or left out."""


class Images(Protocol):
    """Images that can be read in any order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An image in RGB and its class number.

        Raises:
            DataError: Its label cannot be used.
            Exception: Any other says that the image cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """Where the image comes from, for error messages; the image is not read."""
        ...

    def class_numbers(self) -> list[int]:
        """The class number of every image; no image is read.

        Raises:
            DataError: A label cannot be used.
        """
        ...

    def fingerprint(self) -> str:
        """Another text where there are other images or labels, as far as can be told without decoding them."""
        ...


@dataclass(frozen=True)
class Subset:
    """The images of a source that have these indices."""

    source: Images
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.source[self.indices[index]]

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def class_numbers(self) -> list[int]:
        numbers = self.source.class_numbers()
        return [numbers[index] for index in self.indices]

    def fingerprint(self) -> str:
        return fingerprint((self.source.fingerprint(), list(self.indices)))


class Share(NamedTuple):
    """Which part of a stream is read, and in which order: that of one of `workers` readers in one of `world` processes.

    The order depends on the run's `seed`, on the `epoch`, and on how many times the reader has come to the end of its
    part in this epoch, `again`.
    """

    seed: int
    epoch: int
    again: int
    rank: int
    world: int
    worker: int
    workers: int


class Encoded(NamedTuple):
    """An image of a stream before it is decoded.

    Its content is the bytes of its file, or the path or address of that file; None where the sample has no image.
    """

    name: str
    content: bytes | str | None
    label: int
    max_pixels: int = MAX_IMAGE_PIXELS

    def image(self) -> Image.Image:
        """The image in RGB; any exception says that it cannot be read."""
        if self.content is None:
            raise ValueError("no image in the sample; input_key says where images are")
        if isinstance(self.content, bytes):
            return read_rgb(io.BytesIO(self.content), self.max_pixels)
        with fsspec.open(self.content, "rb") as file:
            return read_rgb(file, self.max_pixels)


class Stream(ABC):
    """Images that are read one after the other, in shards that are divided among processes and their readers.

    `count` of the `there` images are taken; None where a number is unknown.
    """

    count: int | None
    there: int | None

    @abstractmethod
    def readers(self, world: int) -> int:
        """How many readers of each process can have images of their own, where there are `world` processes."""

    @abstractmethod
    def read(self, share: Share) -> Iterator[Encoded]:
        """One pass over a part, shuffled where the stream is one to train on. The parts together are all images.

        Raises:
            DataError: What the images are read from is broken, or a label cannot be used.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Another text where there are other images, as far as can be told without reading them."""


def image_count(source: Images | Stream) -> int | None:
    """Number of images, None where it is unknown."""
    return source.count if isinstance(source, Stream) else len(source)


@dataclass(frozen=True)
class Sources:
    """What to train and to validate on.

    Names of the classes are None where the data do not tell them, their number where the settings do not either.
    """

    train: Images | Stream
    validation: Images | Stream
    classes: tuple[str, ...] | None
    num_classes: int | None
    name: str

    def identity(self) -> dict[str, dict[str, Any]]:
        """By what the images are known again: their number and fingerprint."""
        return {
            split: {"images": image_count(source), "fingerprint": source.fingerprint()}
            for split, source in (("training", self.train), ("validation", self.validation))
        }


def read_rgb(file: BinaryIO | Path, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """The image of a file in RGB, as `decode` reads it; any exception says that it cannot be read.

    It is not turned upright as a camera's note in the file may ask: the usual figures for ImageNet are of images that
    were not.
    """
    return decode(file, max_pixels).convert("RGB")


def checked_label(label: object, num_classes: int | None, name: str) -> int:
    """The label as an int.

    Raises:
        DataError: It is no class number.
    """
    bound = "" if num_classes is None else f" below {num_classes}"
    try:
        number = operator.index(label)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0 or (num_classes is not None and number >= num_classes):
        raise DataError(
            f"data: expected a class number{bound} as the label of '{name}', got {label!r}; "
            "target_key says where labels are, num_classes how many there can be"
        )
    return number


def chosen_splits(train: str | None, validation: str | None, present: Sequence[str], place: str) -> tuple[str, str]:
    """The splits to train and to validate on, of those that are present at a place, as the settings say.

    Raises:
        ValueError: A split that is not there.
    """
    there = shortened(present) or "none"
    train = train or "train"
    if train not in present:
        raise ValueError(f"train_split: expected one of the splits of '{place}' ({there}), got '{train}'")
    validation = validation or next((name for name in ("val", "validation", "test") if name in present), None)
    if validation is None:
        raise ValueError(
            f"val_split: expected val, validation or test among the splits of '{place}', got {there}; "
            "name the one to validate on"
        )
    if validation not in present:
        raise ValueError(f"val_split: expected one of the splits of '{place}' ({there}), got '{validation}'")
    return train, validation


def shortened(names: Sequence[str]) -> str:
    """The first few names in quotes, and how many more there are."""
    return first_names([f"'{name}'" for name in names])


def fingerprint(parts: Iterable[object]) -> str:
    """A short text that is another one where a part is another one: names, labels, or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else f"{part!r}\n".encode())
    return digest.hexdigest()[:32]
