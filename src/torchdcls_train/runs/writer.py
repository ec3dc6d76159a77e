"""The files of a run: its folder, what it is, its lines, and its tensors; on the disk when the call returns."""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from safetensors import SafetensorError

import torchdcls_results
from torchdcls_results import repeatable, whole_lines, write_json, write_text


class RunWriter:
    """The folder of a run while a process writes it: every run is written by this.

    One file of JSON says what the run is, always as a whole. Another one may grow by lines of JSON; a line that was
    being written when an earlier process was killed is dropped.

    Args:
        folder: Made if it is missing. One process at a time may have it.
        about: Name of the file that says what the run is.
        lines: Name of the file that grows.

    Raises:
        ValueError: Another process has the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path, about: str, lines: str | None = None) -> None:
        make_folder(folder)
        self._lock = _lock(folder)
        self._about, self._lines = folder / about, None if lines is None else folder / lines
        if self._lines is not None:
            self._rewrite(whole_lines(self._lines))

    def write(self, about: Any) -> None:
        """Writes what the run is; a reader sees the old file or the new one, never half of one."""
        write_json(self._about, about)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a line."""
        assert self._lines is not None
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replaces all lines."""
        self._rewrite(map(json.dumps, rows))

    def close(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _rewrite(self, lines: Iterable[str]) -> None:
        assert self._lines is not None
        write_text(self._lines, "".join(f"{line}\n" for line in lines))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines, none where there is no file, up to one that is broken."""
    rows = []
    for line in whole_lines(path):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def command_line(argv: Sequence[str] | None, program: Sequence[str] = ("torchdcls",)) -> str:
    """The command that makes the same run again, of its arguments or else those of the process."""
    return shlex.join([*program, *repeatable(sys.argv[1:] if argv is None else argv)])


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


def write_whole(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """As `torchdcls_results.write_whole`, also for what safetensors writes."""

    def written(unfinished: Path) -> None:
        try:
            write(unfinished)
        except SafetensorError as error:  # a full disk, too
            raise OSError(error) from error

    torchdcls_results.write_whole(path, written, previous)


def _lock(folder: Path) -> IO[str] | None:
    """Keeps other runs out of a folder until the file that it returns is closed, where the system can."""
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
