"""What a process that reads images does: finds them, augments them and stacks them into batches.

An image that cannot be read is replaced by another in training, and left out in validation.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from .decoding import reason
from .image_source import DataError, Encoded, Images, Share, Stream
from .seeds import generators_kept, seed_generators, seed_of

Transform = Callable[[Image.Image], Tensor]

# Images tried in the place of one that cannot be read; and in a stream, unreadable ones in a row that are let pass.
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


class _Sample(NamedTuple):
    """A place of a stream, and the image that stands in it."""

    place: int
    image: Image.Image
    label: int
    name: str
    failure: str | None


class Place(NamedTuple):
    """The images of a micro-batch, by their numbers in the source."""

    epoch: int
    indices: Sequence[int]


class MicroBatches(Dataset[Any]):
    """Augmented images of a source that can be read in any order."""

    def __init__(self, source: Images, transform: Transform, seed: int) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __getitem__(self, place: Place) -> Loaded | Refused:
        images, labels, names, failures = [], [], [], []
        try:
            with generators_kept():
                for index in place.indices:
                    image, label, read, failure = self._readable(place.epoch, index)
                    seed_generators(seed_of("augment", self.seed, place.epoch, index))
                    images.append(self.transform(image))
                    labels.append(label)
                    names.append(self.source.name(read))
                    failures += [] if failure is None else [failure]
        except DataError as error:
            return Refused(str(error))
        return _loaded(images, labels, names, failures)

    def _readable(self, epoch: int, index: int) -> tuple[Image.Image, int, int, str | None]:
        """The image, or where it cannot be read another one; its label and number, and what failed."""
        failure = None
        for attempt in range(_TRIES):
            # Not the one behind it: unreadable images come in rows, such as a class that was not copied.
            read = seed_of("instead", self.seed, epoch, index, attempt) % len(self.source) if attempt else index
            try:
                image, label = self.source[read]
            except (DataError, MemoryError):
                raise
            except Exception as error:
                failure = failure or _failure(self.source.name(read), error)
            else:
                return image, label, read, failure
        raise DataError(f"data: expected readable images, got {_TRIES} of which none can be read, first {failure}")


class StreamedMicroBatches(IterableDataset[Any]):
    """Augmented images of a stream."""

    def __init__(self, stream: Stream, transform: Transform, micro_batch: int, total: int, share: Share) -> None:
        self.stream = stream
        self.transform = transform
        self.micro_batch = micro_batch
        self.total = total
        self.share = share
        # Epoch and micro-batches to leave out: readers that live on see what is written here before an epoch.
        self.start = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[Loaded | Refused]:
        epoch, left_out = self.start.tolist()
        share = _of_this_reader(self.share)._replace(epoch=epoch)
        samples = self._samples(share, left_out * self.micro_batch)
        for _ in range(left_out, len(range(share.worker, self.total, share.workers))):
            try:
                # The generators belong to whoever asks for a batch, and only within it.
                with generators_kept():
                    taken = list(itertools.islice(samples, self.micro_batch))
                    images = [self._augmented(share, sample) for sample in taken]
            except DataError as error:
                yield Refused(str(error))
                return
            failures = [sample.failure for sample in taken if sample.failure is not None]
            yield _loaded(images, [sample.label for sample in taken], [sample.name for sample in taken], failures)

    def _augmented(self, share: Share, sample: _Sample) -> Tensor:
        seed_generators(seed_of("augment", share.seed, share.epoch, share.rank, share.worker, sample.place))
        return self.transform(sample.image)

    def _samples(self, share: Share, left_out: int) -> Iterator[_Sample]:
        """The samples from place `left_out` on, without an end. The next readable one stands for those that are not."""
        waiting: list[tuple[int, str]] = []
        for place, encoded in enumerate(self._encoded(share)):
            if place < left_out:
                continue
            try:
                image = encoded.image()
            except MemoryError:
                raise
            except Exception as error:
                waiting.append((place, _failure(encoded.name, error)))
                if len(waiting) == _TRIES:
                    raise DataError(
                        f"data: expected readable images, got {_TRIES} in a row of which none can be read, "
                        f"first {waiting[0][1]}"
                    ) from None
                continue
            for earlier, failure in waiting:
                yield _Sample(earlier, image, encoded.label, encoded.name, failure)
            waiting.clear()
            yield _Sample(place, image, encoded.label, encoded.name, None)

    def _encoded(self, share: Share) -> Iterator[Encoded]:
        for again in itertools.count():
            empty = True
            for encoded in self.stream.read(share._replace(again=again)):
                empty = False
                yield encoded
            if empty:
                raise DataError("data: expected training images in every shard, got shards without one")


class PlainBatches(Dataset[Any]):
    """Images of a source that can be read in any order, without those that cannot be read."""

    def __init__(self, source: Images, transform: Transform) -> None:
        self.source = source
        self.transform = transform

    def __getitem__(self, indices: Sequence[int]) -> Loaded | Refused:
        images, labels, names, failures = [], [], [], []
        for index in indices:
            try:
                image, label = self.source[index]
            except DataError as error:
                return Refused(str(error))
            except MemoryError:
                raise
            except Exception as error:
                failures.append(_failure(self.source.name(index), error))
            else:
                images.append(self.transform(image))
                labels.append(label)
                names.append(self.source.name(index))
        return _loaded(images, labels, names, failures)


class StreamedPlainBatches(IterableDataset[Any]):
    """Images of a stream, without those that cannot be read."""

    def __init__(self, stream: Stream, transform: Transform, batch: int, share: Share) -> None:
        self.stream = stream
        self.transform = transform
        self.batch = batch
        self.share = share

    def __iter__(self) -> Iterator[Loaded | Refused]:
        encoded = self.stream.read(_of_this_reader(self.share))
        while True:
            images, labels, names, failures = [], [], [], []
            try:
                taken = list(itertools.islice(encoded, self.batch))
            except DataError as error:
                yield Refused(str(error))
                return
            if not taken:
                return
            for each in taken:
                try:
                    image = each.image()
                except MemoryError:
                    raise
                except Exception as error:
                    failures.append(_failure(each.name, error))
                else:
                    images.append(self.transform(image))
                    labels.append(each.label)
                    names.append(each.name)
            yield _loaded(images, labels, names, failures)


def _loaded(images: list[Tensor], labels: list[int], names: list[str], failures: list[str]) -> Loaded:
    # In a reader's process, collating writes to memory that both processes see.
    stacked = default_collate(images) if images else torch.zeros(0)
    return Loaded(stacked, torch.tensor(labels, dtype=torch.int64), tuple(names), tuple(failures))


def _of_this_reader(share: Share) -> Share:
    reader = get_worker_info()
    return share if reader is None else share._replace(worker=reader.id, workers=reader.num_workers)


def _failure(name: str, error: Exception) -> str:
    return f"'{name}' ({reason(error)})"
