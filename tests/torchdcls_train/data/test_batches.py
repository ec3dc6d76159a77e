"""Batches: the same ones whoever reads them, every image once, unreadable ones counted, and the transforms."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.torchdcls_train.data.made_data import picture, write_folder, write_parquet, write_shards
from torchdcls_train.data.batches import Batch, TrainingBatches, Unreadable, ValidationBatches
from torchdcls_train.data.open_sources import open_sources
from torchdcls_train.data.random_numbers import generators_kept, seed_generators, seed_of
from torchdcls_train.data.source_types import DataError, Encoded, Images, Share, Stream
from torchdcls_train.data.transforms import Preparation, training_transform, validation_transform
from torchdcls_train.processes import Processes
from torchdcls_train.settings import TrainConfig

PREPARED = Preparation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", 0.9)
# Draws from all three generators.
CONFIG = TrainConfig(image_size=12, auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)


class MadeImages:
    """Numbered images, some of which cannot be read."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.count = count
        self.broken = broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index in self.broken:
            raise OSError(f"broken\nin {index}")
        return picture(index), index

    def name(self, index: int) -> str:
        return f"image {index}"


class MadeStream(Stream):
    """Numbered images in shards of four, in the order of their numbers; some cannot be read."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.count = count
        self.broken = broken

    def readers(self, world: int) -> int:
        assert self.count is not None
        return self.count // 4 // world

    def fingerprint(self) -> str:
        return str(self.count)

    def read(self, share: Share) -> Iterator[Encoded]:
        assert self.count is not None
        for shard in range(share.rank * share.workers + share.worker, self.count // 4, share.world * share.workers):
            for number in range(4 * shard, 4 * shard + 4):
                yield _MadeEncoded(str(number), None if number in self.broken else b"", number)


class _MadeEncoded(Encoded):
    def image(self) -> Image.Image:
        return super().image() if self.content is None else picture(self.label)


def training(source: Images | Stream, **settings: Any) -> TrainingBatches:
    given = {"transform": training_transform(CONFIG, PREPARED), "batch_size": 8, "micro_batch": 2}
    return TrainingBatches(source, **{**given, "workers": 0, "seed": 0, **grouped(settings)})


def validation(source: Images | Stream, **settings: Any) -> ValidationBatches:
    transform = validation_transform(CONFIG, PREPARED)
    return ValidationBatches(source, **{"transform": transform, "batch": 4, "workers": 0, **grouped(settings)})


def grouped(settings: dict[str, Any]) -> dict[str, Any]:
    group = Processes(torch.device("cpu"), settings.pop("rank", 0), settings.pop("world", 1))
    return {**settings, "group": group}


def plain(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def flat(updates: list[list[Batch]]) -> list[Batch]:
    return [batch for update in updates for batch in update]


def numbers(batches: list[Batch]) -> list[int]:
    return [label for batch in batches for label in batch.labels.tolist()]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and (a.names, a.failures, a.micro_batch) == (b.names, b.failures, b.micro_batch)
        for a, b in zip(left, right, strict=True)
    )


# Images in any order


def test_an_epoch_has_every_image_once_and_drops_the_rest() -> None:
    batches = training(MadeImages(35))
    epoch = list(batches.epoch(0))
    assert batches.updates_per_epoch == len(epoch) == 4
    for update in epoch:
        assert [batch.micro_batch for batch in update] == [0, 1, 2, 3]
        for batch in update:
            assert batch.images.shape == (2, 3, 12, 12) and batch.images.dtype == torch.float32
            assert batch.labels.shape == (2,) and batch.labels.dtype == torch.int64
            assert batch.names == tuple(f"image {label}" for label in batch.labels.tolist())
            assert batch.unreadable == 0 and batch.failures == ()
    order = numbers(flat(epoch))
    assert len(set(order)) == 32 and order != sorted(order)
    assert sorted(numbers(flat(list(training(MadeImages(32)).epoch(0))))) == list(range(32))


@pytest.mark.parametrize("workers", [1, 2])
def test_readers_change_nothing(workers: int) -> None:
    source = MadeImages(20, broken=frozenset({3, 4, 5, 11}))
    here, there = training(source), training(source, workers=workers)
    for epoch in range(2):
        assert same(flat(list(here.epoch(epoch))), flat(list(there.epoch(epoch))))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_micro_batches_of_one(world: int) -> None:
    source = MadeImages(20, broken=frozenset({3, 4, 5, 11}))
    alone = list(training(source).epoch(1))
    shared = [list(training(source, rank=rank, world=world, workers=rank % 2).epoch(1)) for rank in range(world)]
    for update, *parts in zip(alone, *shared, strict=True):
        assert same(update, sorted((batch for part in parts for batch in part), key=lambda batch: batch.micro_batch))
        assert [batch.micro_batch for batch in parts[1]] == list(range(1, 4, world))


def test_the_micro_batch_changes_neither_order_nor_augmentation() -> None:
    small, large = (flat(list(training(MadeImages(20), micro_batch=size).epoch(0))) for size in (2, 8))
    assert numbers(small) == numbers(large)
    assert torch.equal(torch.cat([batch.images for batch in small]), torch.cat([batch.images for batch in large]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_an_epoch_resumes_at_any_update(workers: int, first: int) -> None:
    source = MadeImages(32, broken=frozenset({9}))
    whole = list(training(source).epoch(2))
    assert same(flat(whole[first:]), flat(list(training(source, workers=workers).epoch(2, first))))


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_and_seeds_differ_and_repeat_whatever_came_before(workers: int) -> None:
    batches = training(MadeImages(20), workers=workers)
    first, second = list(batches.epoch(0)), list(batches.epoch(1))
    assert numbers(flat(first)) != numbers(flat(second))
    next(batches.epoch(5))  # broken off
    assert same(flat(list(batches.epoch(1))), flat(second)) and same(flat(list(batches.epoch(0))), flat(first))
    assert numbers(flat(list(training(MadeImages(20), seed=1).epoch(0)))) != numbers(flat(first))


def test_an_image_is_augmented_anew_in_each_epoch_and_by_each_seed() -> None:
    def image(epoch: int, seed: int) -> torch.Tensor:
        batches = flat(list(training(MadeImages(8), seed=seed).epoch(epoch)))
        return torch.cat([batch.images for batch in batches])[numbers(batches).index(5)]

    images = [image(0, 0), image(1, 0), image(0, 1)]
    assert torch.equal(image(0, 0), images[0])
    assert not any(torch.equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.mark.parametrize("source", [MadeImages(20), MadeStream(20)])
@pytest.mark.parametrize("workers", [0, 1])
def test_generators_of_the_process_are_left_alone(source: Images | Stream, workers: int) -> None:
    seed_generators(3)
    expected = [draws() for _ in range(3)]
    seed_generators(3)
    batches = training(source, workers=workers)
    got = [draws() for _ in batches.epoch(0)]
    list(validation(source, workers=workers))
    assert [*got, draws()] == expected


def test_unreadable_images_are_replaced_and_counted() -> None:
    broken = frozenset({3, 4, 5, 11})
    batches = flat(list(training(MadeImages(16, broken)).epoch(0)))
    assert sum(batch.unreadable for batch in batches) == 4
    failures = [failure for batch in batches for failure in batch.failures]
    assert sorted(failures) == sorted(f"'image {number}' (broken)" for number in broken)
    shown = numbers(batches)
    assert len(shown) == 16 and not broken & set(shown) and set(shown) == set(range(16)) - broken
    assert [int(name.split()[1]) for batch in batches for name in batch.names] == shown
    # Copies of an image differ in augmentation.
    images = torch.cat([batch.images for batch in batches])
    for number in set(shown):
        copies = [images[place] for place, label in enumerate(shown) if label == number]
        assert all(not torch.equal(copies[0], other) for other in copies[1:])


def test_a_whole_class_of_unreadable_images_is_replaced() -> None:
    batches = flat(list(training(MadeImages(400, frozenset(range(100, 300))), transform=plain).epoch(0)))
    assert sum(batch.unreadable for batch in batches) == 200


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_stops(workers: int) -> None:
    message = r"^data: expected readable images, got 100 of which none can be read, first 'image \d+' \(broken\)$"
    with pytest.raises(DataError, match=message):
        list(training(MadeImages(20, frozenset(range(20))), workers=workers).epoch(0))


def test_errors_that_are_no_unreadable_image_are_raised() -> None:
    class WrongLabels(MadeImages):
        error: Exception = DataError("data: wrong label")

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            raise self.error

    for wanted in (DataError("data: wrong label"), MemoryError("full")):
        source = WrongLabels(20)
        source.error = wanted
        for batches in (training(source).epoch(0), validation(source)):
            with pytest.raises(type(wanted), match=f"^{wanted}$"):
                list(batches)  # type: ignore[call-overload]

    class FullEncoded(Encoded):
        def image(self) -> Image.Image:
            raise MemoryError("full")

    class FullStream(MadeStream):
        def read(self, share: Share) -> Iterator[Encoded]:
            return iter([FullEncoded("x", b"", 0)] * 8)

    for batches in (training(FullStream(8)).epoch(0), validation(FullStream(8))):
        with pytest.raises(MemoryError, match="full"):
            list(batches)  # type: ignore[call-overload]

    def bad_transform(image: Image.Image) -> torch.Tensor:
        raise RuntimeError("bad transform")

    with pytest.raises(RuntimeError, match="bad transform"):
        list(training(MadeImages(20), transform=bad_transform).epoch(0))


def test_what_cannot_be_shared_is_refused() -> None:
    source = MadeImages(20)
    with pytest.raises(ValueError, match=r"^micro_batch: expected a divisor of 4, .* \(1, 2, 4\), got 8"):
        training(source, micro_batch=8, world=2)
    with pytest.raises(ValueError, match=r"^micro_batch: expected a divisor of 8"):
        training(source, micro_batch=3)
    with pytest.raises(ValueError, match=r"^batch_size: expected a multiple of 3, the number of processes, got 8"):
        training(source, world=3)
    with pytest.raises(ValueError, match=r"^batch_size: expected at most 20, the number of training images, got 24"):
        training(source, batch_size=24)


# Streams


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., Any]:
    def opened(*broken: int) -> Any:
        folder = write_shards(tmp_path / "shards", {"train": (8, 4), "val": (3, 3)}, broken)
        return open_sources(TrainConfig(data=f"wds/{folder}"))

    return opened


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    datasets = pytest.importorskip("datasets")
    # The library waits for seconds after reading, for threads of remote files.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def opened(*broken: int) -> Any:
        folder = write_parquet(tmp_path / "parquet", {"train": (4, 8), "validation": (3, 3)}, broken)
        return open_sources(TrainConfig(data=f"hfids/{folder}", train_images=32))

    return opened


STREAMS = pytest.mark.parametrize("made", ["shards", "parquet"])


def reds(batches: list[Batch]) -> list[int]:
    """Numbers of images that went through `plain`."""
    return [int(number) for batch in batches for number in batch.images[:, 0, 0, 0].tolist()]


@STREAMS
def test_a_stream_has_every_image_once(made: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(made)().train
    epochs = [flat(list(training(source, transform=plain).epoch(epoch))) for epoch in range(2)]
    for batches in epochs:
        assert sorted(reds(batches)) == list(range(32))
        assert [label % 2 for label in reds(batches)] == numbers(batches)
        for batch in batches:
            assert [int(name[-7:-4]) for name in batch.names] == reds([batch])
    assert reds(epochs[0]) != reds(epochs[1])


@STREAMS
def test_processes_and_readers_divide_a_stream(made: str, request: pytest.FixtureRequest) -> None:
    opened = request.getfixturevalue(made)
    seen = []
    for rank in range(2):
        batches = training(opened().train, transform=plain, rank=rank, world=2, workers=2)
        for update in batches.epoch(0):
            assert [batch.micro_batch for batch in update] == [rank, rank + 2]
            seen += reds(update)
    assert sorted(seen) == list(range(32))


@STREAMS
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_resumes_at_any_update(made: str, workers: int, request: pytest.FixtureRequest) -> None:
    opened = request.getfixturevalue(made)
    source = opened(1, 2, 9, 30).train
    batches = training(source, workers=workers, micro_batch=2, world=2, rank=1)
    whole = {epoch: list(batches.epoch(epoch)) for epoch in (0, 1)}
    assert not same(flat(whole[0]), flat(whole[1]))
    for first in range(4):
        again = training(opened(1, 2, 9, 30).train, workers=workers, micro_batch=2, world=2, rank=1)
        assert same(flat(list(again.epoch(1, first))), flat(whole[1][first:]))
    assert same(flat(list(batches.epoch(0))), flat(whole[0]))


def test_readers_that_do_not_divide_the_resumed_updates() -> None:
    """Two readers take turns at three micro-batches an update: every other update begins in the middle of a round."""
    whole = list(training(MadeStream(48), batch_size=6, workers=2).epoch(0))
    assert len(whole) == 8 and len(set(numbers(flat(whole)))) == 48
    for first in range(1, 8):
        resumed = training(MadeStream(48), batch_size=6, workers=2).epoch(0, first)
        assert same(flat(list(resumed)), flat(whole[first:]))


@STREAMS
def test_unreadable_images_of_a_stream_are_replaced_by_the_next(made: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(made)(1, 2, 9).train
    batches = flat(list(training(source, transform=plain).epoch(0)))
    assert sum(batch.unreadable for batch in batches) == 3
    shown = reds(batches)
    assert len(shown) == 32 and set(shown) == set(range(32)) - {1, 2, 9}
    for batch in batches:
        for failure in batch.failures:
            assert failure.endswith("(not an image that Pillow reads)")
    failures = "".join(failure for batch in batches for failure in batch.failures)
    assert all(f"00{number}.png" in failures for number in (1, 2, 9))


def test_the_next_readable_image_stands_in_the_places_of_those_before() -> None:
    batches = flat(list(training(MadeStream(8, frozenset({1, 2, 7})), transform=plain).epoch(0)))
    # Behind the last image comes the first again.
    assert reds(batches) == [0, 3, 3, 3, 4, 5, 6, 0]
    assert [batch.unreadable for batch in batches] == [1, 1, 0, 1]
    augmented = flat(list(training(MadeStream(8, frozenset({1, 2, 7}))).epoch(0)))
    assert not torch.equal(augmented[1].images[0], augmented[1].images[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_of_unreadable_images_stops(workers: int) -> None:
    message = r"^data: expected readable images, got 100 in a row of which none can be read, first '0' \(no image in"
    with pytest.raises(DataError, match=message):
        list(training(MadeStream(200, frozenset(range(200))), workers=workers).epoch(0))


def test_a_stream_whose_part_is_empty_stops() -> None:
    class Empty(MadeStream):
        def read(self, share: Share) -> Iterator[Encoded]:
            return iter(())

    with pytest.raises(DataError, match=r"^data: expected training images in every shard"):
        list(training(Empty(8)).epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_stream_are_one_sentence(shards: Callable[..., Any], tmp_path: Path, workers: int) -> None:
    sources = shards()
    for name in ("train-0001", "val-0001"):
        path = tmp_path / "shards" / f"{name}.tar"
        path.write_bytes(path.read_bytes()[:600])
    for batches in (training(sources.train, workers=workers).epoch(0), validation(sources.validation, workers=workers)):
        with pytest.raises(DataError, match=r"^data: expected a readable shard, got '[^\n]*'[^\n]*fetch it again$"):
            list(batches)  # type: ignore[call-overload]


def test_too_many_readers_of_a_stream_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^workers: expected at most 2, .* in each of 2 processes, got 3; take 2"):
        training(MadeStream(16), world=2, workers=3)
    with pytest.raises(ValueError, match=r"^workers: expected at most 0, .* take fewer processes, or write more"):
        training(MadeStream(4), world=2, batch_size=4)
    with pytest.raises(ValueError, match=r"^batch_size: expected at most 4, the number of training images, got 8"):
        training(MadeStream(4))


# Validation


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_has_every_image_once(world: int, workers: int) -> None:
    broken = frozenset({0, 12, 13, 14})
    seen, failures = [], []
    for rank in range(world):
        batches = validation(MadeImages(15, broken), world=world, rank=rank, workers=workers)
        first, second = list(batches), list(batches)
        assert same(first, second)
        assert all(0 < len(batch.labels) <= 4 for batch in first)
        seen += numbers(first)
        failures += [failure for batch in first for failure in batch.failures]
    assert sorted(seen) == [number for number in range(15) if number not in broken]
    assert sorted(failures) == sorted(f"'image {number}' (broken)" for number in broken)


@STREAMS
@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_on_a_stream_has_every_image_once(made: str, world: int, request: pytest.FixtureRequest) -> None:
    opened = request.getfixturevalue(made)
    seen, unreadable = [], 0
    for rank in range(world):
        batches = validation(opened(35, 40).validation, transform=plain, world=world, rank=rank, workers=rank)
        for _ in range(2):
            epoch = list(batches)
        seen += reds(epoch)
        unreadable += sum(batch.unreadable for batch in epoch)
    assert sorted(seen) == [number for number in range(32, 41) if number not in (35, 40)]
    assert unreadable == 2


def test_validation_tells_what_its_last_batches_could_not_read() -> None:
    batches = list(validation(MadeImages(12, frozenset({1, 2, 3, *range(4, 12)}))))
    assert numbers(batches) == [0] and batches[0].unreadable == 11


def test_validation_without_a_readable_image_stops() -> None:
    with pytest.raises(DataError, match=r"^data: expected images to validate on, got 5 .* first 'image 0' \(broken\)"):
        list(validation(MadeImages(5, frozenset(range(5)))))


def test_more_processes_than_images_leave_some_without() -> None:
    assert list(validation(MadeImages(2), world=3, rank=2)) == []


def test_a_folder_from_end_to_end(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "fruit", {"train": 18, "val": 7}, broken={4, 20})
    sources = open_sources(TrainConfig(data=str(folder)))
    trained = flat(list(training(sources.train, transform=plain, batch_size=18, workers=1).epoch(0)))
    assert set(reds(trained)) == set(range(18)) - {4} and sum(batch.unreadable for batch in trained) == 1
    validated = list(validation(sources.validation, transform=plain))
    assert sorted(reds(validated)) == [18, 19, 21, 22, 23, 24]
    assert [label % 2 for label in reds(validated)] == numbers(validated)
    (failure,) = (failure for batch in validated for failure in batch.failures)
    assert failure == f"'{folder / 'val' / 'apple' / '020.png'}' (not an image that Pillow reads)"


# Seeds, transforms, the count


def test_seeds_of_places() -> None:
    places: list[tuple[int | str, ...]] = [
        ("a", 0, 1),
        ("a", 1, 0),
        ("b", 0, 1),
        ("a", 0, 1, 0),
        ("a", 1),
        (11, 1),
        (1, 11),
    ]
    assert len({seed_of(*place) for place in places}) == len(places)
    # Of all versions and machines, or a resumed run would see other batches.
    assert seed_of("order", 0, 1) == 17113501801018599831


def test_generators_come_back_after_an_error() -> None:
    seed_generators(1)
    expected = draws()
    seed_generators(1)
    with pytest.raises(KeyError), generators_kept():
        draws()
        raise KeyError
    assert draws() == expected


def test_other_devices_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)
    seed_generators(1)


def test_training_transform_follows_the_settings() -> None:
    still = TrainConfig(image_size=16, scale=(1, 1), ratio=(1.25, 1.25), hflip=0.0)
    image = picture(100)
    exact = validation_transform(still, PREPARED._replace(crop_pct=1.0))(
        image.resize((16, 16), Image.Resampling.BICUBIC)
    )
    seed_generators(0)
    torch.testing.assert_close(training_transform(still, PREPARED)(image), exact)
    mirrored = TrainConfig(image_size=16, scale=(1, 1), ratio=(1.25, 1.25), hflip=1.0)
    torch.testing.assert_close(training_transform(mirrored, PREPARED)(image), exact.flip(-1))
    square = training_transform(TrainConfig(image_size=16, scale=(1, 1), ratio=(1, 1), hflip=0.0), PREPARED)
    torch.testing.assert_close(square(image), plain(image.crop((2, 0, 18, 16))) / 255)
    erased = TrainConfig(image_size=16, scale=(1, 1), ratio=(1.25, 1.25), hflip=0.0, random_erasing=1.0)
    difference = training_transform(erased, PREPARED)(image) - exact
    assert 0 < (difference != 0).float().mean() < 0.6
    # Noise in each pixel, not one colour.
    assert difference[0][difference[0] != 0].unique().numel() > 4
    normalised = training_transform(still, PREPARED._replace(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))(image)
    expected = (exact - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    torch.testing.assert_close(normalised, expected)
    jittered = TrainConfig(image_size=16, scale=(1, 1), ratio=(1.25, 1.25), hflip=0.0, color_jitter=0.4)
    assert not torch.allclose(training_transform(jittered, PREPARED)(image), exact, atol=0.01)


def test_validation_crops_the_centre_by_the_models_share_or_the_settings() -> None:
    image = picture(100).resize((40, 32))
    expected = {}
    for share in (1.0, 0.5):
        side = round(16 / share)
        resized = image.resize((side * 40 // 32, side), Image.Resampling.BICUBIC)
        left, top = round((resized.width - 16) / 2), (side - 16) // 2
        expected[share] = plain(resized.crop((left, top, left + 16, top + 16))) / 255
    for settings, crop_pct, share in ((None, 1.0, 1.0), (None, 0.5, 0.5), (0.5, 1.0, 0.5)):
        config = TrainConfig(image_size=16, crop_pct=settings)
        torch.testing.assert_close(
            validation_transform(config, PREPARED._replace(crop_pct=crop_pct))(image), expected[share]
        )


@pytest.mark.parametrize("policy", ["nonsense", "rand-x9", "original-x9"])
def test_unknown_policies_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=rf"^auto_augment: expected a policy that timm knows, .* got '{policy}'"):
        training_transform(TrainConfig(auto_augment=policy), PREPARED)


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m0", "original"])
def test_policies_at_their_strongest_keep_a_bit_of_each_colour(policy: str) -> None:
    """Pillow refuses to keep none."""
    transform = training_transform(TrainConfig(auto_augment=policy, image_size=16), PREPARED)
    torch.manual_seed(0)
    for seed in range(100):
        random.seed(seed)
        assert transform(picture(100)).shape == (3, 16, 16)


def test_a_share_of_unreadable_images_is_let_pass() -> None:
    counted = Unreadable(0.01, images=100_000)
    counted.add(500, 10, ["'a' (broken)"])  # of the first 1,000
    counted.add(500, 0, [])
    counted.add(4000, 40, [])
    with pytest.raises(
        DataError, match=r"^max_unreadable: expected at most 1\.00% .*, got 51 among 5001, first 'a' \(br"
    ):
        counted.add(1, 1, ["'b' (broken)"])


def test_unreadable_images_of_small_epochs() -> None:
    Unreadable(0.1, images=20).add(5, 2, [])
    with pytest.raises(DataError, match=r"got 3 among 5, first a, b, c; repair"):
        Unreadable(0.1, images=20).add(5, 3, ["a", "b", "c", "d"])
    with pytest.raises(DataError, match=r"at most 0\.00% unreadable images, got 1 among 8; repair"):
        Unreadable(0.0, images=100_000).add(8, 1, [])
    Unreadable(1.0, images=8).add(8, 8, [])
