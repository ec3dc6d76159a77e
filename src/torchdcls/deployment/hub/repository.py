"""The files of a model: in a folder, or fetched from a repository on the Hub."""

import json
from math import prod
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from ..._checks import first_line, nearest

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FOLDER = "pretrained_model_name_or_path"
NOT_STORED = "not_stored"  # in the metadata of the weights
_EXPECTED = f"{FOLDER}: expected a folder, or a repository on the Hub"
_PATIENCE = 5.0  # for the Hub's answer, in seconds


def read_header(path: Path) -> tuple[int, list[str]]:
    """Number of elements of all tensors in a file of weights, and its model's arguments that JSON cannot hold."""
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = (file.metadata() or {}).get(NOT_STORED, "").split(",")
            elements = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{FOLDER}: '{path}' cannot be read ({str(error).rstrip('.')}); it is cut short, or no file of "
            "safetensors: save or download it again"
        ) from None
    return elements, [name for name in names if name]


def read_config(path: Path, *, optional: bool) -> dict[str, Any]:
    """The object in a file of JSON; an empty one where the file is missing and `optional`."""
    if optional and not path.is_file():
        return {}
    _check_there(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{FOLDER}: '{path}' is no JSON ({error}); save the model again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{FOLDER}: expected an object in '{path}', got {config!r}")
    return config


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{FOLDER}: expected a folder with {path.name}, got '{path.parent}' without")


def downloaded(
    repo_id: str,
    *,
    config_is_optional: bool,
    force_download: bool,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    revision: str | None,
) -> Path:
    """The folder with the downloaded files of a repository."""
    _check_name(repo_id, revision)
    unreachable = None if local_files_only else _unreachable(repo_id, revision, token)
    path = ""
    for file in (CONFIG, WEIGHTS):
        try:
            path = hf_hub_download(
                repo_id,
                file,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download and unreachable is None,
                token=token,
                local_files_only=local_files_only or unreachable is not None,
            )
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
            if file == CONFIG and config_is_optional and isinstance(error, EntryNotFoundError):
                continue
            raise ValueError(f"{_EXPECTED} with {file}, got '{repo_id}': {unreachable or first_line(error)}") from None
    return Path(path).parent


def _check_name(repo_id: str, revision: str | None) -> None:
    """Refuses a name that no repository has, or that is more likely a folder's. Only the Hub has revisions."""
    path = Path(repo_id).expanduser()
    repository = repo_id.count("/") == 1 and not repo_id.startswith((".", "~", "/"))
    folder = path.parent
    if repository and (revision is not None or not folder.is_dir()):
        return
    if path.exists():
        raise ValueError(f"{_EXPECTED}, got '{repo_id}', which is a file; give the folder that it is in")
    meant = " (if the Hub's repository is meant, give its revision, such as 'main')" if repository else ""
    there = [str(folder / entry.name) for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    hint = nearest(str(path), there) if there else "a repository has a name such as 'user/name'"
    raise ValueError(f"{_EXPECTED}, got '{repo_id}', which does not exist{meant}; {hint}")


def _unreachable(repo_id: str, revision: str | None, token: str | bool | None) -> str | None:
    """Why the Hub does not answer; None if it does. huggingface_hub itself would try for half a minute."""
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, WEIGHTS, revision=revision), token=token, timeout=_PATIENCE)
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError):  # an answer, or a wrong name
        return None
    except Exception as error:  # each version has other ones for a missing network
        reason = first_line(error)
        return f"the Hub cannot be reached ({reason}), and it is not among the files that were downloaded before"
    return None
