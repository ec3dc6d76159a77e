"""`torchdcls` and its commands: `compare`, `train`, `eval`, `export`, `info`."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from torchdcls_cli import COMMANDS, answer

from .. import __version__
from .._checks import also_nearest, nearest
from .._extras import MissingExtraError, require

if TYPE_CHECKING:
    from .options import Command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for wrong input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    answer(arguments, __version__)
    called = " ".join(["torchdcls", *(word for word in arguments[:1] if not word.startswith("-"))])
    return run(called, lambda: _command(arguments), arguments[1:])


def run(called: str, command: Callable[[], "Command"], arguments: list[str]) -> int:
    """Parses arguments, does what the command does, and returns its exit status.

    Args:
        called: How the command is called, the beginning of its usage and errors.
        command: Imports the command.
        arguments: The words after `called`.
    """
    options: set[str] = set()
    try:
        found = command()
        from jsonargparse import ArgumentError

        from .options import check_options, mistake

        parser = found.options(arguments)
        parser.prog, parser.exit_on_error = called, False
        options = {action.dest for action in parser._actions if action.option_strings}
        check_options(parser, arguments)
        try:
            parsed = parser.parse_args(arguments)
        except ArgumentError as error:
            raise mistake(error, parser) from None
        return found.run(parsed.as_dict(), arguments)
    except KeyboardInterrupt:
        return 130
    except (ValueError, FloatingPointError, OSError, MissingExtraError) as error:
        # Errors begin with the name of the setting, which is an option here.
        text = str(error)
        if isinstance(error, OSError) and error.strerror is not None:
            # Not "[Errno 30] Read-only file system: 'x'".
            place = "" if error.filename is None else f", '{error.filename}'"
            text = f"a file cannot be used{place}: {error.strerror}; give another one, or make it accessible"
        name, colon, rest = text.partition(":")
        flag = "--" + name.replace("_", "-")
        typed = any(argument.partition("=")[0] == flag for argument in arguments)
        option = flag if typed or name in options else name
        _tell(f"{called}: {option}{colon}{rest}")
        return 2


def _command(arguments: Sequence[str]) -> "Command":
    word, names = arguments[0] if arguments else "", ", ".join(COMMANDS)
    if word.startswith("-"):
        raise ValueError(
            f"{word}: expected a command before its options, one of {names}"
            + also_nearest(word, ("-h", "--help", "--version"))
        )
    if word not in COMMANDS:
        hint = nearest(word, COMMANDS) if word else "torchdcls --help describes them"
        raise ValueError(f"expected one of {names}; {hint}")
    entry = COMMANDS[word]
    require("this command", "train", entry.module.partition(".")[0])
    found: Command = getattr(import_module(entry.module), entry.name)
    return found


def _tell(sentence: str) -> None:
    """Prints an error; under torchrun once for all processes, and as the cause at the end of torchrun's own lines."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is not None:
        about = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": about}), encoding="utf-8")
    if file is None or os.environ.get("RANK", "0") == "0":
        print(sentence, file=sys.stderr)
