"""Data sets fetched once, into the user's cache."""

import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory


def downloaded(name: str, fetch: Callable[[str], object], *, missing: str, advice: str) -> Path:
    """The folder `name` of the cache, fetched where it is not there yet.

    Args:
        name: Folder that `fetch` makes.
        fetch: Called with the path of an empty folder, in which it makes the folder `name`.
        missing: What is missing: the beginning of the error's sentence, which ends "could not be downloaded".
        advice: What to do instead.

    Raises:
        ValueError: The download failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torchdcls"
    target = cache / name
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Moved into place at the end: an interrupted download leaves nothing that would be read as complete.
        with TemporaryDirectory(dir=cache) as unfinished:
            fetch(unfinished)
            # Processes that started together may all have fetched it: the first one's stays.
            if not target.is_dir():
                (Path(unfinished) / name).rename(target)
    except (RuntimeError, OSError, HTTPException) as error:
        # torchvision's message has a line for each mirror, the last of which tells the reason.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(
            f"data: {missing} could not be downloaded to '{cache}' ({reason}); {advice}, or connect to the network"
        ) from None
    return target
