"""Images of Hugging Face's datasets, on disk or streamed."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import datasets
from datasets.distributed import split_dataset_by_node
from PIL import Image

from ..settings import TrainConfig
from .random_numbers import seed_of
from .source_types import DataError, Encoded, Share, Sources, Stream, checked_label, chosen_splits, fingerprint

# What reading a dataset raises, from an unknown name to a missing column, has no end.
_ANYTHING = Exception
# As timm shuffles, with whose reader older runs were begun: seed, rows, and shards that are mixed at most.
_SEED, _BUFFER, _MIXED_SHARDS = 42, 4096, 10


def open_dataset(name: str, config: TrainConfig) -> Sources:
    """Opens a dataset that is read from disk, in any order; it is fetched first where it is not there.

    Args:
        name: Of the dataset, or the path of a folder that `datasets.load_dataset` takes.
        config: Settings; `data_dir` is where fetched datasets are kept.

    Raises:
        ValueError: There is no such dataset, split or column.
    """
    splits = _splits(name, config)
    train, validation = (
        _opened(name, split, partial(datasets.load_dataset, name, split=split, cache_dir=_cache(config)))
        for split in splits
    )
    classes, num_classes = _classes(train.column_names, train.features, name, config)
    return Sources(
        _DatasetImages(train, config, num_classes, f"{name} {splits[0]}"),
        _DatasetImages(validation, config, num_classes, f"{name} {splits[1]}"),
        classes,
        num_classes,
        name,
    )


def open_stream(name: str, config: TrainConfig) -> Sources:
    """Opens a dataset that is fetched while it is read; arguments and errors as of `open_dataset`."""
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


def _opened(name: str, split: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except _ANYTHING as error:
        raise ValueError(f"data: expected the split '{split}' of '{name}', got {_reason(error)}") from None


def _cache(config: TrainConfig) -> str | None:
    return None if config.data_dir is None else str(config.data_dir.expanduser())


def _keys(config: TrainConfig) -> tuple[str, str]:
    """The columns of images and of labels."""
    return config.input_key or "image", config.target_key or "label"


def _classes(
    columns: Collection[str], features: Mapping[str, Any] | None, name: str, config: TrainConfig
) -> tuple[tuple[str, ...] | None, int | None]:
    """Names of the classes, and their number; None where neither the dataset nor the settings tell."""
    for setting, column in zip(("input_key", "target_key"), _keys(config), strict=True):
        if column not in columns:
            raise ValueError(f"{setting}: expected a column of '{name}' ({', '.join(columns)}), got '{column}'")
    classes = tuple(getattr((features or {}).get(_keys(config)[1]), "names", ())) or None
    return classes, config.num_classes if classes is None else len(classes)


def _not_decoded(rows: Any, config: TrainConfig) -> Any:
    return rows.cast_column(_keys(config)[0], datasets.Image(decode=False))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


class _DatasetImages:
    """The rows of a split on disk."""

    def __init__(self, rows: Any, config: TrainConfig, num_classes: int | None, split: str) -> None:
        self.rows, self.split = _not_decoded(rows, config), split
        self.config, self.num_classes = config, num_classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        encoded = _encoded(self.rows[index], self.config, self.num_classes, self.name(index))
        return encoded.image(), encoded.label

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def class_numbers(self) -> list[int]:
        labels = self.rows[_keys(self.config)[1]]
        return [checked_label(label, self.num_classes, self.name(index)) for index, label in enumerate(labels)]

    def fingerprint(self) -> str:
        # A row has no name; the library's own fingerprint depends on where the files are.
        column = _keys(self.config)[1]
        return fingerprint(batch[column] for batch in self.rows.select_columns([column]).iter(1000))


class _DatasetStream(Stream):
    """The rows of a split, shuffled by shards and then within a buffer where they are to train on."""

    def __init__(self, name: str, split: str, config: TrainConfig, *, training: bool) -> None:
        self.name, self.split, self.config, self.training = f"{name} {split}", split, config, training
        self.builder = _opened(name, split, lambda: datasets.load_dataset_builder(name, cache_dir=_cache(config)))
        self.rows = _opened(name, split, lambda: self.builder.as_streaming_dataset(split=split))
        # Where nothing describes the columns, the first row tells their names.
        columns = self.rows.column_names or _opened(name, split, lambda: list(next(iter(self.rows), {})))
        self.classes, self.num_classes = _classes(columns, self.rows.features, name, config)
        described = (self.builder.info.splits or {}).get(split)
        self.there = (described.num_examples if described is not None else None) or None
        self.count = (config.train_images if training else config.val_images) or self.there
        self.shards: int = self.rows.num_shards

    def fingerprint(self) -> str:
        files = (self.builder.config.data_files or {}).items()
        names = [(split, str(file).rpartition("/")[2]) for split, found in files for file in found]
        return fingerprint((self.split, self.count, self.shards, self.classes, names))

    def readers(self, world: int) -> int:
        # Where shards cannot be dealt out evenly, every process reads all of them and keeps each world-th image.
        return self.shards // world if self.shards % world == 0 else self.shards

    def read(self, share: Share) -> Iterator[Encoded]:
        rows = iter(self._rows(share))
        reader = f"reader {share.worker} of process {share.rank}"
        for number in itertools.count():
            try:
                row = next(rows, None)
            except _ANYTHING as error:
                raise DataError(
                    f"data: expected readable rows of '{self.name}', got {_reason(error)} after {number} rows of "
                    f"{reader}"
                ) from None
            if row is None:
                return
            file = (row[_keys(self.config)[0]] or {}).get("path")
            yield _encoded(row, self.config, self.num_classes, f"{self.name}: {file or f'row {number} of {reader}'}")

    def _rows(self, share: Share) -> Any:
        """The rows of this process; those of its readers are divided by the library itself."""
        rows = self.rows
        if self.training:
            # Shards that are mixed count as one, and each reader needs one.
            mixed = max(1, min(_MIXED_SHARDS, self.shards // (share.world * share.workers)))
            rows = rows.shuffle(seed=_SEED, buffer_size=_BUFFER, max_buffer_input_shards=mixed)
        rows = _not_decoded(split_dataset_by_node(rows, rank=share.rank, world_size=share.world), self.config)
        rows.set_epoch(seed_of("rows", share.seed, share.epoch, share.again) % 2**31)
        return rows


def _encoded(row: Mapping[str, Any], config: TrainConfig, num_classes: int | None, name: str) -> Encoded:
    image_key, label_key = _keys(config)
    image = row[image_key] or {}
    label = checked_label(row[label_key], num_classes, name)
    return Encoded(name, image.get("bytes") or image.get("path"), label, config.max_image_pixels)
