"""Files that are there as a whole or not at all, and on the disk when the call returns."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to, of the same name in a folder NAME.*.part beside it.

    What is in that folder is moved to where `path` is when the block ends well, and removed when it does not: a check
    inside the block decides.

    Raises:
        OSError: It cannot be written.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent))
    try:
        unfinished = folder / path.name
        mode = touch(unfinished)
        yield unfinished
        # The named file comes last, so that it is never without the one that it may refer to.
        for file in sorted(folder.iterdir(), key=lambda file: file == unfinished):
            file.chmod(mode)
            sync(file)
            file.replace(path.with_name(file.name))
        sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def touch(path: Path) -> int:
    """Makes an empty file, and returns the mode of this user's files; safetensors makes others."""
    path.touch()
    return path.stat().st_mode


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
