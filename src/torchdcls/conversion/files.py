"""Checkpoints of other programs: downloaded once, and read without running anything in them."""

import argparse
import os
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from .._checks import first_line, of_type
from .._extras import needed_by


class _Unread:
    """Stands for a number of numpy or a path, whose value nobody reads."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# What a file may hold beside tensors and plain values: the settings and results of a training program.
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    (_Unread, "numpy.core.multiarray.scalar"),
    (_Unread, "numpy._core.multiarray.scalar"),
    (_Unread, "numpy.dtype"),
    (_Unread, "pathlib.PosixPath"),
]


def file_name(source: str | os.PathLike[str]) -> str:
    """The name of the file that a path or an address names."""
    source = os.fspath(source)
    return unquote(urlparse(source).path).rpartition("/")[2] if "://" in source else Path(source).name


def fetched(source: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """The file of a path, or of an address such as https://..., downloaded once.

    Args:
        source: The path or address.
        folder: Where downloads are kept; None for torch.hub's folder of checkpoints, which timm uses too.
    """
    of_type("path_or_url", source, (str, os.PathLike), "a file or an address")
    source = os.fspath(source)
    if "://" not in source:
        path = Path(source)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ValueError(f"path_or_url: expected a file or an address, got '{path}', which {what}")
        return path
    folder = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    path = folder / file_name(source)
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # It downloads under another name and renames at the end.
            torch.hub.download_url_to_file(source, str(path), progress=False)
        except (OSError, ValueError) as error:  # ValueError: not an address
            raise ValueError(
                f"path_or_url: {source} could not be downloaded ({error}); connect to the network, or put the file "
                f"at '{path}'"
            ) from None
    return path


def read(path: Path) -> Any:
    """The content of a file of torch or safetensors.

    Raises:
        ValueError: It is cut short, no such file, or needs more than tensors, plain values and settings.
    """
    if path.suffix == ".safetensors":
        with needed_by("a safetensors file", "train"):
            from safetensors import SafetensorError
            from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(_broken(path, error)) from None
    try:
        with path.open("rb") as file:
            archive = file.read(4) == b"PK\x03\x04"  # as all have been since torch 1.6; others cannot be mapped
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # broken bytes may raise anything
        asked_for = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if asked_for is None:
            raise ValueError(_broken(path, error)) from None
        raise ValueError(
            f"path_or_url: expected a file of tensors, plain values and a Namespace of settings, got '{path}', which "
            f"asks for {asked_for[1]}; nothing in it was run; if you trust it, save its state dict alone"
        ) from None


def _broken(path: Path, error: Exception) -> str:
    reason = first_line(error).partition(". ")[0].rstrip(".")
    return (
        f"path_or_url: '{path}' cannot be read ({reason}); it is cut short, or no file of torch or safetensors: "
        "delete it and download it again"
    )
