"""Batches for training and validation, whose order and augmentation depend on the seed, the epoch and the place alone.

Nothing is kept from one batch to the next: image i of epoch e is augmented in the same way whoever reads it, and a run
that is resumed in the middle of an epoch meets the batches that it would have met. For images that can be read in any
order this holds for any number of processes and readers; the images of a stream are divided among them in shards, so
that other numbers see another order, and the same numbers the same.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from ..processes import Processes
from .random_numbers import seed_of
from .readers import (
    Loaded,
    MicroBatch,
    Refused,
    SourceBatches,
    StreamedMicroBatches,
    StreamedPlainBatches,
    Transform,
)
from .source_types import DataError, Images, Share, Stream, image_count

# Bad luck in few images is no bad data: the share is one of this many at least, or of an epoch where that is smaller.
_FEWEST = 1000
_NAMES_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that a process takes at once.

    Args:
        images: (B, C, H, W) float32, normalized.
        labels: (B,) int64.
        names: Where each image comes from.
        failures: Images that could not be read, and why: replaced in training, left out in validation.
        micro_batch: Number of the batch within its update, or within validation.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    failures: tuple[str, ...]
    micro_batch: int

    @property
    def unreadable(self) -> int:
        """Number of images that could not be read."""
        return len(self.failures)


class TrainingBatches:
    """Shuffled, augmented batches: epoch by epoch, for each update the micro-batches that one process takes.

    An update has `batch_size` images and takes them in `batch_size / micro_batch` micro-batches; process r of W takes
    those of number r, r + W, ... What is left at the end of an epoch, less than an update, is left out.

    An unreadable image is replaced: by another drawn at random from the source, or by the next of the stream.

    Args:
        source: The images.
        transform: Makes (C, H, W) float32 of an image, drawing from the generators of Python, NumPy and torch (CPU).
        batch_size: Images per update, of all processes together.
        micro_batch: Images that a process takes at once.
        group: The processes.
        workers: Processes that read images as long as this object lives. 0 reads in the calling process.
        seed: Of order and augmentation.

    Raises:
        ValueError: The processes cannot share an update, the images are fewer than one update, or a stream has too few
            shards for so many readers.
    """

    def __init__(
        self,
        source: Images | Stream,
        transform: Transform,
        *,
        batch_size: int,
        micro_batch: int,
        group: Processes,
        workers: int,
        seed: int,
    ) -> None:
        rank, world = group.rank, group.world
        _check_micro_batch(batch_size, micro_batch, world)
        count = image_count(source)
        if count is None or count < batch_size:
            raise ValueError(f"batch_size: expected at most {count}, the number of training images, got {batch_size}")
        self.updates_per_epoch = count // batch_size
        self._numbers = range(rank, batch_size // micro_batch, world)
        self._begin: Callable[[int, int], int]
        if isinstance(source, Stream):
            _check_readers(source, world, workers)
            total = self.updates_per_epoch * len(self._numbers)
            share = Share(seed, 0, 0, rank, world, 0, max(1, workers))
            dataset = StreamedMicroBatches(source, transform, micro_batch, total, share)
            self._begin, self._loader = dataset.begin, _loader(dataset, None, workers, group)
        else:
            order = _Order(len(source), seed, batch_size, micro_batch, self._numbers)
            self._begin = order.begin
            self._loader = _loader(SourceBatches(source, transform, seed), order, workers, group)
        self.workers = workers

    def epoch(self, epoch: int, first_update: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of this process, update by update, from `first_update` on; ends the epoch read before.

        Earlier updates of a stream are read from its shards, but not decoded.

        Raises:
            DataError: The data cannot be used.
        """
        passed = self._begin(epoch, first_update * len(self._numbers))
        loaded = _received(self._loader)
        for _ in range(passed):
            next(loaded)
        for _ in range(first_update, self.updates_per_epoch):
            yield [Batch(*next(loaded), number) for number in self._numbers]


class ValidationBatches:
    """All images once, each in one of the processes; unreadable ones are left out.

    Processes may get different numbers of batches, none at all where there are more processes than images or shards.
    The last batches may have fewer than `batch` images.
    """

    def __init__(
        self, source: Images | Stream, transform: Transform, *, batch: int, group: Processes, workers: int
    ) -> None:
        rank, world = group.rank, group.world
        if isinstance(source, Stream):
            dataset = StreamedPlainBatches(source, transform, batch, Share(0, 0, 0, rank, world, 0, 1))
            # More readers than shards would have nothing to read.
            workers = min(workers, max(1, source.readers(world)))
            self._loader = _loader(dataset, None, workers, group)
        else:
            mine = range(rank, len(source), world)
            parts = [MicroBatch(0, mine[start : start + batch]) for start in range(0, len(mine), batch)]
            self._loader = _loader(SourceBatches(source, transform), parts, workers, group)

    def __iter__(self) -> Iterator[Batch]:
        # One batch is held back, so that what the last ones could not read has a batch to be told with.
        held: Batch | None = None
        failures: tuple[str, ...] = ()
        for number, loaded in enumerate(_received(self._loader)):
            failures += loaded.failures
            if len(loaded.names) > 0:
                if held is not None:
                    yield held
                held, failures = Batch(*loaded[:3], failures, number), ()
        if held is not None:
            yield replace(held, failures=held.failures + failures)
        elif failures:
            raise DataError(
                f"data: expected images to validate on, got {len(failures)} of which none can be read, "
                f"first {failures[0]}"
            )


@dataclass
class Unreadable:
    """Counts the unreadable images of one epoch, so that one that goes wrong late is not excused by those before.

    A run stops where their share is above the allowed one, of an epoch with so many images in all processes.
    """

    allowed: float
    images: int
    seen: int = field(default=0, init=False)
    count: int = field(default=0, init=False)
    failures: tuple[str, ...] = field(default=(), init=False)

    def add(self, seen: int, unreadable: int, failures: Sequence[str]) -> None:
        """Counts further images of all processes; `failures` is what this process could not read of them.

        Raises:
            DataError: More than the allowed share could not be read. The same in every process, so that all stop.
        """
        self.seen += seen
        self.count += unreadable
        self.failures = (*self.failures, *failures)[:_NAMES_SHOWN]
        of = max(self.seen, min(_FEWEST, self.images))
        if self.count > self.allowed * of:
            first = f", first {', '.join(self.failures)}" if self.failures else ""
            raise DataError(
                f"max_unreadable: expected at most {self.allowed:.2%} unreadable images, got {self.count} among "
                f"{self.seen}{first}; repair or remove them, or raise the setting"
            )


@dataclass
class _Order:
    """Which images the micro-batches of a process have, in the order in which they are taken."""

    count: int
    seed: int
    batch_size: int
    micro_batch: int
    numbers: range
    epoch: int = 0
    first_update: int = 0

    def begin(self, epoch: int, done: int) -> int:
        """Begins an epoch behind its first `done` micro-batches; none are left to drop."""
        self.epoch, self.first_update = epoch, done // len(self.numbers)
        return 0

    def __iter__(self) -> Iterator[MicroBatch]:
        epoch = self.epoch
        generator = Generator().manual_seed(seed_of("order", self.seed, epoch))
        order = torch.randperm(self.count, generator=generator)
        for update in range(self.first_update, self.count // self.batch_size):
            for number in self.numbers:
                start = update * self.batch_size + number * self.micro_batch
                yield MicroBatch(epoch, order[start : start + self.micro_batch].tolist())


def _loader(dataset: Any, order: Any, workers: int, group: Processes) -> DataLoader[Any]:
    """A loader of what the dataset itself has made batches of."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=group.device.type == "cuda",  # from there a GPU copies faster
        collate_fn=_unchanged,
        worker_init_fn=_out_of_the_group,
        # Without one of its own the loader draws from torch's, which belongs to whoever trains.
        generator=Generator(),
    )


def _out_of_the_group(worker: int) -> None:
    # Ctrl-C and torchrun's signals go to a process group. The update that the main process finishes needs its readers.
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _unchanged(loaded: Any) -> Any:
    return loaded


def _received(loader: DataLoader[Any]) -> Iterator[Loaded]:
    for loaded in loader:
        if isinstance(loaded, Refused):
            raise DataError(loaded.message)
        yield loaded


def _check_micro_batch(batch_size: int, micro_batch: int, world: int) -> None:
    if batch_size % world != 0:
        raise ValueError(f"batch_size: expected a multiple of {world}, the number of processes, got {batch_size}")
    share = batch_size // world
    if share % micro_batch != 0:
        fitting = ", ".join(str(size) for size in range(1, share + 1) if share % size == 0)
        raise ValueError(
            f"micro_batch: expected a divisor of {share}, which is batch_size {batch_size} over {world} processes "
            f"({fitting}), got {micro_batch}"
        )


def _check_readers(stream: Stream, world: int, workers: int) -> None:
    most = stream.readers(world)
    if most < max(1, workers):
        advice = f"take {most}" if most > 0 else "take fewer processes, or write more and smaller shards"
        raise ValueError(
            f"workers: expected at most {most}, as many as have shards of their own in each of {world} processes, "
            f"got {workers}; {advice}"
        )
