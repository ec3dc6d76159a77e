"""Images of Hugging Face's datasets, on disk or streamed, through timm's readers."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import datasets
from PIL import Image
from timm.data.readers.reader_factory import create_reader

from ..settings import TrainConfig
from .fingerprint import fingerprint
from .random_numbers import seed_of
from .source_types import DataError, Encoded, Share, Sources, Stream, checked_label, chosen_splits, read_rgb

# What reading a dataset raises, from an unknown name to a missing column, has no end.
_ANYTHING = Exception


def open_dataset(name: str, config: TrainConfig) -> Sources:
    """Opens a dataset that is read from disk, in any order; it is fetched first where it is not there.

    Args:
        name: Of the dataset, or the path of a folder that `datasets.load_dataset` takes.
        config: Settings; `data_dir` is where fetched datasets are kept.

    Raises:
        ValueError: There is no such dataset, split or column.
    """
    splits = _splits(name, config)
    train, validation = (_reader("hfds", name, split, config) for split in splits)
    # The reader adds a column of nothing where there is none.
    row = train.dataset[0] if len(train) > 0 else {}
    _check_columns(config, name, [column for column, content in row.items() if content is not None])
    classes = tuple(train.class_to_idx) or None
    num_classes = config.num_classes if classes is None else len(classes)
    return Sources(
        _DatasetImages(train, num_classes, f"{name} {splits[0]}", config.max_image_pixels),
        _DatasetImages(validation, num_classes, f"{name} {splits[1]}", config.max_image_pixels),
        classes,
        num_classes,
        name,
    )


def open_stream(name: str, config: TrainConfig) -> Sources:
    """Opens a dataset that is fetched while it is read.

    Args:
        name: Of the dataset, or the path of a folder that `datasets.load_dataset` takes.
        config: Settings; `data_dir` is where its descriptions are kept.

    Raises:
        ValueError: There is no such dataset, split or column.
    """
    train_split, validation_split = _splits(name, config)
    train = _DatasetStream(name, train_split, config, training=True)
    validation = _DatasetStream(name, validation_split, config, training=False)
    return Sources(train, validation, train.classes, train.num_classes, name)


def _splits(name: str, config: TrainConfig) -> tuple[str, str]:
    try:
        present = list(datasets.get_dataset_split_names(name))
    except _ANYTHING as error:
        raise ValueError(
            f"data: expected a dataset of Hugging Face or the path of one behind 'hfds/' or 'hfids/', got '{name}' "
            f"({_reason(error)}); check its spelling and the connection to the network"
        ) from None
    # Parts of splits such as train[:90%] are for the library to understand.
    parts = [split for split in (config.train_split, config.val_split) if split and ("[" in split or "+" in split)]
    return chosen_splits(config.train_split, config.val_split, [*present, *parts], name)


def _reader(kind: str, name: str, split: str, config: TrainConfig, **further: Any) -> Any:
    try:
        return create_reader(
            f"{kind}/{name}",
            root=None if config.data_dir is None else str(config.data_dir.expanduser()),
            split=split,
            input_key=config.input_key,
            target_key=config.target_key,
            **further,
        )
    except _ANYTHING as error:
        column = config.input_key or "image"
        raise ValueError(
            f"data: expected the split '{split}' of '{name}' with images in the column '{column}', got "
            f"{_reason(error)}; input_key names another column"
        ) from None


def _check_columns(config: TrainConfig, name: str, columns: Collection[str]) -> None:
    for setting, column in (("input_key", config.input_key or "image"), ("target_key", config.target_key or "label")):
        if column not in columns:
            raise ValueError(f"{setting}: expected a column of '{name}' ({', '.join(columns)}), got '{column}'")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


@dataclass(frozen=True)
class _DatasetImages:
    """The rows of a split on disk, by timm's reader."""

    reader: Any
    num_classes: int | None
    split: str
    max_pixels: int

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.reader[index]
        with file:
            return read_rgb(file, self.max_pixels), checked_label(label, self.num_classes, self.name(index))

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def class_numbers(self) -> list[int]:
        labels = self.reader.dataset[self.reader.label_key]
        return [checked_label(label, self.num_classes, self.name(index)) for index, label in enumerate(labels)]

    def fingerprint(self) -> str:
        # A row has no name; the library's own fingerprint depends on where the files are.
        column = self.reader.label_key
        rows = self.reader.dataset.select_columns([column])
        return fingerprint(batch[column] for batch in rows.iter(1000))


class _DatasetStream(Stream):
    """The rows of a split, shuffled by shards and then within a buffer where they are to train on."""

    def __init__(self, name: str, split: str, config: TrainConfig, *, training: bool) -> None:
        # timm refuses a length of None; its own is not used.
        self.reader = _reader("hfids", name, split, config, num_samples=1, is_training=training)
        self.name, self.split = f"{name} {split}", split
        self.max_pixels = config.max_image_pixels
        try:
            rows = self.reader.builder.as_streaming_dataset(split=split)
            # Where nothing describes the columns, the first rows tell.
            features = rows.features or rows._resolve_features().features
        except _ANYTHING as error:
            raise ValueError(f"data: expected the split '{split}' of '{name}', got {_reason(error)}") from None
        _check_columns(config, name, features)
        self.classes: tuple[str, ...] | None = tuple(getattr(features[self.reader.target_key], "names", ())) or None
        self.num_classes = config.num_classes if self.classes is None else len(self.classes)
        described = (self.reader.builder.info.splits or {}).get(split)
        self.there = (described.num_examples if described is not None else None) or None
        self.count = (config.train_images if training else config.val_images) or self.there
        self.shards: int = rows.num_shards
        self._rows: Any = None
        self._rows_of: tuple[int, ...] = ()

    def fingerprint(self) -> str:
        files = (self.reader.builder.config.data_files or {}).items()
        names = [(split, str(file).rpartition("/")[2]) for split, found in files for file in found]
        return fingerprint((self.split, self.count, self.shards, self.classes, names))

    def readers(self, world: int) -> int:
        # Where shards cannot be dealt out evenly, every process reads all of them and keeps each world-th image.
        return self.shards // world if self.shards % world == 0 else self.shards

    def read(self, share: Share) -> Iterator[Encoded]:
        if self._rows_of != (share.rank, share.world, share.workers):
            self._rows, self._rows_of = self._open(share), (share.rank, share.world, share.workers)
        self._rows.set_epoch(seed_of("rows", share.seed, share.epoch, share.again) % 2**31)
        rows = iter(self._rows)
        for number in itertools.count():
            try:
                row = next(rows, None)
            except _ANYTHING as error:
                raise DataError(
                    f"data: expected readable rows of '{self.name}', got {_reason(error)} after {number} rows of "
                    f"reader {share.worker} of process {share.rank}"
                ) from None
            if row is None:
                return
            image = row[self.reader.input_key] or {"bytes": None, "path": None}
            place = image["path"] or f"row {number} of reader {share.worker} of process {share.rank}"
            name = f"{self.name}: {place}"
            label = checked_label(row[self.reader.target_key], self.num_classes, name)
            yield Encoded(name, image["bytes"] or image["path"], label, self.max_pixels)

    def _open(self, share: Share) -> Any:
        """The rows of this process, not decoded; those of its readers are divided by the library itself."""
        reader = self.reader
        reader.dist_rank, reader.dist_num_replicas = share.rank, share.world
        reader.num_workers = share.workers
        # timm shuffles and divides here, as its own iterator does.
        reader._lazy_init()
        return reader.ds.cast_column(reader.input_key, datasets.Image(decode=False))
