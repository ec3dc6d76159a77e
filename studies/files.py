"""Reading the YAML file of a study, those in `configs/` by name."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from torchdcls._checks import integer, nearest

from .config import StudyConfig, Sweeps, Tuning

_PARTS = {"tuning": Tuning, "sweeps": Sweeps}
_SUFFIXES = (".yaml", ".yml")


def study_names() -> list[str]:
    """Names of the studies in `configs/`."""
    return sorted(_packaged())


def load_study(name_or_path: str) -> StudyConfig:
    """The settings of a study.

    Args:
        name_or_path: A name of `study_names`, or a file that ends in .yaml or .yml.

    Raises:
        ValueError: There is no such study or file, it cannot be read, or says what cannot be meant.

    Example:
        >>> from studies.files import load_study
        >>> load_study("cpu").models
        ('convnext', 'convformer')
    """
    source: Path | Traversable
    if name_or_path.endswith(_SUFFIXES):
        source = Path(name_or_path).expanduser()
    elif name_or_path in _packaged():
        source = _packaged()[name_or_path]
    else:
        known = [*study_names(), "settings"]  # the last has no file
        raise ValueError(
            f"config: expected {', '.join(map(repr, known))}, or a file that ends in .yaml, "
            f"got {name_or_path!r}; {nearest(name_or_path, known)}"
        )
    try:
        # jsonargparse's loader, for PyYAML's own reads 1e-3 as a string.
        content = get_loader("yaml")(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config: expected a YAML file, {name_or_path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"config: expected a YAML file, {name_or_path} is something else: {' '.join(str(error).split())}"
        ) from error
    from torchdcls_train.comparison.small import check_model  # timm takes seconds, and `--help` does without

    try:
        config = study_from(content)
        for model in config.models:
            check_model(model)
        return config
    except ValueError as error:
        raise ValueError(f"config: in {name_or_path}, {error}") from None


def study_from(content: object) -> StudyConfig:
    """The settings that a file's content says; what it leaves out is as by default.

    Raises:
        ValueError: A setting is unknown, of another kind, or out of range.
    """
    settings = _known("", content, StudyConfig)
    for part, kind in _PARTS.items():
        settings[part] = kind(**_known(f"{part}.", settings.get(part) or {}, kind))
    grids = settings["tuning"].candidates
    if not isinstance(grids, Mapping) or not all(isinstance(grid, Mapping) for grid in grids.values()):
        raise ValueError("tuning.candidates: expected for each method lines of `setting: [values]`, got something else")
    if isinstance(settings.get("seeds"), int):
        settings["seeds"] = range(integer("seeds", settings["seeds"], 2))
    if settings.get("data_dir") is not None:
        if not isinstance(settings["data_dir"], str):
            raise ValueError(f"data_dir: expected a folder, got {settings['data_dir']!r}")
        settings["data_dir"] = Path(settings["data_dir"]).expanduser()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list | range) else value for name, value in settings.items()
    }
    try:
        return StudyConfig(**values)
    except TypeError as error:
        # A number where a list belongs, or the like.
        raise ValueError(f"config: expected values as in studies/configs, got others: {error}") from None


def content_of(config: StudyConfig) -> dict[str, Any]:
    """What a file would say that gives these settings, without where files are on this machine."""
    return {name: _plain(value) for name, value in asdict(config).items() if name != "data_dir"}


def _packaged() -> dict[str, Traversable]:
    folder = files("studies") / "configs"
    return {file.name.rpartition(".")[0]: file for file in folder.iterdir() if file.name.endswith(_SUFFIXES)}


def _known(prefix: str, content: object, kind: type[Any]) -> dict[str, Any]:
    names = [entry.name for entry in fields(kind)]
    if not isinstance(content, Mapping):
        what = f"{prefix.rstrip('.')}: " if prefix else ""
        got = "nothing" if content is None else repr(content)
        raise ValueError(f"{what}expected lines of `setting: value`, got {got}")
    for name in content:
        if name not in names:
            raise ValueError(f"{prefix}{name}: expected a setting of a study; {nearest(str(name), names)}")
    return dict(content)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple | range) else value
