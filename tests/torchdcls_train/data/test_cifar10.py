"""CIFAR-10 from a file of arrays, from torchvision's files, and from a download that is none."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from torchdcls_train.data import cifar10
from torchdcls_train.data.image_set import ImageSet
from torchdcls_train.data.in_memory import load_data

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("test", 10)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = random.permutation(np.arange(count) % 10)
    return arrays


def write_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The files that torchvision unpacks, of 20 and 10 images, with their checksums in the place of the real ones."""
    arrays = make_arrays()
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(split: str, part: slice) -> dict[str, object]:
        # A row is an image: its red plane, its green one, its blue one.
        rows = arrays[f"{split}_images"][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return {"data": rows, "labels": arrays[f"{split}_labels"][part].tolist()}

    train = [write(f"data_batch_{i + 1}", batch("train", slice(4 * i, 4 * i + 4))) for i in range(5)]
    name, checksum = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(cifar10.CIFAR10, "train_list", train)
    monkeypatch.setattr(cifar10.CIFAR10, "test_list", [write("test_batch", batch("test", slice(None)))])
    monkeypatch.setattr(cifar10.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return arrays


def assert_is(images: ImageSet, arrays: dict[str, np.ndarray], split: str) -> None:
    assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), arrays[f"{split}_images"])
    assert images.labels.tolist() == arrays[f"{split}_labels"].tolist()


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
def test_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    arrays = write_batches(tmp_path, monkeypatch)
    data = load_data("cifar10", data_dir=tmp_path / below)
    assert_is(data.train, arrays, "train")
    assert_is(data.test, arrays, "test")
    assert data.classes == CLASSES and data.name == "cifar10" and data.channels == 3 and data.image_size == 32


def test_a_file_of_arrays(tmp_path: Path) -> None:
    arrays = make_arrays()
    np.savez(tmp_path / "cifar10.npz", **arrays)
    data = load_data("cifar10", data_dir=tmp_path)
    assert_is(data.train, arrays, "train")
    assert_is(data.test, arrays, "test")
    assert data.train.images.is_contiguous() and data.train.labels.dtype == torch.int64
    assert load_data("cifar10", data_dir=tmp_path, image_size=16).test.images.shape == (10, 3, 16, 16)


def test_download_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    monkeypatch.setattr(
        cifar10.CIFAR10, "download", lambda self: made.append(write_batches(Path(self.root), monkeypatch))
    )
    for _ in range(2):
        assert_is(load_data("cifar10").test, make_arrays(), "test")
    assert len(made) == 1
    assert [entry.name for entry in (tmp_path / "torchdcls").iterdir()] == ["cifar-10-batches-py"]


def test_download_that_another_process_finished_first_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def download(self: cifar10.CIFAR10) -> None:
        write_batches(Path(self.root), monkeypatch)
        write_batches(tmp_path / "torchdcls", monkeypatch)

    monkeypatch.setattr(cifar10.CIFAR10, "download", download)
    assert_is(load_data("cifar10").test, make_arrays(), "test")


def test_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(self: cifar10.CIFAR10) -> None:
        raise OSError("no route")

    monkeypatch.setattr(cifar10.CIFAR10, "download", fail)
    with pytest.raises(
        ValueError, match=r"^data: 'cifar10' could not be .* \(no route\); pass .*cifar10\.npz as --data"
    ):
        load_data("cifar10")


def test_files_with_other_checksums_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batches(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        ValueError, match=r"^data: expected the files of CIFAR-10 as published in .*; remove the folder"
    ):
        load_data("cifar10", data_dir=tmp_path)


def test_folders_without_cifar10_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data_dir: .*nowhere', which does not exist"):
        load_data("cifar10", data_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^data_dir: expected cifar10\.npz or .* got neither; pass the folder"):
        load_data("cifar10", data_dir=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^data_dir: .*file', which is a file"):
        load_data("cifar10", data_dir=tmp_path / "file")


BROKEN_ARRAYS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "size": (
        {"test_images": np.zeros((10, 28, 28, 3), np.uint8)},
        r"images \(N, 32, 32, 3\) uint8 .* got \(10, 28, 28",
    ),
    "dtype": ({"train_images": np.zeros((20, 32, 32, 3))}, r"images \(N, 32, 32, 3\) uint8 .* float64"),
    "none": ({"train_images": np.zeros((0, 32, 32, 3), np.uint8)}, r"got \(0, 32, 32, 3\) uint8"),
    "count": ({"train_labels": np.zeros(19, np.int64)}, r"expected 20 whole numbers as labels .* got \(19,\)"),
    "fractions": ({"train_labels": np.zeros(20)}, r"expected 20 whole numbers as labels .* float64"),
    "too high": ({"test_labels": np.arange(1, 11)}, r"expected labels from 0 to 9 .* got 1 to 10"),
    "negative": ({"test_labels": np.arange(-1, 9)}, r"expected labels from 0 to 9 .* got -1 to 8"),
    "objects": ({"test_labels": np.array([None] * 10)}, r"expected a file of arrays .*; write it again"),
}


@pytest.mark.parametrize("case", BROKEN_ARRAYS)
def test_arrays_that_do_not_fit(tmp_path: Path, case: str) -> None:
    changed, message = BROKEN_ARRAYS[case]
    np.savez(tmp_path / "cifar10.npz", **{**make_arrays(), **changed})
    with pytest.raises(ValueError, match=rf"^data_dir: .*{message}"):
        load_data("cifar10", data_dir=tmp_path)


def test_broken_files_of_arrays(tmp_path: Path) -> None:
    arrays = make_arrays()
    del arrays["test_labels"]
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(ValueError, match=r"^data_dir: .* got no test_labels; write it again"):
        load_data("cifar10", data_dir=tmp_path)
    for content in (b"", b"PK\x03\x04" + bytes(50), b"text", np.zeros(3).tobytes()):
        (tmp_path / "cifar10.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"^data_dir: expected a file of arrays in .*; write it again"):
            load_data("cifar10", data_dir=tmp_path)
