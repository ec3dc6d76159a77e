"""What is written of a study: its settings, and a line for each finished cell."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchdcls._files import write_json, write_text
from torchdcls_train.run_files import append_json_line, lock_folder, make_folder, whole_lines

from .cells import Finished, FinishedCell, Platform
from .config import StudyConfig
from .files import content_of, study_from

SETTINGS = "study.json"
CELLS = "cells.jsonl"
_RETURN = "start the study again, which writes them and keeps what is done"


@dataclass(frozen=True)
class Data:
    """The images of a study in words and numbers."""

    name: str
    training_images: int
    validation_images: int
    test_images: int
    classes: int


@dataclass(frozen=True)
class Study:
    """A study as its records tell it, whole or not.

    Args:
        name: What its files are called.
        config: Settings.
        platform: Where it is trained.
        data: Its images.
        finished: Finished cells by their ids.
    """

    name: str
    config: StudyConfig
    platform: Platform
    data: Data
    finished: Finished

    def header(self) -> dict[str, Any]:
        """All but the cells, for a file."""
        return {
            "study": self.name,
            "config": content_of(self.config),
            "place": asdict(self.platform),
            "data": asdict(self.data),
        }


class Recorder:
    """The file of finished cells, to which more are added. A line is on the disk when `add` returns.

    Args:
        folder: The run folder, made if it is missing. One process at a time may have it.

    Raises:
        ValueError: Another process has the folder, it cannot be written to, or a line is broken that is not the last.
    """

    def __init__(self, folder: Path) -> None:
        _refuse_a_file(folder)
        make_folder(folder)
        self._path = folder / CELLS
        self._lock = lock_folder(folder)
        try:
            self.finished = _finished(self._path)
        except ValueError:
            self.close()
            raise
        # Without a line that was being written when the process was killed.
        write_text(self._path, "".join(f"{line}\n" for line in whole_lines(self._path)))

    def add(self, cell: FinishedCell) -> None:
        """One more finished cell."""
        append_json_line(self._path, asdict(cell))
        self.finished[cell.id] = cell

    def close(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()


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
    finished = _finished(folder / CELLS)
    try:
        return _study(header, finished)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"out: expected the settings of a study in '{folder / SETTINGS}', got others ({error}); {_RETURN}"
        ) from None


def read_finished(folder: Path) -> Finished:
    """The finished cells in a folder, none where there is no file; broken files are refused as by `Recorder`."""
    _refuse_a_file(folder)
    return _finished(folder / CELLS)


def write_published(path: Path, study: Study, cells: Sequence[FinishedCell]) -> None:
    """Writes a study as one file of JSON lines: its settings first, then these of its cells."""
    lines = [study.header(), *map(asdict, cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_published(path: Path) -> Study:
    """A study from its one file."""
    header, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return _study(header, {line["id"]: FinishedCell.from_json(line) for line in lines})


def _study(header: dict[str, Any], finished: Finished) -> Study:
    config, platform, data = study_from(header["config"]), Platform(**header["place"]), Data(**header["data"])
    return Study(header["study"], config, platform, data, finished)


def _finished(path: Path) -> dict[str, FinishedCell]:
    """The finished cells in a file, none where there is no file."""
    finished: dict[str, FinishedCell] = {}
    for number, line in enumerate(whole_lines(path), 1):
        try:
            cell = FinishedCell.from_json(json.loads(line))
            finished[cell.id] = cell
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}: expected a finished cell in line {number}, got something else; take the line out to have "
                "the cell trained again"
            ) from None
    return finished


def _refuse_a_file(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"out: expected a folder, got the file '{folder}'")
