"""Images of WebDataset's shards.

timm's reader says which shards a split has and how their samples are laid out. The samples are read here and not by its
iterator, which gives neither their names nor word of those that it leaves out, and whose order of an epoch depends on
the epochs before.
"""

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import webdataset
from timm.data.readers.reader_factory import create_reader
from timm.data.readers.reader_wds import SAMPLE_INITIAL_SIZE, SAMPLE_SHUFFLE_SIZE

from ..settings import TrainConfig
from .image_folder import check_folder
from .random_numbers import seed_of
from .source_types import (
    DataError,
    Encoded,
    Share,
    Sources,
    Stream,
    checked_label,
    chosen_splits,
    fingerprint,
    shortened,
)


def open_shards(name: str, config: TrainConfig) -> Sources:
    """Opens a folder of shards.

    Args:
        name: Path of the folder. With a file `_info.json` in it, as timm writes it, splits have the names of that file;
            without one they are patterns such as "train-{0000..0127}.tar", with "|" and the number of images behind
            them where the settings do not say it.
        config: Settings.

    Raises:
        ValueError: The folder, a split or a shard is missing.
    """
    folder = Path(name).expanduser()
    check_folder("data", "a folder of shards behind 'wds/'", folder)
    described = _described_splits(folder)
    train_split, validation_split = _splits(folder, described, config)
    train = _ShardStream(folder, train_split, config, training=True)
    validation = _ShardStream(folder, validation_split, config, training=False)
    return Sources(train, validation, None, config.num_classes, folder.resolve().name)


def _described_splits(folder: Path) -> Mapping[str, Any]:
    """The splits of the file that describes the shards; empty where there is none."""
    for path in (folder / "_info.json", folder / "info.json"):
        if path.is_file():
            try:
                return dict(json.loads(path.read_text(encoding="utf-8"))["splits"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"data: expected the splits of the shards in '{path}', got {type(error).__name__} ({error}); "
                    "write the file again"
                ) from None
    return {}


def _splits(folder: Path, described: Mapping[str, Any], config: TrainConfig) -> tuple[str, str]:
    named = (config.train_split, config.val_split)
    patterns = [split for split in named if split and ("tar" in split or ".." in split)]  # as timm tells them apart
    if not described and len(patterns) < 2:
        setting = "val_split" if config.train_split in patterns else "train_split"
        raise ValueError(
            f"{setting}: expected a pattern such as 'train-{{0000..0127}}.tar', since '{folder}' has no _info.json "
            f"that describes splits, got {getattr(config, setting)!r}"
        )
    return chosen_splits(config.train_split, config.val_split, [*described, *patterns], str(folder))


class _ShardStream(Stream):
    """The samples of a split; to train on, shuffled by shards and then within a buffer.

    The buffer is timm's: each reader holds up to 8,192 samples as they stand in the shards.
    """

    def __init__(self, folder: Path, split: str, config: TrainConfig, *, training: bool) -> None:
        prefix = "train" if training else "val"
        given: int | None = getattr(config, f"{prefix}_images")
        try:
            reader = create_reader(
                f"wds/{folder}",
                root=str(folder),
                split=split,
                num_samples=given,
                input_key=config.input_key,
                target_key=config.target_key,
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{prefix}_split: expected a split of '{folder}' with num_samples, filenames, shard_lengths and name, "
                f"or a pattern, got '{split}' ({type(error).__name__}: {error})"
            ) from None
        self.count = reader.num_samples or None
        self.shards = [folder / file for file in reader.split_info.filenames]
        lengths = reader.split_info.shard_lengths
        # A shard that was cut off between two samples looks complete but for this.
        self.lengths = dict(zip(self.shards, lengths, strict=True)) if len(lengths) == len(self.shards) else {}
        self.there = sum(self.lengths.values()) or None
        if given is None and self.count is not None and self.there not in (None, self.count):
            raise ValueError(
                f"{prefix}_split: expected num_samples {self.there} for '{split}' of '{folder}', the sum of its "
                f"shard_lengths, got {self.count}; write the index again"
            )
        self._wanted = self.lengths
        if given is not None and self.lengths:
            self._wanted = _first(self.lengths, given)
            self.shards = list(self._wanted)
        self.training = training
        self.num_classes = config.num_classes
        self.max_pixels = config.max_image_pixels
        self.image_keys = reader.input_key.split(";")
        # Labels are in a sample's .cls, unless a field of its .json is named.
        self.label_key = config.target_key or reader.split_info.alt_label
        missing = [path.name for path in self.shards if not path.is_file()]
        if missing or not self.shards:
            raise ValueError(
                f"{prefix}_split: expected the shards of '{split}' in '{folder}', "
                f"got no {shortened(missing) or 'name of one'}"
            )

    def fingerprint(self) -> str:
        # Labels are within the shards, whose sizes tell of most changes.
        return fingerprint((path.name, path.stat().st_size, self.lengths.get(path)) for path in self.shards)

    def readers(self, world: int) -> int:
        return len(self.shards) // world

    def read(self, share: Share) -> Iterator[Encoded]:
        shards = list(self.shards)
        order = random.Random(seed_of("shards", share.seed, share.epoch, share.again))
        if self.training:
            order.shuffle(shards)
        mine = shards[share.rank * share.workers + share.worker :: share.world * share.workers]
        samples = self._samples(mine)
        if self.training:
            buffer = random.Random(seed_of("buffer", *share))
            shuffle = webdataset.shuffle(bufsize=SAMPLE_SHUFFLE_SIZE, initial=SAMPLE_INITIAL_SIZE, rng=buffer)
            samples = shuffle(samples)
        return samples

    def _samples(self, shards: list[Path]) -> Iterator[Encoded]:
        for shard in shards:
            length, wanted = self.lengths.get(shard), self._wanted.get(shard)
            samples, count = _tar_samples(shard), 0
            for count, sample in enumerate(itertools.islice(samples, wanted), 1):
                # Asked before the last sample is handed out: who has that one need not ask for more.
                if count == length and next(samples, None) is not None:
                    raise DataError(
                        f"data: expected {length} samples in '{shard}', as its index says, got more; write the index "
                        "again"
                    )
                label = self._label(shard, sample)
                if label is not None:
                    key = next((key for key in self.image_keys if key in sample), None)
                    name = f"{shard}/{sample['__key__']}" + ("" if key is None else f".{key}")
                    yield Encoded(name, None if key is None else sample[key], label, self.max_pixels)
            if wanted is not None and count < wanted:
                raise DataError(f"data: expected {wanted} samples in '{shard}', got {count}; fetch it again")

    def _label(self, shard: Path, sample: Mapping[str, Any]) -> int | None:
        """The label of a sample; None where it is marked by -1 in its .json as having none."""
        name = f"{shard}/{sample['__key__']}"
        try:
            label = json.loads(sample["json"])[self.label_key] if self.label_key else int(sample["cls"])
        except (KeyError, ValueError, TypeError) as error:
            place = f"the field '{self.label_key}' of its .json" if self.label_key else "its .cls"
            raise DataError(
                f"target_key: expected the label of '{name}' in {place}, got {type(error).__name__} ({error})"
            ) from None
        return None if self.label_key and label == -1 else checked_label(label, self.num_classes, name)


def _first(lengths: Mapping[Path, int], count: int) -> dict[Path, int]:
    """The first shards that hold `count` samples, and how many of each are read."""
    wanted = {}
    for shard, length in lengths.items():
        if count > 0:
            wanted[shard] = min(length, count)
            count -= length
    return wanted


def _tar_samples(shard: Path) -> Iterator[Mapping[str, Any]]:
    count = 0
    try:
        for sample in webdataset.tariterators.tarfile_samples(iter([{"url": str(shard)}])):
            count += 1
            yield sample
    except Exception as error:
        # No unreadable image to replace: how many of them are lost is unknown.
        raise DataError(
            f"data: expected a readable shard, got '{shard}', which ends after {count} samples "
            f"({type(error).__name__}); fetch it again"
        ) from None
