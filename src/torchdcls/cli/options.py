"""Options of commands, made from dataclasses, and one sentence about a mistake in a command line."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .._checks import also_nearest, nearest
from .._extras import needed_by

with needed_by("torchdcls.cli.options", "train"):
    from jsonargparse import ArgumentError, ArgumentParser


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        options: Makes its parser, from all arguments of the process.
        run: Runs it, with the parsed and with all arguments, and returns the exit status.
    """

    options: Callable[[Sequence[str]], ArgumentParser]
    run: Callable[[dict[str, Any], list[str]], int]


def add_settings(parser: ArgumentParser, config: type[Any], defaults: Mapping[str, Any]) -> None:
    """Adds an option for each field of a dataclass, with the help in its metadata; SUPPRESS leaves a default to it."""
    types = get_type_hints(config)
    for setting in fields(config):
        flag, text = "--" + setting.name.replace("_", "-"), setting.metadata["help"]
        kind, default = types[setting.name], defaults.get(setting.name, setting.default)
        lists = [one for one in (kind, *get_args(kind)) if get_origin(one) is Sequence]  # one may be optional
        if kind is bool:
            # With or without a word, whatever the default.
            parser.add_argument(flag, nargs="?", const=True, type=bool, default=default, help=text)
        elif lists:
            (choice,) = get_args(lists[0])
            default = None if default is None else list(default)
            parser.add_argument(flag, nargs="+", type=choice, default=default, help=text)
        else:
            parser.add_argument(flag, type=kind, default=default, help=text)


def check_options(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuses an option that a command does not have."""
    known = {option for action in parser._actions for option in action.option_strings}
    for argument in arguments:
        option = argument.partition("=")[0]
        if option.startswith("--") and option.partition(".")[0] not in known:
            raise ValueError(f"{option}: expected an option; {nearest(option, sorted(known))}")


def mistake(error: ArgumentError, parser: ArgumentParser) -> ValueError:
    """An error of jsonargparse, whose message has several lines, in one sentence."""
    text = " ".join(str(error).split())
    found = re.search(r'Parser key "(?:\w+\.)?(\w+)".*?(?:Got|Given) value: (.*)', str(error), re.DOTALL)
    if found is not None:
        (kind,) = (action._typehint for action in parser._actions if action.dest == found[1])  # type: ignore[attr-defined]
        return of_another_type(found[1], kind, found[2].strip(), "")
    if (unknown := re.fullmatch(r"unrecognized arguments: (.*)", text)) is not None:
        return ValueError(f"expected options, which begin with --, got the extra word {unknown[1]!r}")
    if (content := re.fullmatch(r"(?:Unexpected config|Problems parsing config): (.*)", text)) is not None:
        return ValueError(f"config: expected a YAML file with lines of 'setting: value' ({content[1]})")
    # Keys and required words are called by their command too.
    text = re.sub(r'^Parser key "(?:\w+\.)?(\w+)": ', r"\1: ", re.sub(r"(required: )\w+\.", r"\1", text))
    return ValueError(re.sub(r"^argument (-[\w-]+): ", r"\1: ", text))


def of_another_type(name: str, kind: Any, value: Any, place: str) -> ValueError:
    choices = [choice for choice in _choices(kind) if isinstance(choice, str)]
    hint = also_nearest(value, choices)
    if isinstance(value, str) and re.search(r":\S", value) and _takes_a_mapping(kind):
        spaced = re.sub(r":(?=\S)", ": ", value)
        hint = f"; YAML needs a space after the colon: {spaced!r}"
    return ValueError(f"{name}: expected {_in_words(kind)}{place}, got {value!r}{hint}")


def _takes_a_mapping(kind: Any) -> bool:
    return any(get_origin(one) is Mapping for one in (kind, *get_args(kind)))


def _choices(kind: Any) -> list[Any]:
    arguments = get_args(kind)
    return list(arguments) if get_origin(kind) is Literal else [one for part in arguments for one in _choices(part)]


_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a word",
    Path: "a path",
    NoneType: "null",
    Mapping: "a mapping such as '{depths: [2, 2], dims: [8, 8]}'",
}


def _in_words(kind: Any) -> str:
    *most, last = _each_in_words(kind)
    return f"{', '.join(most)} or {last}" if most else last


def _each_in_words(kind: Any) -> list[str]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return list(map(repr, arguments))
    if origin in (Union, UnionType):
        return [word for argument in arguments for word in _each_in_words(argument)]
    if origin is tuple:
        return [f"{len(arguments)} numbers such as '[0.5, 1]'"]
    return [_WORDS.get(origin or kind) or str(kind)]
