"""`torchdcls` and its commands: `compare`, `train`, `eval`, `study`, `export`, `info`."""

import sys
from collections.abc import Sequence

from .. import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for wrong input, 130 after Ctrl-C."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    try:
        from jsonargparse import ArgumentError, ArgumentParser

        from .commands import COMMANDS, check_command, mistake
    except ImportError as error:
        print(
            f"torchdcls: the command line needs the packages of the train extra ({error.name} is missing): "
            'pip install "torchdcls[train]"',
            file=sys.stderr,
        )
        return 2

    parser = ArgumentParser(
        prog="torchdcls",
        description="Dilated Convolution with Learnable Spacings.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"torchdcls {__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    names: dict[str, set[str]] = {}
    try:
        check_command(arguments)
        for command in COMMANDS:
            options = command.options(arguments)
            names[command.name] = {action.dest for action in options._actions if action.option_strings}
            subcommands.add_subcommand(command.name, options, help=command.help)
        try:
            parsed = parser.parse_args(arguments)
        except ArgumentError as error:
            raise mistake(error) from None
        (command,) = (command for command in COMMANDS if command.name == parsed.command)
        return command.run(parsed[command.name].as_dict(), arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        # Errors begin with the name of the setting, which is an option here.
        called = next((argument for argument in arguments if not argument.startswith("-")), "")
        name, colon, rest = str(error).partition(":")
        option = "--" + name.replace("_", "-") if name in names.get(called, ()) else name
        print(f"{f'torchdcls {called}'.strip()}: {option}{colon}{rest}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
