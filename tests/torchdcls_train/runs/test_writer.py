"""The folder of a run is one that can be written to, or the error says why not; its files are whole."""

import json
from pathlib import Path

import pytest

from torchdcls_train.runs import writer
from torchdcls_train.runs.writer import RunWriter, command_line, make_folder, read_rows


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

    monkeypatch.setattr(writer.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=rf"got '{tmp_path}' \(read-only file system\); take another one$"):
        make_folder(tmp_path)


def test_lines_of_a_killed_run(tmp_path: Path) -> None:
    """What was being written when it was killed is gone, so that the next line stands by itself."""
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"a": 1}\n{"a": 2}\n{"a":')
    with RunWriter(tmp_path, "about.json", "lines.jsonl") as writer:
        writer.add({"a": 3})
        assert [row["a"] for row in read_rows(lines)] == [1, 2, 3]
        writer.keep(row for row in read_rows(lines) if row["a"] != 2)
        writer.write({"b": 1})
    assert lines.read_text() == '{"a": 1}\n{"a": 3}\n'
    assert json.loads((tmp_path / "about.json").read_text()) == {"b": 1}
    assert {path.name for path in tmp_path.iterdir()} <= {"about.json", "lines.jsonl", ".lock"}


def test_a_command_names_no_folder_of_its_user() -> None:
    assert command_line(["train", "--data", "/home/a/b", "--out", "/c"]) == "torchdcls train --data b"
    assert command_line(["x y"], ("python", "-m", "studies.run")) == "python -m studies.run 'x y'"
