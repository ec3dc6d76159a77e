"""The command `torchdcls` as far as it goes without torch, which takes seconds to import.

It stands beside the package: whatever stands in it imports torch first.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple


class Entry(NamedTuple):
    """A command: what `--help` says of it, and the module and the name there of what it takes and does."""

    text: str
    module: str
    name: str


COMMANDS = {
    "compare": Entry(
        "compare DCLS layers with others: on known taps, images and spoken digits",
        "torchdcls_train.commands",
        "COMPARE",
    ),
    "train": Entry("train a model at full size, on one machine or many", "torchdcls_train.commands", "TRAIN"),
    "eval": Entry("score a checkpoint", "torchdcls_train.commands", "EVAL"),
    "export": Entry(
        "write a checkpoint's model for ONNX, torch.export or other programs",
        "torchdcls_train.commands",
        "EXPORT",
    ),
    "info": Entry("describe a model and preview its conversions", "torchdcls.cli.info", "INFO"),
}


def main() -> int:
    """The console script: runs a command and returns its exit status."""
    words = sys.argv[1:]
    answer(words, version("torchdcls"))
    # Threads that wait for the slowest of them soon sleep: those that spin on hold the cores that it waits for, where
    # another process is busy. OpenMP reads this when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from torchdcls.cli import main

    return main(words)


def answer(words: Sequence[str], version: str) -> None:
    """Prints what `--help` or `--version` asks for, if it is the first word, and ends the process."""
    if not words or words[0] not in ("-h", "--help", "--version"):
        return
    parser = argparse.ArgumentParser(
        prog="torchdcls",
        description="Dilated Convolution with Learnable Spacings.",
        epilog="torchdcls COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"torchdcls {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.text)
    parser.parse_args(words[:1])


if __name__ == "__main__":
    sys.exit(main())
