"""Files that are there as a whole or not at all, and on the disk when the call returns."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


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
        mode = _touch(unfinished)
        yield unfinished
        # The named file comes last, so that it is never without the one that it may refer to.
        for file in sorted(folder.iterdir(), key=lambda file: file == unfinished):
            file.chmod(mode)
            _sync(file)
            file.replace(path.with_name(file.name))
        _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Has a file written under another name, the same each time, synced and renamed.

    Args:
        path: The file.
        write: Writes it under the name that it is called with.
        previous: Where the old file of this name goes once the new one is complete; None for nowhere.

    Raises:
        OSError: It cannot be written. What had this name before is still there, and nothing else is left.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)  # of a process that was killed
        mode = _touch(unfinished)
        write(unfinished)
        unfinished.chmod(mode)
        _sync(unfinished)
        if previous is not None and path.exists():
            path.replace(previous)
        unfinished.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise OSError(f"'{path}' cannot be written ({error})") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file of text, as `write_whole`."""
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON, as `write_whole`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, none where there is no file, without one that was not written to its end."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def _touch(path: Path) -> int:
    """Makes an empty file, and returns the mode of this user's files; safetensors makes others."""
    path.touch()
    return path.stat().st_mode


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
