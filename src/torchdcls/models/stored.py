"""Models of timm made from the description in a file, in which nothing can name another file or an address.

timm's `create_model` passes its arguments on to a builder and to the constructor of the model. The builder and
`create_model` load weights; a constructor only makes layers. So a file may give arguments of the constructor, as
numbers, flags and words. In every version of timm only arguments of the other two functions load something.
"""

import inspect
import re
import reprlib
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, model_entrypoint
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .._checks import first_line, nearest
from .registered import twin

# Arguments that do not reach the constructor; none of them loads anything.
_ON_THE_WAY = frozenset(
    ("bn_eps", "bn_momentum", "exportable", "feature_cls", "features_only", "no_jit", "out_indices", "scriptable")
)
# The caller who loads a model decides its device and precision.
_OF_THE_LOADER = {"device", "dtype"}
# timm's tags of weights, behind a dot, have characters of their own.
_NAME = re.compile(r"\w+(\.[\w.-]+)?", re.ASCII)
_WORD = re.compile(r"\w*", re.ASCII)
_LONGEST, _DEEPEST, _LARGEST = 80, 8, 2**24
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _LONGEST
# A conversion may remove most of the parameters that a model is made with.
_MADE_PER_STORED, _ALWAYS_MADE = 64, 2**20


def check_stored(where: str, path: Path, name: object, arguments: object) -> None:
    """Refuses a model that is described in a file if its description is more than a name, numbers, flags and words.

    Args:
        where: The argument by which the caller names the file, for messages.
        path: The file.
        name, arguments: timm's name of the model and its arguments, as they stand in the file.

    Raises:
        ValueError: timm has no model of this name, its constructor has no such argument, or a value could name a file
            or an address.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or not timm.is_model(name):
        known = nearest(name[:_LONGEST], timm.list_models()) if isinstance(name, str) else "it is no name"
        raise ValueError(
            f"{where}: expected a model that timm {timm.__version__} knows in '{path}', got {_shown(name)}; {known}"
        )
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}: expected arguments of {name} in '{path}', got {_shown(arguments)}")
    taken = _constructor_arguments(name)
    for argument, value in arguments.items():
        if argument not in taken:
            raise ValueError(
                f"{where}: {name} does not take {argument}={_shown(value)} from '{path}'; a file may give numbers, "
                "flags and words for arguments of the model's constructor, none that could load another file"
            )
        if not _plain(value):
            raise ValueError(
                f"{where}: expected numbers, flags and words for {argument} of {name} in '{path}', as a file may name "
                f"no other file and no address, got {_shown(value)}"
            )


@contextmanager
def making(where: str, path: Path, elements: int) -> Iterator[None]:
    """Inside, a model is made from a file's description. A model that is too large for the file is refused.

    Args:
        where, path: See `check_stored`.
        elements: Number of elements of the tensors in the file.

    Raises:
        ValueError: For whatever is raised inside.
    """
    thread = threading.get_ident()
    left = _MADE_PER_STORED * elements + _ALWAYS_MADE

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:  # before its memory is written to
                raise ValueError(f"{where}: '{path}' describes a model that is far larger than the weights in it")

    with register_module_parameter_registration_hook(count):
        try:
            yield
        except ValueError as error:
            raise ValueError(str(error).partition("\n")[0]) from None  # torch's own errors, quoted in it, may be long
        except Exception as error:
            raise ValueError(
                f"{where}: no model can be made with the arguments in '{path}' ({first_line(error)})"
            ) from None


def _constructor_arguments(name: str) -> set[str]:
    """Arguments of the classes that a model of timm is made of, without those of the functions that load weights."""
    module = sys.modules[model_entrypoint(twin(name) or name).__module__]
    classes = {
        base
        for kind in vars(module).values()
        if isinstance(kind, type) and (issubclass(kind, nn.Module) or is_dataclass(kind))
        for base in kind.__mro__
    }
    made = {
        parameter for kind in classes if "__init__" in vars(kind) for parameter in _parameters(vars(kind)["__init__"])
    }
    return made - _parameters(timm.create_model) - _parameters(build_model_with_cfg) - _OF_THE_LOADER | _ON_THE_WAY


def _parameters(function: Any) -> set[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of a class that is not written in Python
        return set()
    return {entry.name for entry in parameters if entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)}


def _plain(value: object, depth: int = _DEEPEST) -> bool:
    """Whether a value is a number, a flag, a word, or made of them: no text that could be a path or an address."""
    if isinstance(value, Mapping):
        return depth > 0 and all(
            isinstance(key, str) and _plain(key) and _plain(value[key], depth - 1) for key in value
        )
    if isinstance(value, list | tuple):
        return depth > 0 and all(_plain(entry, depth - 1) for entry in value)
    if isinstance(value, str):
        return len(value) <= _LONGEST and _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) <= _LARGEST)


def _shown(value: object) -> str:
    return _SHORT.repr(value)
