"""A constructor's arguments as JSON, and made again from it where annotations name their class."""

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, ForwardRef, Union, get_args, get_origin, get_type_hints

from ..._checks import nearest
from ...profiles import PROFILES, Profile
from ..errors import reason
from .repository import CONFIG, FOLDER

# As in huggingface_hub: for each type a function that makes JSON from a value, and one that makes a value from JSON.
Coders = Mapping[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]]


def _name_of(profile: Profile) -> str:
    if PROFILES.get(profile.name) != profile:
        raise TypeError(f"{profile.name} is not a profile of the package")
    return profile.name


CODERS: Coders = {Profile: (_name_of, PROFILES.__getitem__)}


@dataclass
class Arguments:
    """The arguments of one call of a constructor.

    Attributes:
        stored: Those that JSON can hold, encoded, with the defaults.
        not_stored: Names of given ones that JSON cannot hold.
        dataclasses: The stored ones that are dataclasses, before they are encoded.
        unnamed: Parameters whose values came by place and cannot be given by name.
    """

    stored: dict[str, Any] = field(default_factory=dict)
    not_stored: list[str] = field(default_factory=list)
    dataclasses: dict[str, Any] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)


class Constructor:
    """The arguments that the constructor of a class takes. `coders` are for types that JSON cannot hold."""

    def __init__(self, cls: type, coders: Coders) -> None:
        self._class = cls.__name__
        self._coders = {**coders, **CODERS}
        self._space = getattr(inspect.unwrap(cls.__init__), "__globals__", {})  # type: ignore[misc]
        self._parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self._named = {entry.name: entry for entry in self._parameters if entry.kind in by_name}
        self._takes_any = any(entry.kind == entry.VAR_KEYWORD for entry in self._parameters)

    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """The arguments of a call, in the form in which they are stored."""
        found = Arguments()
        found.unnamed = [entry.name for entry in self._parameters[: len(args)] if entry.name not in self._named]
        given = {**dict(zip(self._named, args, strict=False)), **kwargs}
        defaults = {name: entry.default for name, entry in self._named.items() if entry.default is not entry.empty}
        for name, value in {**defaults, **given}.items():
            try:
                found.stored[name] = encoded(value, self._coders)
            except (TypeError, ValueError, RecursionError):
                if name in given:
                    found.not_stored.append(name)
            else:
                if is_dataclass(value) and not isinstance(value, (type, *self._coders)):
                    found.dataclasses[name] = value
        found.not_stored.sort()
        return found

    def check_stored(self, arguments: Arguments) -> None:
        """Refuses arguments that `from_pretrained` would not make again, with a ValueError."""
        for name in arguments.unnamed:
            raise ValueError(
                f"{name}: expected arguments that {self._class} takes by name, as config.json stores names and "
                f"values, got values by place; give {self._class} a parameter with a name instead"
            )
        for name, value in arguments.dataclasses.items():
            annotation = self._annotation(name)
            if _may_be_plain(annotation):
                continue
            try:
                again = self._decoded(annotation, arguments.stored[name])
            except Exception as error:
                raise ValueError(
                    f"{name}: expected a dataclass that can be made again from its fields, got {type(value).__name__} "
                    f"({reason(error)})"
                ) from None
            where = _difference(value, again, name)
            if where is not None:
                raise ValueError(
                    f"{where}: expected an annotation that says which dataclass from_pretrained is to make, and that "
                    f"typing.get_type_hints can read, got {annotation!r} for {name} of {self._class}; define the "
                    "dataclass in a module, and annotate the argument or field with it"
                )

    def check_given(self, given: Collection[str]) -> None:
        """Refuses names that the constructor does not take, with a ValueError."""
        for name in given:
            if name not in self._named and not self._takes_any:
                raise ValueError(f"{name}: expected an argument of {self._class}; {nearest(name, self._named)}")

    def needs_config(self, given: Collection[str]) -> bool:
        """Whether every call stores something; huggingface_hub itself writes no file when nothing is stored."""
        by_default = self.called((), {}).stored
        others = [entry for name, entry in self._named.items() if name not in given and name != "config"]
        return any(entry.default is entry.empty or entry.name in by_default for entry in others)

    def arguments(self, config: Mapping[str, Any], given: Mapping[str, Any], folder: object) -> dict[str, Any]:
        """The arguments that a file holds, replaced by the given ones.

        An argument called `config` may be stored under its name; or its entries stand beside the other arguments, as
        huggingface_hub writes them.

        Raises:
            ValueError: The file is of another class, or an argument cannot be made from it.
        """
        beside = {name: value for name, value in config.items() if name not in self._named}
        found = {name: value for name, value in config.items() if name in self._named or self._takes_any}
        foreign = list(beside)
        if "config" in self._named and "config" not in config:
            kind = _dataclass_of(self._annotation("config"))
            foreign = [] if kind is None else sorted(beside.keys() - {entry.name for entry in fields(kind)})
            if beside or self._named["config"].default is inspect.Parameter.empty:
                found["config"] = beside
        if foreign and not self._takes_any:
            raise ValueError(
                f"{FOLDER}: expected a model that {self._class} saved, got '{folder}', whose "
                f"{CONFIG} has {', '.join(map(repr, foreign[:3]))}, which {self._class} does not take"
            )
        for name in found.keys() - given.keys():
            try:
                found[name] = self._decoded(self._annotation(name), found[name])
            except Exception as error:
                raise ValueError(
                    f"{FOLDER}: {name} cannot be made from {CONFIG} in '{folder}' ({reason(error)})"
                ) from None
        return {**found, **given}

    def _annotation(self, name: str) -> Any:
        """A parameter's annotation, with the types that strings in it name, if these are found."""
        if name not in self._named:  # one of the keywords that a constructor takes without naming them
            return Any
        annotation = self._named[name].annotation
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            return get_type_hints(holder, globalns=self._space)[name]
        except Exception:  # names that are not found, or no types
            return annotation

    def _decoded(self, annotation: Any, value: Any) -> Any:
        """A value from what JSON holds. As on the Hub, entries that are no fields of a dataclass are left out."""
        if value is None:
            return None
        only = [member for member in _members(annotation) if member is not NoneType]
        for kind, (_, decode) in self._coders.items():
            if len(only) == 1 and isinstance(only[0], type) and issubclass(only[0], kind):
                return decode(value)
        made = _dataclass_of(annotation)
        if made is None or not isinstance(value, dict):
            return value
        try:
            hints = get_type_hints(made)
        except Exception:  # names that are not found, or no types
            hints = {}
        return made(
            **{
                entry.name: self._decoded(hints.get(entry.name, entry.type), value[entry.name])
                for entry in fields(made)
                if entry.init and entry.name in value
            }
        )


def encoded(value: Any, coders: Coders = CODERS) -> Any:
    """A value as JSON holds it.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot hold it.
    """

    def of_object(inner: Any) -> Any:
        for kind, (encode, _) in coders.items():
            if isinstance(inner, kind):
                return encode(inner)
        if is_dataclass(inner) and not isinstance(inner, type):
            return {entry.name: getattr(inner, entry.name) for entry in fields(inner)}
        raise TypeError(f"JSON cannot hold {type(inner).__name__}")

    if isinstance(value, tuple(coders)):
        value = of_object(value)
    return json.loads(json.dumps(value, default=of_object if is_dataclass(value) else None))


def _dataclass_of(annotation: Any) -> type | None:
    """The dataclass that a JSON object stands for; None where it may be a plain object or one of several classes."""
    members = _members(annotation)
    kinds = [member for member in members if isinstance(member, type) and is_dataclass(member)]
    return kinds[0] if len(kinds) == 1 and not any(map(_takes_object, members)) else None


def _difference(value: Any, again: Any, where: str) -> str | None:
    """The first place where a value has a dataclass and what is made again has none of that class, or None."""
    pairs: list[tuple[Any, Any, str]] = []
    if is_dataclass(value) and not isinstance(value, Profile):
        if type(again) is not type(value):
            return where
        pairs = [(getattr(value, e.name), getattr(again, e.name), f"{where}.{e.name}") for e in fields(value)]
    elif isinstance(value, (list, tuple)) and isinstance(again, (list, tuple)):
        pairs = [(*both, f"{where}[{index}]") for index, both in enumerate(zip(value, again, strict=False))]
    elif isinstance(value, dict) and isinstance(again, dict):
        pairs = [(entry, again.get(key), f"{where}[{key!r}]") for key, entry in value.items()]
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)


def _may_be_plain(annotation: Any) -> bool:
    """Whether a constructor with this annotation expects a plain object of JSON, as far as one can tell."""
    members = _members(annotation)
    known = not any(isinstance(member, str | ForwardRef) or is_dataclass(member) for member in members)
    return known or any(map(_takes_object, members))


def _members(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def _takes_object(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is Any or kind is object or (isinstance(kind, type) and issubclass(kind, Mapping))
