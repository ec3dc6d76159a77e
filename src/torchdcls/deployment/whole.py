"""Files that are there as a whole or not at all."""

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
        unfinished.touch()
        mode = unfinished.stat().st_mode  # as this user's files are; safetensors makes others
        yield unfinished
        # The named file comes last, so that it is never without the one that it may refer to.
        for file in sorted(folder.iterdir(), key=lambda file: file == unfinished):
            file.chmod(mode)
            _sync(file)
            file.replace(path.with_name(file.name))
        _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
