"""Files are written whole, or what was there before stays."""

import errno
from pathlib import Path

import pytest

from torchdcls._files import whole_file
from torchdcls_results import write_json, write_whole


def test_a_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": [1.5, None]})
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ]\n}\n'

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"b": 1})
    assert '"a"' in path.read_text()


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fills(unfinished: Path) -> None:
        unfinished.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"^'.*a' cannot be written \(.*No space left on device"):
        write_whole(path, fills)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_the_old_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path, previous = tmp_path / "a", tmp_path / "b"
    for text in ("one", "two"):
        write_whole(path, lambda unfinished, text=text: unfinished.write_text(text), previous)
    assert (path.read_text(), previous.read_text()) == ("two", "one")


def test_files_have_the_mode_of_others(tmp_path: Path) -> None:
    """Though their writer made them readable for their owner alone."""

    def private(unfinished: Path) -> None:
        unfinished.chmod(0o600)

    (tmp_path / "plain").touch()
    write_whole(tmp_path / "a", private)
    with whole_file(tmp_path / "b") as unfinished:
        private(unfinished)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
