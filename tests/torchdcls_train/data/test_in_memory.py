"""Data sources and their errors."""

import gzip
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from torchdcls_train.data import ImageData, ImageSet, fashion_mnist, load_data
from torchdcls_train.data.fashion_mnist import DEBIAN_FOLDER, EMBEDDED_FILE, read_fashion_mnist, read_idx
from torchdcls_train.data.in_memory import channel_mean_std

REPOSITORY = Path(__file__).parents[3]
EMBEDDED_FOLDER = REPOSITORY / "src" / "torchdcls_train" / "data" / "embedded"
FULL_DATA = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs the full Fashion-MNIST (apt-get install dataset-fashion-mnist)"
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = REPOSITORY / "scripts" / "make_fashion_subset.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The embedded subset


def test_embedded_is_balanced_and_needs_no_argument() -> None:
    data = load_data()
    assert data.train.images.shape == (6000, 1, 28, 28) and data.train.images.dtype == torch.uint8
    assert data.test.images.shape == (1000, 1, 28, 28) and data.test.labels.dtype == torch.int64
    assert data.train.labels.bincount().tolist() == [600] * 10
    assert data.test.labels.bincount().tolist() == [100] * 10
    assert (data.channels, data.image_size, data.num_classes, data.skipped) == (1, 28, 10, 0)
    assert data.classes[0] == "T-shirt/top" and data.classes[9] == "Ankle boot"


def test_embedded_classes_are_mixed_in_order() -> None:
    # A file sorted by class would make every unshuffled prefix one class.
    assert len(load_data().train.labels[:100].unique()) == 10


@FULL_DATA
def test_embedded_is_what_the_script_draws(script: ModuleType) -> None:
    drawn = script.make_subset(DEBIAN_FOLDER)
    with np.load(EMBEDDED_FOLDER / EMBEDDED_FILE) as embedded:
        assert set(embedded.files) == set(drawn)
        for name, array in drawn.items():
            assert embedded[name].dtype == array.dtype == np.uint8
            assert np.array_equal(embedded[name], array), name


@FULL_DATA
def test_embedded_images_are_distinct_rows_of_the_full_data() -> None:
    subset, (train, _) = load_data().train, read_fashion_mnist(DEBIAN_FOLDER)
    full = {image.numpy().tobytes(): int(label) for image, label in zip(train.images, train.labels, strict=True)}
    rows = [image.numpy().tobytes() for image in subset.images]
    assert len(set(rows)) == len(rows)
    assert [full[row] for row in rows] == subset.labels.tolist()


def test_script_writes_the_same_bytes_at_any_time(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"a": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    script.write_npz(tmp_path / "first.npz", arrays)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    script.write_npz(tmp_path / "second.npz", arrays)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    with np.load(tmp_path / "first.npz") as read:
        assert np.array_equal(read["a"], arrays["a"])


def test_script_refuses_data_that_are_too_few(script: ModuleType, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    with pytest.raises(ValueError, match=r"train: expected at least 600 images of class 0, got 2"):
        script.make_subset(tmp_path)


def test_licence_notice_is_the_scripts(script: ModuleType) -> None:
    text = (EMBEDDED_FOLDER / script.LICENSE_FILE).read_text(encoding="utf-8")
    assert text == script.LICENSE_TEXT
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in text and EMBEDDED_FILE in text


def test_embedded_resizes() -> None:
    data = load_data(image_size=32)
    assert data.train.images.shape == (6000, 1, 32, 32) and data.train.images.dtype == torch.uint8
    assert data.image_size == 32
    # Resizing keeps the picture: the mean grey value barely moves.
    assert abs(data.train.images.float().mean() - load_data().train.images.float().mean()) < 1


@pytest.mark.parametrize("size", [7, 0, -28, 28.5, True, float("nan")])
def test_image_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match=r"image_size: expected"):
        load_data(image_size=size)


def test_data_dir_without_fashion_mnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_dir: expected None unless data is 'fashion-mnist'"):
        load_data("embedded", data_dir=tmp_path)


# idx files and the whole of Fashion-MNIST


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path, compress: bool = True) -> dict[str, np.ndarray]:
    """Four small idx files, two images a class, with numbers that tell them apart."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    arrays = {
        f"{split}-{name}-ubyte": array
        for split in ("train", "t10k")
        for name, array in (
            ("images-idx3", random.integers(0, 256, (20, 28, 28), dtype=np.uint8)),
            ("labels-idx1", random.permutation(np.repeat(np.arange(10, dtype=np.uint8), 2))),
        )
    }
    for name, array in arrays.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return arrays


def assert_is(data: ImageData, arrays: dict[str, np.ndarray]) -> None:
    for split, images in (("train", data.train), ("t10k", data.test)):
        assert np.array_equal(images.images[:, 0].numpy(), arrays[f"{split}-images-idx3-ubyte"])
        assert images.labels.tolist() == arrays[f"{split}-labels-idx1-ubyte"].tolist()


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw", "raw"])
def test_fashion_mnist_from_a_folder(tmp_path: Path, below: str, compress: bool) -> None:
    arrays = write_fashion_mnist(tmp_path / below, compress)
    data = load_data("fashion-mnist", data_dir=tmp_path)
    assert_is(data, arrays)
    assert data.name == "fashion-mnist" and data.num_classes == 10


def test_fashion_mnist_resizes(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    assert load_data("fashion-mnist", data_dir=tmp_path, image_size=14).test.images.shape == (20, 1, 14, 14)


def test_plain_file_wins_over_gzipped_one(tmp_path: Path) -> None:
    arrays = write_fashion_mnist(tmp_path, compress=False)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b left over from a broken download")
    assert_is(load_data("fashion-mnist", data_dir=tmp_path), arrays)


@FULL_DATA
def test_fashion_mnist_from_debian() -> None:
    data = load_data("fashion-mnist")
    assert len(data.train) == 60_000 and len(data.test) == 10_000
    assert data.train.labels.bincount().tolist() == [6000] * 10


def test_data_dir_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_dir: expected a folder .* does not exist"):
        load_data("fashion-mnist", data_dir=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data_dir: expected a folder .* is a file"):
        load_data("fashion-mnist", data_dir=tmp_path / "file")


def test_missing_idx_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_dir: .* got no train-images-idx3-ubyte and no train-labels"):
        load_data("fashion-mnist", data_dir=tmp_path)
    write_fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"got no t10k-labels-idx1-ubyte; pass"):
        load_data("fashion-mnist", data_dir=tmp_path)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
@pytest.mark.parametrize("encode", [bytes, gzip.compress])
def test_idx_round_trip(tmp_path: Path, shape: tuple[int, ...], encode: Callable[[bytes], bytes]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "x").write_bytes(encode(idx_bytes(np.asarray(array))))
    read = read_idx(tmp_path / "x", dims=len(shape))
    assert read.dtype == torch.uint8 and read.shape == shape and np.array_equal(read.numpy(), array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
BROKEN_IDX = {
    "empty": (b"", "got an empty file"),
    "other format": (b"\x89PNG" + bytes(40), "got 89 50 4e 47"),
    "other element type": (bytes([0, 0, 13, 3]) + GOOD[4:], "got 00 00 0d 03"),
    "other number of axes": (bytes([0, 0, 8, 1]) + GOOD[4:], "got 00 00 08 01"),
    "header cut off": (GOOD[:10], "expected an idx file"),
    "data cut off": (GOOD[:-1], r"expected 40 bytes for an array of shape \(2, 3, 4\), got 39"),
    "data too long": (GOOD + b"\0", "expected 40 bytes .* got 41"),
    "gzip cut off": (gzip.compress(GOOD)[:-12], "expected a readable idx file"),
    "gzip broken": (b"\x1f\x8b" + bytes(30), "expected a readable idx file"),
    "gzip garbled": (gzip.compress(GOOD)[:10] + b"\xff" * 30, "expected a readable idx file"),
    "gzip of cut data": (gzip.compress(GOOD[:-1]), "got 39"),
    "gzip with a wrong sum": (gzip.compress(GOOD)[:-8] + bytes(8), "expected a readable idx file"),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_broken_idx_files_are_named(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_IDX[case]
    (tmp_path / "broken.idx").write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.idx: .*{message}"):
        read_idx(tmp_path / "broken.idx", dims=3)


def test_idx_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: expected a readable idx file"):
        read_idx(tmp_path / "nowhere", dims=1)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "train-images-idx3",
            np.zeros((20, 32, 32), np.uint8),
            r"expected images of shape \(28, 28\), got \(20, 32, 32",
        ),
        ("t10k-images-idx3", np.zeros((0, 28, 28), np.uint8), r"expected images of shape"),
        ("train-labels-idx1", np.zeros(19, np.uint8), "expected 20 labels, one per image, got 19"),
        ("t10k-labels-idx1", np.full(20, 10, np.uint8), "expected labels from 0 to 9, got 10"),
    ],
)
def test_idx_files_that_do_not_fit(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(ValueError, match=rf"{name}-ubyte\.gz: {message}"):
        load_data("fashion-mnist", data_dir=tmp_path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Debian package here, and a cache of its own."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "torchdcls"


def test_download_happens_once_and_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(root: str, download: bool) -> None:
        assert download
        calls.append(write_fashion_mnist(Path(root) / "FashionMNIST" / "raw"))

    monkeypatch.setattr(fashion_mnist, "FashionMNIST", download)
    assert_is(load_data("fashion-mnist"), calls[0])
    assert_is(load_data("fashion-mnist"), calls[0])
    assert len(calls) == 1
    assert [entry.name for entry in cache.iterdir()] == ["FashionMNIST"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error downloading train-images:\nTried https://mirror, got:\nno route\n"), r"\(no route\)"),
        (URLError("name not known"), r"name not known"),
        (PermissionError("read-only"), r"\(read-only\)"),
        (RuntimeError(), r"\(RuntimeError\)"),
    ],
)
def test_download_that_fails_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(root: str, download: bool) -> None:
        (Path(root) / "FashionMNIST").mkdir()
        raise error

    monkeypatch.setattr(fashion_mnist, "FashionMNIST", fail)
    with pytest.raises(ValueError, match=reason) as caught:
        load_data("fashion-mnist")
    message = str(caught.value)
    for advice in ("apt-get install dataset-fashion-mnist", "--data-dir", "connect to the network"):
        assert advice in message
    assert "\n" not in message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    # Nothing half-finished stays that the next call would take for the data.
    assert list(cache.iterdir()) == []


# Image folders


def write_image(path: Path, shade: int = 100, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode in ("L", "P", "I;16") else (shade, shade // 2, 10)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three training and two test images each; the shade tells class and image."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("apple", "pear")):
            for index in range(count):
                write_image(tmp_path / "fruit" / split / name / f"{index}.png", shade=100 * label + 10 * index)
    return tmp_path / "fruit"


def test_image_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data(str(folder), image_size=8)
    assert data.train.images.shape == (6, 3, 8, 8) and data.test.images.shape == (4, 3, 8, 8)
    assert data.classes == ("apple", "pear") and data.name == "fruit" and data.skipped == 0
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.train.labels.dtype == torch.int64
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 100, 110, 120]
    assert data.train.images[:, 2].unique().tolist() == [10]
    assert capsys.readouterr() == ("", "")


def test_image_folder_accepts_val_and_defaults_to_64(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert load_data(folder).test.images.shape == (4, 3, 64, 64)


def test_image_folder_prefers_test_to_val(folder: Path) -> None:
    write_image(folder / "val" / "apple" / "0.png")
    assert len(load_data(folder).test) == 4


def test_crop_takes_the_centre(folder: Path) -> None:
    pixels = np.zeros((8, 40, 3), np.uint8)
    pixels[:, 16:24] = 200
    for path in folder.rglob("*.png"):
        Image.fromarray(pixels).save(path)
    assert load_data(folder, image_size=8).train.images.unique().tolist() == [200]


def test_photographs_are_turned_upright(folder: Path) -> None:
    """A camera stores pixels as the sensor saw them, and beside them which way was up."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 200
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    for path in folder.rglob("*.png"):
        Image.fromarray(pixels).save(path, exif=turned)
    images = load_data(folder, image_size=8).train.images
    assert images[:, :, :4].max() == 0
    assert images[:, :, 4:].min() == 200


def test_large_images_are_reduced_with_averaging(folder: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    for path in folder.rglob("*.png"):
        Image.fromarray(np.stack([board] * 3, axis=-1).astype(np.uint8)).save(path)
    images = load_data(folder, image_size=8).train.images
    assert images.min() > 100 and images.max() < 155


def test_greyscale_folders_keep_one_channel(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        write_image(path, shade=77, mode="L")
    data = load_data(folder, image_size=8)
    assert data.channels == 1 and data.test.images.shape == (4, 1, 8, 8)
    assert data.train.images.unique().tolist() == [77]


def test_one_coloured_test_image_makes_all_rgb(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        write_image(path, shade=77, mode="L")
    write_image(folder / "test" / "pear" / "0.png", shade=200)
    data = load_data(folder, image_size=8)
    assert data.channels == 3 and data.train.images.unique().tolist() == [77]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(folder: Path, suffix: str) -> None:
    for path in list(folder.rglob("*.png")):
        Image.fromarray(np.full((12, 10), 0x6421, np.uint16)).save(path.with_suffix(f".{suffix}"))
        if suffix != "png":
            path.unlink()
    data = load_data(folder, image_size=8)
    assert data.skipped == 0 and data.train.images.unique().tolist() == [0x64]


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "P", "LA"])
def test_other_modes_are_read(folder: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (9, 9)).save(folder / "train" / "apple" / f"x.{suffix}")
    data = load_data(folder, image_size=8)
    assert data.skipped == 0 and len(data.train) == 7 and data.channels == 3


def test_unreadable_images_are_left_out_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apples = folder / "train" / "apple"
    (apples / "text.png").write_text("not an image")
    (apples / "empty.jpg").touch()
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "tif", "webp"):
        path = folder / "test" / "pear" / f"cut.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Image.fromarray(np.ones((9, 9), np.float32)).save(apples / "float.tif")
    data = load_data(folder, image_size=8)
    assert data.skipped == 7 and len(data.train) == 6 and len(data.test) == 4
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "Left out 7 unreadable images" in err and "'train/apple/empty.jpg'" in err and "and 4 more" in err


def test_other_files_and_hidden_folders_are_ignored(folder: Path) -> None:
    (folder / "train" / "apple" / "notes.txt").write_text("hello")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "test" / ".cache").mkdir()
    data = load_data(folder, image_size=8)
    assert data.classes == ("apple", "pear") and data.skipped == 0 and len(data.train) == 6


def test_test_labels_follow_the_training_classes(folder: Path) -> None:
    # Numbered by itself, a test/ without apples would call its pears 0.
    for path in (folder / "test" / "apple").iterdir():
        path.unlink()
    (folder / "test" / "apple").rmdir()
    assert load_data(folder, image_size=8).test.labels.tolist() == [1, 1]


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def break_images(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"broken")


def remove_images(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


def flatten(folder: Path) -> None:
    remove(folder)
    write_image(folder / "0.png")


def replace_by_file(folder: Path) -> None:
    remove(folder)
    folder.touch()


BROKEN_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        remove,
        r"expected a folder with train/ .*, 'embedded', .* or 'cifar10', got .* does not exist; check",
    ),
    "a file": (replace_by_file, r"which is a file; pass the folder"),
    "empty": (lambda f: (remove(f), f.mkdir()), r"has no train/ \(no folders\); put"),
    "no train": (lambda f: remove(f / "train"), r"has no train/ \(test/\); put"),
    "no test": (lambda f: remove(f / "test"), r"has neither test/ nor val/ \(train/\); make test/"),
    "train without classes": (lambda f: flatten(f / "train"), r"folder per class in '.*train', got no folders; move"),
    "test without classes": (lambda f: flatten(f / "test"), r"one folder per class in '.*test', got no folders; move"),
    "one class": (lambda f: remove(f / "train" / "pear"), r"at least two classes in .* got only 'apple'; add"),
    "class unknown to train": (
        lambda f: write_image(f / "test" / "plum" / "0.png"),
        r"'.*test' to be among those of '.*train', got 'plum' besides; rename",
    ),
    "no training images": (lambda f: remove_images(f / "train"), r"in the class folders of '.*train', got no image"),
    "no test images": (lambda f: remove_images(f / "test"), r"in the class folders of '.*test', got no image files"),
    "all unreadable": (
        break_images,
        r"folders of '.*train', got 6 files of which none .*, first '0.png' \(not an image that .*\); the formats",
    ),
    "test unreadable": (lambda f: break_images(f / "test"), r"folders of '.*test', got 4 files of which none"),
    "a class unreadable": (lambda f: break_images(f / "train" / "pear"), r"of every class .* got none of 'pear'; add"),
    "a class empty": (lambda f: remove_images(f / "train" / "pear"), r"of every class .* got none of 'pear'; add"),
}


@pytest.mark.parametrize("case", BROKEN_FOLDERS)
def test_broken_folders_are_explained(folder: Path, case: str) -> None:
    damage, message = BROKEN_FOLDERS[case]
    damage(folder)
    with pytest.raises(ValueError, match=rf"^data: .*{message}"):
        load_data(folder)


# Image sets


def test_image_set_is_checked() -> None:
    images, labels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)
    for bad in (images.float(), images[:, 0], images[:0]):
        with pytest.raises(ValueError, match=r"images: expected \(N, C, H, W\) uint8"):
            ImageSet(bad, labels[: len(bad)])
    for bad in (labels[:2], labels.int(), labels[:, None]):
        with pytest.raises(ValueError, match=r"labels: expected \(3,\) int64"):
            ImageSet(images, bad)


def test_mean_and_std_per_channel() -> None:
    images = torch.randint(0, 256, (5, 3, 7, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 4
    mean, std = channel_mean_std(images)
    pixels = images.double().div(255).transpose(0, 1).flatten(1)
    assert mean.dtype == std.dtype == torch.float32
    torch.testing.assert_close(mean, pixels.mean(1).float())
    torch.testing.assert_close(std, pixels.std(1, correction=0).float())


def test_std_of_a_constant_channel_is_one() -> None:
    mean, std = channel_mean_std(torch.full((2, 1, 8, 8), 51, dtype=torch.uint8))
    assert mean.tolist() == pytest.approx([0.2]) and std.tolist() == [1.0]
