"""Where training images come from, and what is said when they do not come."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_factory import create_reader

from tests.torchdcls_train.data.made_data import (
    CLASSES,
    picture,
    png,
    write_folder,
    write_parquet,
    write_shard,
    write_shards,
)
from torchdcls_train.data.image_set import ImageSet
from torchdcls_train.data.in_memory import load_data
from torchdcls_train.data.open_sources import MemoryImages, open_sources
from torchdcls_train.data.random_numbers import seed_of
from torchdcls_train.data.source_types import (
    DataError,
    Encoded,
    Images,
    Share,
    Sources,
    Stream,
    checked_label,
    fingerprint,
)
from torchdcls_train.settings import TrainConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training images, numbered from 0, and four to validate on."""
    return write_folder(tmp_path / "fruit", {"train": 6, "val": 4})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four shards of three training images, and two of two to validate on."""
    return write_shards(tmp_path / "shards", {"train": (4, 3), "val": (2, 2)})


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library, with a cache of its own, and without the seconds that it waits for threads of remote reading."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


@pytest.fixture
def parquet(hugging_face: Any, tmp_path: Path) -> Path:
    """Two files of five training images, and one of four to validate on."""
    return write_parquet(tmp_path / "parquet", {"train": (2, 5), "test": (1, 4)})


def config(data: str | Path, **settings: Any) -> TrainConfig:
    return TrainConfig(data=str(data), **settings)


def number(image: Image.Image) -> int:
    assert image.mode == "RGB" and image.size == (20, 16)
    pixel = image.getpixel((3, 3))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


def contents(source: Images | Stream) -> list[tuple[int, int]]:
    """Number and label of each image."""
    if isinstance(source, Stream):
        return [(number(each.image()), each.label) for each in source.read(Share(0, 0, 0, 0, 1, 0, 1))]
    return [(number(source[index][0]), source[index][1]) for index in range(len(source))]


def names(source: Images | Stream) -> list[str]:
    if isinstance(source, Stream):
        return [each.name for each in source.read(Share(0, 0, 0, 0, 1, 0, 1))]
    return [source.name(index) for index in range(len(source))]


def assert_holds(sources: Sources, train: range, validation: range) -> None:
    assert sorted(contents(sources.train)) == [(number, number % 2) for number in train]
    assert sorted(contents(sources.validation)) == [(number, number % 2) for number in validation]


# Image folders


@pytest.mark.parametrize("split", ["val", "validation", "test"])
def test_folder(folder: Path, split: str) -> None:
    (folder / "val").rename(folder / split)
    sources = open_sources(config(folder))
    assert_holds(sources, range(6), range(6, 10))
    assert (sources.classes, sources.num_classes, sources.name) == (CLASSES, 2, "fruit")
    assert names(sources.train)[:2] == [str(folder / "train" / "apple" / f"00{index}.png") for index in (0, 2)]


def test_folder_prefers_val_to_validation_and_test(folder: Path) -> None:
    write_folder(folder, {"validation": 2, "test": 2})
    assert_holds(open_sources(config(folder)), range(6), range(6, 10))


def test_folder_splits_by_name_and_path(folder: Path) -> None:
    sources = open_sources(config(folder, train_split="val", val_split="train"))
    assert_holds(sources, range(6, 10), range(6))
    sources = open_sources(config(folder.parent, train_split="fruit/train", val_split="fruit/val"))
    assert_holds(sources, range(6), range(6, 10))


def test_no_image_is_read_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    sources = open_sources(config(folder))
    assert not isinstance(sources.train, Stream) and len(sources.train) == 6


def test_validation_is_numbered_by_the_training_classes(folder: Path) -> None:
    for path in (folder / "val" / "apple").iterdir():
        path.unlink()
    assert contents(open_sources(config(folder)).validation) == [(7, 1), (9, 1)]


def test_folder_with_other_endings(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.rename(path.with_suffix(".picture"))
    assert_holds(open_sources(config(folder, input_key=".picture")), range(6), range(6, 10))
    with pytest.raises(
        ValueError, match=r"^data: expected images in .*train', got none that ends in \.png;\.jpg;\.jpeg"
    ):
        open_sources(config(folder))


def test_folders_are_in_the_order_of_timm(tmp_path: Path) -> None:
    """Runs that were begun with its reader resume: the images have their places, numbers and fingerprint."""
    for split in ("train", "val"):
        for name in ("10", "9", "9 b", "Apple", "banana"):
            (tmp_path / split / name).mkdir(parents=True)
            for file in ("10.png", "9.PNG", "a2.jpg", "A10.jpeg"):
                (tmp_path / split / name / file).touch()
    source = open_sources(config(tmp_path)).train
    assert not isinstance(source, Stream)
    theirs = create_reader("", root=str(tmp_path / "train"))
    assert names(source) == [path for path, _ in theirs.samples]
    assert source.class_numbers() == [label for _, label in theirs.samples]
    assert source.fingerprint() == fingerprint(
        (theirs.filename(index), label) for index, (_, label) in enumerate(theirs.samples)
    )


def test_classes_may_have_folders_of_their_own(folder: Path) -> None:
    """Training and comparisons read the same files."""
    apples = folder / "train" / "apple"
    (apples / "red").mkdir()
    (apples / "000.png").rename(apples / "red" / "000.png")
    picture(2).save(apples / "002.bmp")
    (apples / "002.png").unlink()
    assert_holds(open_sources(config(folder)), range(6), range(6, 10))
    assert load_data(folder).train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_broken_files_raise_when_they_are_read(folder: Path) -> None:
    (folder / "train" / "apple" / "000.png").write_bytes(png(0)[:60])
    source = open_sources(config(folder)).train
    assert not isinstance(source, Stream)
    with pytest.raises(OSError, match=r"truncated|broken|unrecognized|cannot identify"):
        source[0]
    assert number(source[1][0]) == 2


def test_some_of_a_folder(folder: Path) -> None:
    """The first of each class, as many of one as of the other, in the order of all."""
    sources = open_sources(config(folder, train_images=4, val_images=2))
    assert contents(sources.train) == [(0, 0), (2, 0), (1, 1), (3, 1)]
    assert contents(sources.validation) == [(6, 0), (7, 1)]
    assert names(sources.train) == [
        str(folder / "train" / name) for name in ("apple/000.png", "apple/002.png", "pear/001.png", "pear/003.png")
    ]
    assert sources.train.class_numbers() == [0, 0, 1, 1]  # type: ignore[union-attr]
    assert sources.classes == CLASSES


def replace_by_file(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.touch()


def rename(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


BROKEN_FOLDERS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (lambda f: rename(f, "x"), {}, r"data: expected a folder .* 'cifar10', 'wds/.* does not exist; check"),
    "a file": (replace_by_file, {}, r"data: .*which is a file; pass the folder that holds train/"),
    "no train": (lambda f: rename(f / "train", "x"), {}, r"train_split: .*fruit' \('val', 'x'\), got 'train'"),
    "no val": (
        lambda f: rename(f / "val", "x"),
        {},
        r"val_split: expected val, validation or test .* 'train', 'x'; name",
    ),
    "no such train_split": (lambda f: None, {"train_split": "x"}, r"train_split: expected one .* got 'x'"),
    "no such val_split": (lambda f: None, {"val_split": "x"}, r"val_split: expected one .* got 'x'"),
    "new class": (
        lambda f: (f / "val" / "pear").rename(f / "val" / "plum"),
        {},
        r"data: .*val' to be among those of '.*train', got 'plum' besides; rename",
    ),
    "images without a class": (
        lambda f: (f / "val" / "x.png").write_bytes(png(0)),
        {},
        r"data: expected one folder per class in '.*val', got images in none of them, such as 'x\.png'; move",
    ),
    "hidden folder": (
        lambda f: rename(f / "train" / "pear", ".pear"),
        {},
        r"data: .*train', got images in '\.pear', which is hidden; remove it",
    ),
    "empty": (lambda f: [p.unlink() for p in f.rglob("val/*/*.png")], {}, r"data: expected images in .*val', got none"),
    "data_dir": (lambda f: None, {"data_dir": Path("x")}, r"data_dir: expected None where data is itself a folder"),
    "train_images": (
        lambda f: None,
        {"train_images": 7},
        r"train_images: expected at most 6, as many as there are, got 7",
    ),
    "val_images": (lambda f: None, {"val_images": 5}, r"val_images: expected at most 4, as many as there are, got 5"),
    "num_classes": (lambda f: None, {"num_classes": 1}, r"num_classes: expected at least 2, .* got 1; leave it out"),
}


@pytest.mark.parametrize("case", BROKEN_FOLDERS)
def test_broken_folders_are_explained(folder: Path, case: str) -> None:
    damage, settings, message = BROKEN_FOLDERS[case]
    damage(folder)
    with pytest.raises(ValueError, match=rf"^{message}"):
        open_sources(config(folder, **settings))


def test_numbers_that_say_what_is_there_are_accepted(folder: Path) -> None:
    open_sources(config(folder, train_images=6, val_images=4, num_classes=10))


# Data sets with a name


def test_embedded() -> None:
    sources = open_sources(config("embedded"))
    assert not isinstance(sources.train, Stream) and not isinstance(sources.validation, Stream)
    assert (len(sources.train), len(sources.validation)) == (6000, 1000)
    assert sources.num_classes == 10 and sources.classes is not None and sources.classes[9] == "Ankle boot"
    image, label = sources.train[5]
    assert image.mode == "RGB" and image.size == (28, 28) and label in range(10)
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all() and pixels.std() > 10
    assert sources.train.name(5) == "fashion-mnist-subset train[5]"
    assert sources.validation.name(0) == "fashion-mnist-subset test[0]"


def test_cifar10(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"{split}_images": random.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8) for split in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", train_labels=np.arange(4), test_labels=np.arange(4, 8), **arrays)
    sources = open_sources(config("cifar10", data_dir=tmp_path))
    for split, source in (("train", sources.train), ("test", sources.validation)):
        assert not isinstance(source, Stream)
        assert all(np.array_equal(np.asarray(source[index][0]), arrays[f"{split}_images"][index]) for index in range(4))
    assert sources.validation.__getitem__(3)[1] == 7 and sources.name == "cifar10"  # type: ignore[union-attr]


def test_named_data_swap_their_splits_and_have_no_others() -> None:
    sources = open_sources(config("embedded", train_split="test", val_split="train"))
    assert (len(sources.train), len(sources.validation)) == (1000, 6000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^val_split: expected one of the splits of 'embedded' \('train', 'test'\)"):
        open_sources(config("embedded", val_split="val"))
    with pytest.raises(ValueError, match=r"^data_dir: expected None unless"):
        open_sources(config("embedded", data_dir=Path("x")))


def test_some_of_named_data() -> None:
    sources = open_sources(config("embedded", train_images=100, val_images=20))
    for source, count in ((sources.train, 10), (sources.validation, 2)):
        numbers = source.class_numbers()  # type: ignore[union-attr]
        assert [numbers.count(label) for label in range(10)] == [count] * 10
        assert numbers == [source[index][1] for index in range(len(source))]  # type: ignore[union-attr, index, arg-type]
    with pytest.raises(ValueError, match=r"^train_images: expected at most 6000, as many as there are, got 6001$"):
        open_sources(config("embedded", train_images=6001))


# Shards


def test_shards(shards: Path) -> None:
    sources = open_sources(config(f"wds/{shards}", num_classes=2))
    assert_holds(sources, range(12), range(12, 16))
    assert (sources.classes, sources.num_classes, sources.name) == (None, 2, "shards")
    assert isinstance(sources.train, Stream) and isinstance(sources.validation, Stream)
    assert (sources.train.count, sources.validation.count) == (12, 4)
    assert (sources.train.readers(1), sources.train.readers(2), sources.train.readers(3)) == (4, 2, 1)
    assert names(sources.validation)[0] == f"{shards}/val-0000.tar/012.png"


@pytest.mark.parametrize(("count", "readers"), [(12, 4), (6, 2), (7, 3), (1, 1)])
def test_some_of_the_shards(shards: Path, count: int, readers: int) -> None:
    """Four shards of three: the first ones that are needed, the last of them in part."""
    sources = open_sources(config(f"wds/{shards}", num_classes=2, train_images=count, val_images=3))
    assert_holds(sources, range(count), range(12, 15))
    assert isinstance(sources.train, Stream) and isinstance(sources.validation, Stream)
    assert (sources.train.count, sources.validation.count, sources.train.readers(1)) == (count, 3, readers)
    with pytest.raises(ValueError, match=r"^train_images: expected at most 12, as many as there are, got 13$"):
        open_sources(config(f"wds/{shards}", num_classes=2, train_images=13))


def test_shards_by_pattern(shards: Path) -> None:
    (shards / "_info.json").unlink()
    patterns = {"train_split": "train-{0000..0003}.tar", "val_split": "val-{0000..0001}.tar"}
    sources = open_sources(config(f"wds/{shards}", **patterns, train_images=12))
    assert_holds(sources, range(12), range(12, 16))
    patterns["train_split"] += "|12"
    assert open_sources(config(f"wds/{shards}", **patterns)).train.count == 12  # type: ignore[union-attr]
    patterns["train_split"] = "train-{0000..0003}.tar"
    with pytest.raises(
        ValueError, match=r"^train_images: expected a number, since 'wds/.*' does not say how many images 'train-"
    ):
        open_sources(config(f"wds/{shards}", **patterns))


def test_training_shards_are_shuffled_by_epoch_and_validation_is_not(shards: Path) -> None:
    sources = open_sources(config(f"wds/{shards}"))

    def order(source: Any, epoch: int, seed: int = 0) -> list[str]:
        return [each.name for each in source.read(Share(seed, epoch, 0, 0, 1, 0, 1))]

    first = order(sources.train, 0)
    assert first == order(sources.train, 0) and first != sorted(first)
    assert len({tuple(first), tuple(order(sources.train, 1)), tuple(order(sources.train, 0, seed=1))}) == 3
    # A process has other shards in other epochs.
    assert isinstance(sources.train, Stream)
    parts = {frozenset(each.name for each in sources.train.read(Share(0, epoch, 0, 0, 2, 0, 1))) for epoch in range(8)}
    assert len(parts) > 2 and all(len(part) == 6 for part in parts)
    assert [number(each.image()) for each in sources.validation.read(Share(0, 0, 0, 0, 1, 0, 1))] == [12, 13, 14, 15]  # type: ignore[union-attr]


def test_labels_from_json(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": (2, 5), "val": (1, 3)}, json_labels=True)
    sources = open_sources(config(f"wds/{shards}", target_key="kind"))
    # Image 7 is marked as having no label.
    assert sorted(contents(sources.train)) == [(each, each % 2) for each in range(10) if each != 7]
    with pytest.raises(
        DataError, match=r"^target_key: expected the label of .* in the field 'sort' of its \.json, got Key"
    ):
        contents(open_sources(config(f"wds/{shards}", target_key="sort")).train)
    with pytest.raises(DataError, match=r"^target_key: expected the label of .* in its \.cls, got KeyError"):
        contents(open_sources(config(f"wds/{shards}")).train)


def test_samples_without_an_image_say_so(shards: Path) -> None:
    source = open_sources(config(f"wds/{shards}", input_key="jpg")).validation
    assert isinstance(source, Stream)
    with pytest.raises(ValueError, match=r"no image in the sample; input_key"):
        next(iter(source.read(Share(0, 0, 0, 0, 1, 0, 1)))).image()


def test_labels_out_of_range_stop(shards: Path) -> None:
    message = r"^data: expected a class number below 1 as the label of '.*', got 1; target_key"
    with pytest.raises(DataError, match=message):
        contents(open_sources(config(f"wds/{shards}", num_classes=1)).train)


@pytest.mark.parametrize(
    ("size", "message"), [(2300, "expected 2 samples in"), (600, "expected a readable shard, got")]
)
def test_a_shard_that_breaks_off_stops(shards: Path, size: int, message: str) -> None:
    path = shards / "val-0001.tar"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"^data: {message} '.*val-0001\.tar', .*fetch it again"):
        contents(open_sources(config(f"wds/{shards}")).validation)


@pytest.mark.parametrize("count", [None, 9])
def test_a_shard_with_more_samples_than_its_index_says_stops(shards: Path, count: int | None) -> None:
    """Before the last sample that the index tells of, so that a run that needs no more stops too."""
    write_shard(shards / "train-0002.tar", range(6, 10))
    train = open_sources(config(f"wds/{shards}", train_images=count)).train
    assert isinstance(train, Stream)
    train.training = False  # type: ignore[attr-defined]  # in order, without a buffer
    taken = []
    with pytest.raises(
        DataError, match=r"^data: expected 3 samples in '.*train-0002\.tar', as its index says, got more"
    ):
        for encoded in train.read(Share(0, 0, 0, 0, 1, 0, 1)):
            taken.append(number(encoded.image()))
    assert taken == list(range(8))


def test_a_shard_read_in_part_may_have_more(shards: Path) -> None:
    write_shard(shards / "train-0002.tar", range(6, 10))
    assert_holds(open_sources(config(f"wds/{shards}", train_images=8)), range(8), range(12, 16))


def edit_info(folder: Path, split: str, **changes: Any) -> None:
    info = json.loads((folder / "_info.json").read_text())
    for key, value in changes.items():
        if value is None:
            del info["splits"][split][key]
        else:
            info["splits"][split][key] = value
    (folder / "_info.json").write_text(json.dumps(info))


BROKEN_SHARDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (lambda f: rename(f, "x"), {}, r"data: expected a folder of shards behind 'wds/', .* does not exist"),
    "a file": (replace_by_file, {}, r"data: expected a folder of shards behind 'wds/', .* is a file"),
    "no info": (lambda f: (f / "_info.json").unlink(), {}, r"train_split: expected a pattern such as 'train-\{0000"),
    "no info for val": (
        lambda f: (f / "_info.json").unlink(),
        {"train_split": "train-0000.tar|3"},
        r"val_split: expected a pattern such as .* since '.*shards' has no _info\.json .* got None",
    ),
    "broken info": (
        lambda f: (f / "_info.json").write_text("{"),
        {},
        r"data: expected the splits of the shards in '.*_info\.json', got JSONDecodeError",
    ),
    "info without splits": (
        lambda f: (f / "_info.json").write_text("{}"),
        {},
        r"data: expected the splits of the shards in '.*_info\.json', got KeyError",
    ),
    "incomplete info": (
        lambda f: edit_info(f, "val", filenames=None),
        {},
        r"val_split: expected a split of '.*' with num_samples, .* got 'val' \(KeyError: 'filenames'\)",
    ),
    "no such split": (lambda f: None, {"val_split": "x"}, r"val_split: expected one of .* \('train', 'val'\), got 'x'"),
    "missing shard": (
        lambda f: (f / "train-0002.tar").unlink(),
        {},
        r"train_split: expected the shards of 'train' in '.*', got no 'train-0002\.tar'",
    ),
    "no shards": (lambda f: edit_info(f, "val", filenames=[]), {}, r"val_split: .* got no name of one"),
    "another count": (
        lambda f: edit_info(f, "train", num_samples=9),
        {},
        r"train_split: expected num_samples 12 for 'train' of '.*', the sum of its shard_lengths, got 9; write",
    ),
    "no count": (
        lambda f: edit_info(f, "train", num_samples=0),
        {},
        r"train_images: expected a number, since 'wds/.*' does not say how many images 'train'",
    ),
    "data_dir": (lambda f: None, {"data_dir": Path("x")}, r"data_dir: expected None where data is itself a folder"),
}


@pytest.mark.parametrize("case", BROKEN_SHARDS)
def test_broken_shards_are_explained(shards: Path, case: str) -> None:
    damage, settings, message = BROKEN_SHARDS[case]
    damage(shards)
    with pytest.raises(ValueError, match=rf"^{message}"):
        open_sources(config(f"wds/{shards}", **settings))


# What a source is known again by


def fingerprints(data: str, **settings: Any) -> list[str]:
    identity = open_sources(config(data, **settings)).identity()
    return [identity[split]["fingerprint"] for split in ("training", "validation")]


def test_a_folder_is_known_by_names_and_labels(folder: Path, tmp_path: Path) -> None:
    before = fingerprints(str(folder))
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert fingerprints(str(moved)) == before
    assert open_sources(config(moved)).identity()["training"]["images"] == 6
    (moved / "train" / "apple" / "000.png").rename(moved / "train" / "pear" / "000.png")
    training, validation = fingerprints(str(moved))
    assert training != before[0] and validation == before[1]
    (moved / "train" / "pear" / "000.png").rename(moved / "train" / "apple" / "000.png")
    (moved / "val" / "pear" / "100.png").write_bytes(png(100))
    training, validation = fingerprints(str(moved))
    assert training == before[0] and validation != before[1]


def test_images_in_memory_are_known_by_pixels_and_labels() -> None:
    data = load_data("embedded").test
    images = ImageSet(data.images[:4], data.labels[:4])
    before = MemoryImages(images, "a").fingerprint()
    assert MemoryImages(images, "b").fingerprint() == before
    for changed in (ImageSet(images.images, 9 - images.labels), ImageSet(255 - images.images, images.labels)):
        assert MemoryImages(changed, "a").fingerprint() != before


def test_shards_are_known_by_names_and_sizes(shards: Path, tmp_path: Path) -> None:
    before = fingerprints(f"wds/{shards}")
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert fingerprints(f"wds/{moved}") == before
    write_shard(moved / "train-0002.tar", range(6, 15))
    assert fingerprints(f"wds/{moved}") != before


def test_datasets_are_known_by_labels_and_streams_by_files(parquet: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(parquet, tmp_path / "moved")
    for kind in ("hfds", "hfids"):
        assert fingerprints(f"{kind}/{moved}", train_images=10) == fingerprints(f"{kind}/{parquet}", train_images=10)
    # One row more in the place of another class, and a file more.
    write_parquet(tmp_path / "other", {"train": (2, 5), "test": (1, 5)})
    assert fingerprints(f"hfds/{tmp_path / 'other'}")[1] != fingerprints(f"hfds/{parquet}")[1]
    write_parquet(tmp_path / "files", {"train": (3, 5), "test": (1, 4)})
    assert fingerprints(f"hfids/{tmp_path / 'files'}", train_images=10) != fingerprints(
        f"hfids/{parquet}", train_images=10
    )


# Hugging Face's datasets


def test_dataset_on_disk(parquet: Path, tmp_path: Path) -> None:
    sources = open_sources(config(f"hfds/{parquet}", data_dir=tmp_path / "kept"))
    assert_holds(sources, range(10), range(10, 14))
    assert (sources.classes, sources.num_classes) == (CLASSES, 2)
    assert names(sources.validation)[3] == f"{parquet} test[3]"
    assert any((tmp_path / "kept").iterdir())


def test_some_of_a_dataset(hugging_face: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "fruit", {"train": 6, "test": 4})
    sources = open_sources(config(f"hfds/{folder}", train_images=4, val_images=2))
    assert sorted(contents(sources.train)) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert sorted(contents(sources.validation)) == [(6, 0), (7, 1)]


def test_dataset_of_a_folder_and_parts_of_splits(hugging_face: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "fruit", {"train": 6, "test": 4})
    sources = open_sources(config(f"hfds/{folder}", train_split="train[:4]", val_split="train[4:]"))
    found = sorted(contents(sources.train) + contents(sources.validation))
    assert found == [(each, each % 2) for each in range(6)] and len(contents(sources.train)) == 4


def test_streamed_dataset(parquet: Path) -> None:
    sources = open_sources(config(f"hfids/{parquet}", train_images=10))
    assert_holds(sources, range(10), range(10, 14))
    assert (sources.classes, sources.num_classes) == (CLASSES, 2)
    assert isinstance(sources.train, Stream)
    assert (sources.train.count, sources.validation.count) == (10, None)  # type: ignore[union-attr]
    assert [sources.train.readers(world) for world in (1, 2, 3)] == [2, 1, 2]
    assert "010.png" in names(sources.validation)[0]


def test_streamed_folder_is_read_from_its_files(hugging_face: Any, tmp_path: Path) -> None:
    """The rows hold the paths of the files, not their bytes."""
    folder = write_folder(tmp_path / "fruit", {"train": 6, "test": 4})
    assert_holds(open_sources(config(f"hfids/{folder}", train_images=6)), range(6), range(6, 10))


def test_streamed_dataset_is_shuffled_by_epoch(parquet: Path) -> None:
    source = open_sources(config(f"hfids/{parquet}", train_images=10)).train
    assert isinstance(source, Stream)

    def order(epoch: int, seed: int = 0) -> list[str]:
        return [each.name for each in source.read(Share(seed, epoch, 0, 0, 1, 0, 1))]

    first = order(0)
    assert first == order(0) and len(set(first)) == 10
    assert len({tuple(first), tuple(order(1)), tuple(order(0, seed=1))}) == 3


def test_streams_are_in_the_order_of_timm(hugging_face: Any, tmp_path: Path) -> None:
    """Runs that were begun with its reader resume."""
    parquet = write_parquet(tmp_path / "parquet", {"train": (3, 5), "test": (1, 4)})
    source = open_sources(config(f"hfids/{parquet}", train_images=15)).train
    assert isinstance(source, Stream)
    theirs = create_reader(f"hfids/{parquet}", split="train", num_samples=15, is_training=True)
    for epoch in range(2):
        theirs.set_epoch(seed_of("rows", 0, epoch, 0) % 2**31)
        ours = source.read(Share(0, epoch, 0, 0, 1, 0, 1))
        assert [number(each.image()) for each in ours] == [number(image) for image, _ in theirs]


def test_rows_without_an_image_or_that_cannot_be_read(hugging_face: Any, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "parquet", {"train": (2, 5), "test": (1, 4)})
    features = hugging_face.Features(image=hugging_face.Image(), label=hugging_face.Value("int64"))
    rows = {"image": [None, {"bytes": png(1), "path": None}], "label": [0, 1]}
    hugging_face.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "test-00000-of-00001.parquet"))
    sources = open_sources(config(f"hfids/{folder}", train_images=10))
    assert isinstance(sources.validation, Stream)
    empty, full = sources.validation.read(Share(0, 0, 0, 0, 1, 0, 1))
    assert empty.content is None and number(full.image()) == 1 and full.name.endswith("row 1 of reader 0 of process 0")
    (folder / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(
        DataError, match=r"^data: expected readable rows of '.* test', got [^\n]* after 0 rows of reader 0"
    ):
        contents(sources.validation)


@pytest.mark.parametrize("kind", ["hfds", "hfids"])
def test_datasets_that_are_not_there_are_explained(parquet: Path, kind: str) -> None:
    def opened(name: str | Path, **settings: Any) -> Sources:
        return open_sources(config(f"{kind}/{name}", **settings))

    for name in (parquet.parent / "nowhere", "nobody/nothing"):
        with pytest.raises(
            ValueError, match=rf"^data: expected a dataset of Hugging Face .* got '{name}' \(.*\); check"
        ):
            opened(name)
    with pytest.raises(ValueError, match=r"^train_split: expected one of .* \('train', 'test'\), got 'x'"):
        opened(parquet, train_split="x")
    with pytest.raises(ValueError, match=r"^data: expected the split 'train\[x\]' of"):
        opened(parquet, train_split="train[x]", train_images=10)


@pytest.mark.parametrize("kind", ["hfds", "hfids"])
@pytest.mark.parametrize("setting", ["input_key", "target_key"])
def test_columns_that_are_not_there_are_explained(parquet: Path, kind: str, setting: str) -> None:
    with pytest.raises(ValueError, match=rf"^{setting}: expected a column of '.*' \(image, label\), got 'kind'"):
        open_sources(config(f"{kind}/{parquet}", train_images=10, **{setting: "kind"}))


def test_streamed_dataset_of_unknown_length_is_refused(parquet: Path) -> None:
    with pytest.raises(ValueError, match=r"^train_images: expected a number, since '.*' does not say how many"):
        open_sources(config(f"hfids/{parquet}"))


@pytest.mark.parametrize(("kind", "package"), [("wds", "webdataset"), ("hfds", "datasets"), ("hfids", "datasets")])
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("torchdcls_train.data.shards", "torchdcls_train.data.hugging_face"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    sentence = rf"^data: '{kind}/x' needs the packages of the data extra \({package} is missing\): pip install "
    with pytest.raises(ModuleNotFoundError, match=sentence):
        open_sources(config(f"{kind}/x"))


# Images and labels


@pytest.fixture(params=["folder", "wds", "hfds", "hfids"])
def source(request: pytest.FixtureRequest) -> str:
    """Data with images of 20 x 16 pixels, in each layout that training reads."""
    kind = request.param
    path = request.getfixturevalue({"folder": "folder", "wds": "shards", "hfds": "parquet", "hfids": "parquet"}[kind])
    return str(path) if kind == "folder" else f"{kind}/{path}"


def first_image(sources: Sources) -> Image.Image:
    source = sources.validation
    return next(source.read(Share(0, 0, 0, 0, 1, 0, 1))).image() if isinstance(source, Stream) else source[0][0]


def test_images_with_too_many_pixels_are_not_decoded(source: str) -> None:
    settings = {"train_images": 10} if source.startswith("hfids/") else {}
    assert first_image(open_sources(config(source, max_image_pixels=320, **settings))).size == (20, 16)
    with pytest.raises(
        ValueError, match=r"^max_image_pixels: expected at most 319 pixels, got 320 \(20 x 16\); .*raise"
    ):
        first_image(open_sources(config(source, max_image_pixels=319, **settings)))


@pytest.mark.parametrize("label", [-1, 3, 1.5, "apple", None, [1]])
def test_labels_are_class_numbers(label: object) -> None:
    with pytest.raises(DataError, match=r"^data: expected a class number below 3 as the label of 'x', got"):
        checked_label(label, 3, "x")


def test_good_labels() -> None:
    assert checked_label(np.int64(2), 3, "x") == 2 and type(checked_label(np.int64(2), None, "x")) is int


def test_encoded_images_come_from_bytes_or_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(5))
    assert number(Encoded("x", png(5), 0).image()) == number(Encoded("x", str(tmp_path / "x.png"), 0).image()) == 5


def test_one_shard_is_enough_to_validate_on(tmp_path: Path, shards: Path) -> None:
    write_shard(shards / "extra.tar", range(20, 23))
    sources = open_sources(replace(config(f"wds/{shards}"), val_split="extra.tar"))
    assert sorted(contents(sources.validation)) == [(20, 0), (21, 1), (22, 0)]
