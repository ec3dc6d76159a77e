"""Folders that results are written to."""

import tempfile
from pathlib import Path


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
