"""Recipes: settings of whole trainings, as YAML files in the package or of the user's own.

A file holds settings of `TrainConfig`. It may begin with `base: NAME`, the name or the file of another recipe, whose
settings it starts from.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from torchdcls._checks import nearest

from .settings import SETTINGS

_BASE = "base"
_FAMILIES = "families"
_SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """Names of the package's recipes for models, such as "convnext_tiny-dcls-gaussian"; families are not among them."""
    return sorted(name for name in _packaged() if "/" not in name)


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """The settings of a recipe, those of its bases included; what a recipe says itself comes before its base's word.

    Args:
        name_or_path: A name of `recipe_names`, a family such as "families/convnext", or a YAML file. Of these a string
            must end in .yaml or .yml. A file's base is a name, or a path from the folder of that file.

    Returns:
        Values of settings by their names; pairs are lists, as in YAML.

    Raises:
        ValueError: No recipe has this name, a file cannot be read, names a setting that does not exist, or is its own
            base; the message names the file.

    Example:
        >>> from torchdcls_train.recipes import load_recipe
        >>> recipe = load_recipe("convnext_tiny-dcls-bilinear")
        >>> recipe["model"], recipe["lr"], recipe["repulsion_from"]
        ('convnext_tiny_dcls_bilinear', 0.004, 20)
    """
    settings: dict[str, Any] = {}
    way: list[str] = []
    name, source = _find(name_or_path, Path(), "config")
    while True:
        if name in way:
            raise ValueError(f"{way[-1]}: expected a base that does not lead back, got {' -> '.join([*way, name])}")
        way.append(name)
        own = _read(name, source)
        base = own.pop(_BASE, None)
        settings = {**own, **settings}
        if base is None:
            return settings
        if not isinstance(base, str):
            raise ValueError(f"{name}: expected the name or the file of a recipe as base, got {base!r}")
        name, source = _find(base, source.parent if isinstance(source, Path) else Path(), f"{name}: base")


def _packaged() -> dict[str, Traversable]:
    """The package's recipes and families by name."""
    folder = files("torchdcls_train") / "recipes"

    def named(inside: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
        for file in inside.iterdir():
            if file.name.endswith(_SUFFIXES):
                yield prefix + file.name.rpartition(".")[0], file

    return dict([*named(folder, ""), *named(folder / _FAMILIES, f"{_FAMILIES}/")])


def _find(name_or_path: str | Path, folder: Path, asked_by: str) -> tuple[str, Path | Traversable]:
    """A recipe's name, which stands for it in messages, and its file."""
    if isinstance(name_or_path, str) and not name_or_path.endswith(_SUFFIXES):
        packaged = _packaged()
        if name_or_path not in packaged:
            raise ValueError(
                f"{asked_by}: expected a recipe's name or a YAML file, got {name_or_path!r}; "
                f"{nearest(name_or_path, packaged)}"
            )
        return name_or_path, packaged[name_or_path]
    file = (folder / Path(name_or_path).expanduser()).resolve()
    return str(file), file


def _read(name: str, source: Path | Traversable) -> dict[str, Any]:
    """What a file itself says."""
    text = ""
    try:
        # jsonargparse's loader, for PyYAML's own reads 1e-3 as a string.
        text = source.read_text(encoding="utf-8")
        content = get_loader("yaml")(text)
    except OSError as error:
        raise ValueError(f"{name}: expected a YAML file, which cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        wants = "; YAML wants a space after the colon" if re.search(r"[{,]\s*\w+:\S", text) else ""
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: expected a YAML file, got something else: {reason}{wants}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected lines of `setting: value`, got {content!r}")
    for key in content:
        if key not in (*SETTINGS, _BASE):
            raise ValueError(f"{name}: unknown setting {key!r}; {nearest(str(key), [*SETTINGS, _BASE])}")
    return content
