"""The files of a run: its folder, those of tensors, and those that grow by lines; on the disk when the call returns."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from torchdcls import _files

write_text, write_json = _files.write_text, _files.write_json


def make_folder(folder: Path) -> None:
    """Makes the folder of a run where it is not there, and tries to write to it.

    Raises:
        ValueError: It cannot be made or written to, such as on a read-only disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else (error.strerror or str(error)).lower()
        raise ValueError(
            f"out: expected a folder that can be written to, got '{folder}' ({reason}); take another one"
        ) from None


def lock_folder(folder: Path) -> IO[str] | None:
    """Keeps other runs out of a folder until the file that it returns is closed, where the system can.

    Raises:
        ValueError: Another run has the folder.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    file = (folder / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise ValueError(
            f"out: expected a folder that no other run writes to, got '{folder}'; wait for it, or end it"
        ) from None
    except OSError:  # a file system without locks
        pass
    return file


def write_whole(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """As the library's `write_whole`, also for what safetensors writes."""

    def written(unfinished: Path) -> None:
        try:
            write(unfinished)
        except SafetensorError as error:  # a full disk, too
            raise OSError(error) from error

    _files.write_whole(path, written, previous)


def append_json_line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a line to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, none where there is no file, without one that was not written to its end."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines, none where there is no file, up to one that is broken."""
    rows = []
    for line in whole_lines(path):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
