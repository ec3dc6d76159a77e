"""The folder of a run is one that can be written to, or the error says why not."""

from pathlib import Path

import pytest

from torchdcls_train import run_files
from torchdcls_train.run_files import make_folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "one" / "two")
    assert list((tmp_path / "one" / "two").iterdir()) == []


def test_a_file_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"^out: expected a folder that can be written to, got '.*file' \(it is a file\)"
    ):
        make_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"got '.*file/run' \(not a directory\); take another one$"):
        make_folder(tmp_path / "file" / "run")


def test_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr(run_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=rf"got '{tmp_path}' \(read-only file system\); take another one$"):
        make_folder(tmp_path)
