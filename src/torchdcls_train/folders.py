"""Folders that data are read from, and those that results are written to."""

import tempfile
from pathlib import Path


def check_folder(setting: str, expected: str, folder: Path) -> None:
    """Refuses what is no folder; `setting` begins the message, `expected` says what it was to be."""
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{setting}: expected {expected}, got '{folder}', which {came}")


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
