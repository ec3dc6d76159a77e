"""What is written of a study: its settings, and a line for each finished cell."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from torchdcls._environment import write_json

from .cells import Place
from .config import StudyConfig
from .files import content_of, study_from
from .plan import Lines

# What every line has.
_FIELDS = (
    *("id", "cell", "parameters", "kernel_count", "epochs", "validation", "test", "failure", "images_per_second"),
    *("seconds", "date", "commit", "dirty", "command", "machine", "load", "versions"),
)
SETTINGS = "study.json"
CELLS = "cells.jsonl"
_RETURN = "start the study again, which writes them and keeps what is done"


@dataclass(frozen=True)
class Study:
    """A study as its records tell it, whole or not.

    Args:
        name: What its files are called.
        config: Settings.
        place: Where it is trained.
        data: The images in words and numbers: `name`, `training_images`, `validation_images`, `test_images`, `classes`.
        lines: Finished cells by their ids.
    """

    name: str
    config: StudyConfig
    place: Place
    data: Mapping[str, Any]
    lines: Lines

    def header(self) -> dict[str, Any]:
        """All but the lines, for a file."""
        return {
            "study": self.name,
            "config": content_of(self.config),
            "place": asdict(self.place),
            "data": dict(self.data),
        }


class Recorder:
    """The file of finished cells, open for more. A line is on the disk when `add` returns.

    Args:
        folder: The run folder, made if it is missing. One process at a time may have it.

    Raises:
        ValueError: Another process has the folder, or a line is broken that is not the last.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(_a_file(folder)) from None
        path = folder / CELLS
        self._file: IO[bytes] = path.open("ab")
        try:
            _lock(self._file, folder)
            whole, self.lines = _parse(path)
        except ValueError:
            self._file.close()
            raise
        # A line that was being written when the process was killed.
        self._file.truncate(whole)

    def add(self, line: Mapping[str, Any]) -> None:
        """One more finished cell."""
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines[line["id"]] = line

    def close(self) -> None:
        """Gives the folder back."""
        self._file.close()


def write_settings(folder: Path, study: Study) -> None:
    """Writes `study.json`; a reader sees the old file or the new one."""
    write_json(folder / SETTINGS, study.header())


def read_run(folder: Path) -> Study:
    """The study in a run folder, which another process may be writing.

    Raises:
        ValueError: There is none, or its files are broken.
    """
    try:
        header = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"out: expected the folder of a study, which has {SETTINGS}, got '{folder}'; start the study first, "
            "or name its folder by --out"
        ) from None
    except ValueError:
        raise ValueError(f"out: expected settings in '{folder / SETTINGS}', got something else; {_RETURN}") from None
    lines = _parse(folder / CELLS)[1]
    try:
        return _study(header, lines)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"out: expected the settings of a study in '{folder / SETTINGS}', got others ({error}); {_RETURN}"
        ) from None


def read_lines(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The finished cells in a folder, none where there is no file; broken files are refused as by `Recorder`."""
    if folder.is_file():
        raise ValueError(_a_file(folder))
    return _parse(folder / CELLS)[1]


def write_published(path: Path, study: Study, ids: list[str]) -> None:
    """Writes a study as one file of JSON lines: its settings first, then the cells of these ids."""
    lines = [study.header(), *(study.lines[id] for id in ids)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_published(path: Path) -> Study:
    """A study from its one file."""
    header, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return _study(header, {line["id"]: line for line in lines})


def _study(header: Mapping[str, Any], lines: Lines) -> Study:
    return Study(header["study"], study_from(header["config"]), Place(**header["place"]), header["data"], lines)


def _parse(path: Path) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """How many bytes of a file are whole lines, and these."""
    lines: dict[str, Mapping[str, Any]] = {}
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
            lines[entry["id"]] = {name: entry[name] for name in _FIELDS}
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}: expected a finished cell in line {number}, got something else; take the line out to have "
                "the cell trained again"
            ) from None
    return whole, lines


def _a_file(folder: Path) -> str:
    return f"out: expected a folder, got the file '{folder}'"


def _lock(file: IO[bytes], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"out: expected a folder that no other process writes to, got '{folder}'") from None
