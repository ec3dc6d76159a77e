"""Dataclasses among a constructor's arguments: made again of what JSON holds, where annotations say of which class."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def resolved(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A function's parameters; annotations that are strings are replaced by what they name, where that is found."""
    space = getattr(inspect.unwrap(function), "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if isinstance(parameter.annotation, str):
            parameter = parameter.replace(annotation=_named(parameter.annotation, space))
        found[name] = parameter
    return found


def dataclass_of(annotation: Any) -> type | None:
    """The dataclass that an object in JSON stands for; None where it may be a plain one, or one of several."""
    members = _members(annotation)
    kinds = [member for member in members if isinstance(member, type) and is_dataclass(member)]
    return kinds[0] if len(kinds) == 1 and not any(map(_takes_object, members)) else None


def made_again(kind: type, entries: Mapping[str, Any]) -> Any:
    """A dataclass, and those in its fields. As on the Hub, entries that are none of its fields are left out."""
    try:
        hints = get_type_hints(kind)
    except Exception:  # names that are not found, or no types
        hints = {}
    given = {}
    for entry in fields(kind):
        if entry.init and entry.name in entries:
            value = entries[entry.name]
            inner = dataclass_of(hints.get(entry.name, entry.type))
            given[entry.name] = value if inner is None or not isinstance(value, dict) else made_again(inner, value)
    return kind(**given)


def difference(value: Any, again: Any, where: str) -> str | None:
    """Where the one has a dataclass and the other has none of that class; None where there is no such place."""
    if is_dataclass(value):
        if type(again) is not type(value):
            return where
        pairs = [
            (getattr(value, entry.name), getattr(again, entry.name), f"{where}.{entry.name}") for entry in fields(value)
        ]
    elif isinstance(value, (list, tuple)) and isinstance(again, (list, tuple)):
        pairs = [(*both, f"{where}[{index}]") for index, both in enumerate(zip(value, again, strict=False))]
    elif isinstance(value, dict) and isinstance(again, dict):
        pairs = [(entry, again.get(key), f"{where}[{key!r}]") for key, entry in value.items()]
    else:
        return None
    return next(filter(None, (difference(*pair) for pair in pairs)), None)


def may_be_plain(annotation: Any) -> bool:
    """Whether a constructor with this annotation expects a plain object of JSON, as far as one can tell."""
    members = _members(annotation)
    known = not any(isinstance(member, str) or is_dataclass(member) for member in members)
    return known or any(map(_takes_object, members))


def _named(annotation: str, space: dict[str, Any]) -> Any:
    """What a string names, or the string."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return get_type_hints(holder, globalns=space)["it"]
    except Exception:  # names that are not found, or no types
        return annotation


def _members(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def _takes_object(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is Any or kind is object or (isinstance(kind, type) and issubclass(kind, Mapping))
