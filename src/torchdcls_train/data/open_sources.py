"""Opens the data that the settings of a training run name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from torchdcls._extras import needed_by

from ..settings import NAMED, TrainConfig
from .image_folder import ENDINGS, FolderImages, check_data_folder
from .image_set import ImageSet, balanced_indices
from .in_memory import load_data
from .source_types import Images, Sources, Stream, Subset, chosen_splits, fingerprint, image_count


def open_sources(config: TrainConfig) -> Sources:
    """Opens training and validation images; none of them is decoded.

    Args:
        config: Says which, by `data`, `data_dir`, `train_split`, `val_split`, `train_images`, `val_images`,
            `input_key`, `target_key` and `num_classes`.

    Raises:
        ValueError: They are missing, not laid out as `data` says, or too few, or a package is missing; the message
            begins with the setting's name and says what to do.
    """
    kind, slash, name = config.data.partition("/")
    if config.data in NAMED:
        sources = _open_named(config)
    elif slash and kind in ("hfds", "hfids"):
        sources = _open_with_package(kind, name, config)
    elif config.data_dir is not None:
        raise ValueError(
            f"data_dir: expected None where data is itself a folder, got '{config.data_dir}' with data='{config.data}'"
        )
    elif slash and kind == "wds":
        sources = _open_with_package(kind, name, config)
    else:
        sources = _open_folder(config)
    if not image_count(sources.train):
        split = config.train_split or "train"
        raise ValueError(
            f"train_images: expected a number, since '{config.data}' does not say how many images '{split}' has"
        )
    there = len(sources.classes or ())
    if config.num_classes is not None and config.num_classes < there:
        raise ValueError(
            f"num_classes: expected at least {there}, as many as '{sources.name}' has, got {config.num_classes}; "
            "leave it out for as many"
        )
    return replace(
        sources,
        train=_part("train_images", config.train_images, sources.train),
        validation=_part("val_images", config.val_images, sources.validation),
    )


class MemoryImages:
    """Images of one or three channels held in memory, called "name[index]"."""

    def __init__(self, images: ImageSet, name: str) -> None:
        # In the layout of Pillow, which reads a row of it without a copy of its own.
        self.pixels = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        self.labels = images.labels.tolist()
        self._name = name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        pixels = self.pixels[index]
        return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).convert("RGB"), self.labels[index]

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def class_numbers(self) -> list[int]:
        return self.labels

    def fingerprint(self) -> str:
        return fingerprint((self.labels, self.pixels.shape, self.pixels.tobytes()))


def _open_named(config: TrainConfig) -> Sources:
    train, validation = chosen_splits(config.train_split, config.val_split, ("train", "test"), config.data)
    data = load_data(config.data, config.data_dir)
    splits = {"train": data.train, "test": data.test}
    return Sources(
        MemoryImages(splits[train], f"{data.name} {train}"),
        MemoryImages(splits[validation], f"{data.name} {validation}"),
        data.classes,
        data.num_classes,
        data.name,
    )


def _open_with_package(kind: str, name: str, config: TrainConfig) -> Sources:
    # What reads them is an extra of this package, and slow to import.
    with needed_by(f"data: '{config.data}'", "data"):
        if kind == "wds":
            from .shards import open_shards

            return open_shards(name, config)
        from .hugging_face import open_dataset, open_stream

        return open_dataset(name, config) if kind == "hfds" else open_stream(name, config)


def _open_folder(config: TrainConfig) -> Sources:
    folder = Path(config.data).expanduser()
    layout = "a folder with train/ and val/ (or validation/ or test/), one folder per class"
    check_data_folder(folder, layout, ("wds/FOLDER", "hfds/NAME", "hfids/NAME"))
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    for split in (config.train_split, config.val_split):
        # A split may lie deeper (data/train), or elsewhere.
        if split is not None and (folder / split).is_dir():
            present.append(split)
    endings = ENDINGS if config.input_key is None else config.input_key.split(";")
    train_split, val_split = chosen_splits(config.train_split, config.val_split, present, str(folder))
    train = FolderImages(folder / train_split, endings, config.max_image_pixels)
    validation = FolderImages(folder / val_split, endings, config.max_image_pixels, like=train)
    return Sources(train, validation, train.classes, len(train.classes), folder.resolve().name)


def _part(setting: str, count: int | None, source: Images | Stream) -> Images | Stream:
    """As many images as asked for, the same number of each class; a stream cuts itself."""
    there = source.there if isinstance(source, Stream) else len(source)
    if count is not None and there is not None and count > there:
        raise ValueError(f"{setting}: expected at most {there}, as many as there are, got {count}")
    if count is None or isinstance(source, Stream) or count == there:
        return source
    indices = balanced_indices(torch.tensor(source.class_numbers()), count).sort().values
    return Subset(source, indices.tolist())
