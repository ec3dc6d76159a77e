"""What a process that reads images does: finds them, augments them and stacks them into batches.

An image that cannot be read is replaced by another in training, and left out in validation.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from .decoding import reason
from .random_numbers import generators_kept, seed_generators, seed_of
from .source_types import DataError, Encoded, Images, Share, Stream

Transform = Callable[[Image.Image], Tensor]

# Images tried instead of one that cannot be read; and in a stream, unreadable ones in a row that are let pass.
_TRIES = 100


class Loaded(NamedTuple):
    """A batch on its way to the main process."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    failures: tuple[str, ...]


class Refused(NamedTuple):
    """The message of a `DataError`, carried to the main process without the reader's traceback."""

    message: str


class MicroBatch(NamedTuple):
    """The images of a micro-batch by their numbers in the source, and their epoch, which decides on augmentation."""

    epoch: int
    indices: Sequence[int]


class _Found(NamedTuple):
    """An image in RGB, None where it cannot be read; a failure of its own, or of the one in whose place it stands."""

    name: str
    image: Image.Image | None
    label: int
    failure: str | None = None
    seed: int | None = None  # of its augmentation


@dataclass(eq=False)
class SourceBatches(Dataset[Any]):
    """Images of a source that can be read in any order.

    With a seed, that of the run, they are to train on: augmented, those that cannot be read replaced by others.
    """

    source: Images
    transform: Transform
    seed: int | None = None

    def __getitem__(self, wanted: MicroBatch) -> Loaded | Refused:
        find = self._found if self.seed is None else self._readable
        try:
            return _loaded(self.transform, (find(wanted.epoch, index) for index in wanted.indices))
        except DataError as error:
            return Refused(str(error))

    def _found(self, epoch: int, index: int) -> _Found:
        return _found(self.source.name(index), lambda: self.source[index])

    def _readable(self, epoch: int, index: int) -> _Found:
        """The image, or another one where it cannot be read."""
        assert self.seed is not None
        failure = None
        for attempt in range(_TRIES):
            # Not the next one: unreadable images come in rows, such as a class that was not copied.
            read = seed_of("instead", self.seed, epoch, index, attempt) % len(self.source) if attempt else index
            found = self._found(epoch, read)
            failure = failure or found.failure
            if found.image is not None:
                return found._replace(failure=failure, seed=seed_of("augment", self.seed, epoch, index))
        raise DataError(f"data: expected readable images, got {_TRIES} of which none can be read, first {failure}")


@dataclass(eq=False)
class StreamedMicroBatches(IterableDataset[Any]):
    """Augmented images of a stream, `total` micro-batches of all readers of a process in an epoch."""

    stream: Stream
    transform: Transform
    micro_batch: int
    total: int
    share: Share

    def __post_init__(self) -> None:
        # Epoch and micro-batches to leave out: readers that live on see what is written here before an epoch.
        self.start = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def begin(self, epoch: int, done: int) -> int:
        """Readers leave out the first `done` micro-batches of an epoch, but for those that are returned, to drop."""
        # Readers take turns, the first one first: they leave out whole rounds.
        self.start[0], self.start[1] = epoch, done // self.share.workers
        return done % self.share.workers

    def __iter__(self) -> Iterator[Loaded | Refused]:
        epoch, left_out = self.start.tolist()
        share = _of_this_reader(self.share)._replace(epoch=epoch)
        readable = self._readable(share, left_out * self.micro_batch)
        try:
            for _ in range(left_out, len(range(share.worker, self.total, share.workers))):
                yield _loaded(self.transform, itertools.islice(readable, self.micro_batch))
        except DataError as error:
            yield Refused(str(error))

    def _readable(self, share: Share, left_out: int) -> Iterator[_Found]:
        """The images from place `left_out` on, without an end. The next readable one stands for those that are not."""
        waiting: list[_Found] = []
        for place, encoded in enumerate(self._encoded(share)):
            if place < left_out:
                continue
            seed = seed_of("augment", share.seed, share.epoch, share.rank, share.worker, place)
            found = _from_stream(encoded)._replace(seed=seed)
            if found.image is None:
                waiting.append(found)
                if len(waiting) == _TRIES:
                    raise DataError(
                        f"data: expected readable images, got {_TRIES} in a row of which none can be read, "
                        f"first {waiting[0].failure}"
                    )
                continue
            yield from (found._replace(failure=earlier.failure, seed=earlier.seed) for earlier in waiting)
            yield found
            waiting.clear()

    def _encoded(self, share: Share) -> Iterator[Encoded]:
        for again in itertools.count():
            empty = True
            for encoded in self.stream.read(share._replace(again=again)):
                empty = False
                yield encoded
            if empty:
                raise DataError("data: expected training images in every shard, got shards without one")


@dataclass(eq=False)
class StreamedPlainBatches(IterableDataset[Any]):
    """Images of a stream, without those that cannot be read."""

    stream: Stream
    transform: Transform
    batch: int
    share: Share

    def __iter__(self) -> Iterator[Loaded | Refused]:
        encoded = self.stream.read(_of_this_reader(self.share))
        try:
            while taken := list(itertools.islice(encoded, self.batch)):
                yield _loaded(self.transform, map(_from_stream, taken))
        except DataError as error:
            yield Refused(str(error))


def _from_stream(encoded: Encoded) -> _Found:
    return _found(encoded.name, lambda: (encoded.image(), encoded.label))


def _found(name: str, read: Callable[[], tuple[Image.Image, int]]) -> _Found:
    try:
        return _Found(name, *read())
    except (DataError, MemoryError):
        raise
    except Exception as error:
        return _Found(name, None, -1, f"'{name}' ({reason(error)})")


def _loaded(transform: Transform, found: Iterable[_Found]) -> Loaded:
    """A batch of the images that can be read, and all failures."""
    images, labels, names, failures = [], [], [], []
    # The generators belong to whoever asks for a batch, and only within it.
    with generators_kept():
        for each in found:
            failures += [] if each.failure is None else [each.failure]
            if each.image is not None:
                if each.seed is not None:
                    seed_generators(each.seed)
                images.append(transform(each.image))
                labels.append(each.label)
                names.append(each.name)
    # In a reader's process, collating writes to memory that both processes see.
    stacked = default_collate(images) if images else torch.zeros(0)
    return Loaded(stacked, torch.tensor(labels, dtype=torch.int64), tuple(names), tuple(failures))


def _of_this_reader(share: Share) -> Share:
    reader = get_worker_info()
    return share if reader is None else share._replace(worker=reader.id, workers=reader.num_workers)
