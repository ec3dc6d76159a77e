"""What is written of a study: its settings, and a line for each finished cell."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchdcls_results import whole_lines

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
    """A study as its records tell it, whole or not."""

    name: str  # what its files are called
    config: StudyConfig
    platform: Platform  # where it is trained
    data: Data
    finished: Finished  # finished cells by their ids

    def header(self) -> dict[str, Any]:
        """All but the cells, for a file."""
        return {
            "study": self.name,
            "config": content_of(self.config),
            "place": asdict(self.platform),
            "data": asdict(self.data),
        }


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
    finished = read_finished(folder)
    try:
        return _study(header, finished)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"out: expected the settings of a study in '{folder / SETTINGS}', got others ({error}); {_RETURN}"
        ) from None


def read_finished(folder: Path) -> dict[str, FinishedCell]:
    """The finished cells in a folder, none where there is no file, without a line that is not written to its end.

    Raises:
        ValueError: The folder is a file, or a line is broken.
    """
    if folder.is_file():
        raise ValueError(f"out: expected a folder, got the file '{folder}'")
    path = folder / CELLS
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
