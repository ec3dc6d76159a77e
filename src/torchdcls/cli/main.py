"""`torchdcls compare`."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

from .. import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for wrong input, 130 after Ctrl-C."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from jsonargparse import ArgumentParser

        from ..train.compare import compare
        from ..train.config import METHODS, CompareConfig
    except ImportError as error:
        print(
            f"torchdcls: the command line needs the packages of the train extra ({error.name} is missing): "
            'pip install "torchdcls[train]"',
            file=sys.stderr,
        )
        return 2

    parser = ArgumentParser(
        prog="torchdcls", description="Dilated Convolution with Learnable Spacings.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"torchdcls {__version__}")
    commands = parser.add_subcommands(required=True, dest="command")
    comparison = ArgumentParser(
        description="Train the same small model with 7x7 and with DCLS layers on real images, and compare them."
    )
    comparison.add_argument("--config", action="config", help="YAML file with settings")
    types = get_type_hints(CompareConfig)
    for setting in fields(CompareConfig):
        flag, text = "--" + setting.name.replace("_", "-"), setting.metadata["help"]
        if types[setting.name] is bool:
            comparison.add_argument(flag, action="store_true", help=text)
        elif get_origin(types[setting.name]) is Sequence:
            (choice,) = get_args(types[setting.name])
            comparison.add_argument(flag, nargs="+", type=choice, default=[*METHODS], help=text)
        else:
            comparison.add_argument(flag, type=types[setting.name], default=setting.default, help=text)
    commands.add_subcommand("compare", comparison, help="train a small model with 7x7 and with DCLS layers")

    settings = parser.parse_args(arguments).compare.as_dict()
    settings.pop("config")
    try:
        result = compare(CompareConfig(**settings), argv=arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        # Errors begin with the name of the setting, which is an option here.
        name, colon, rest = str(error).partition(":")
        option = "--" + name.replace("_", "-") if name in settings else name
        print(f"torchdcls compare: {option}{colon}{rest}", file=sys.stderr)
        return 2
    return 130 if result["status"] == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
