"""Recipes: settings of whole training runs, as YAML files in the package or of the user's own.

A file holds settings of `TrainConfig`. It may begin with `base: NAME`, the name or the file of another recipe, whose
settings it starts from. A file of the package is a family; each line of its `models:` makes a recipe for the model's
own layers and one for each interpolation of DCLS layers.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from torchdcls._checks import nearest
from torchdcls.profiles import PROFILES

from ..settings import SETTINGS

_BASE = "base"
_FAMILY = "families/"
_SUFFIXES = (".yaml", ".yml")
# arXiv:2112.03740 and its authors' code.
_OF_INTERPOLATION = {"bilinear": {"clamp_positions": True, "repulsion_from": 20}}


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
    name, own, folder = _find(name_or_path, Path(), "config")
    while True:
        if name in way:
            raise ValueError(f"{way[-1]}: expected a base that does not lead back, got {' -> '.join([*way, name])}")
        way.append(name)
        settings = {**own, **settings}
        base = settings.pop(_BASE, None)
        if base is None:
            return settings
        if not isinstance(base, str):
            raise ValueError(f"{name}: expected the name or the file of a recipe as base, got {base!r}")
        name, own, folder = _find(base, folder, f"{name}: base")


def _packaged() -> Mapping[str, Mapping[str, Any]]:
    """What each of the package's recipes and families says itself, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for file in files(__name__).iterdir():
        if not file.name.endswith(".yaml"):
            continue
        family = _FAMILY + file.name.removesuffix(".yaml")
        settings = _read(file.name, file)
        models = settings.pop("models")
        found[family] = settings
        for model, own in models.items():
            found[model] = {_BASE: family, "model": model, **own}
            for interpolation in PROFILES:
                converted = {"model": f"{model}_dcls_{interpolation}", **_OF_INTERPOLATION.get(interpolation, {})}
                found[f"{model}-dcls-{interpolation}"] = {**found[model], **converted}
    return found


def _find(name_or_path: str | Path, folder: Path, asked_by: str) -> tuple[str, Mapping[str, Any], Path]:
    """A recipe's name, which stands for it in messages, what it says itself, and where its base is looked for."""
    if isinstance(name_or_path, str) and not name_or_path.endswith(_SUFFIXES):
        packaged = _packaged()
        if name_or_path not in packaged:
            raise ValueError(
                f"{asked_by}: expected a recipe's name or a YAML file, got {name_or_path!r}; "
                f"{nearest(name_or_path, packaged)}"
            )
        return name_or_path, packaged[name_or_path], Path()
    file = (folder / Path(name_or_path).expanduser()).resolve()
    own = _read(str(file), file)
    for key in own:
        if key not in (*SETTINGS, _BASE):
            raise ValueError(f"{file}: unknown setting {key!r}; {nearest(str(key), [*SETTINGS, _BASE])}")
    return str(file), own, file.parent


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
        wants = "; YAML needs a space after the colon" if re.search(r"[{,]\s*\w+:\S", text) else ""
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: expected a YAML file, got something else: {reason}{wants}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected lines of `setting: value`, got {content!r}")
    return content
