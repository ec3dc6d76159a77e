"""The directive `commands`: every command, each option with its type, default and meaning, from the parsers."""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from torchdcls.cli.main import _command
from torchdcls.cli.options import _in_words
from torchdcls_cli import COMMANDS
from torchdcls_train.commands import COMPARISONS


class Commands(SphinxDirective):
    """Sections for all commands."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(lines()), allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}


def lines() -> Iterator[str]:
    """The page below its title, in Markdown."""
    for name, entry in COMMANDS.items():
        for words in [[], *([word] for word in COMPARISONS if name == "compare")]:
            parser = _command([name]).options(words)
            parser.prog = "torchdcls"
            yield from (f"## torchdcls {' '.join([name, *words])}", "")
            if not words:
                yield from (f"{entry.text[0].upper()}{entry.text[1:]}.", "")
            yield from ("```text", f"{parser.usage}", "```", "", _with_options(parser.description or ""), "")
            for action in parser._actions:
                if action.dest not in ("help", "print_config") and action.help != "==SUPPRESS==":
                    yield from _option(action)


def _option(action: Any) -> Iterator[str]:
    shown = ", ".join(action.option_strings) or action.dest.upper()
    kind = _kind(action)
    default = action.default
    if action.nargs in ("*", "+"):
        kind = f"one or more: {kind}"
    if action.option_strings and default not in (None, "==SUPPRESS=="):
        words = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        kind += f", default `{words.lower() if isinstance(default, bool) else words}`"
    text = " ".join(str(action.help).split()).replace("%%", "%")
    yield from (f"`{shown}` ({kind})", f": {_with_options(text)}", "")


def _with_options(text: str) -> str:
    """A text with its options as code, where two dashes stay two dashes."""
    return re.sub("--[a-z][a-z-]*", r"`\g<0>`", text)


def _kind(action: Any) -> str:
    kind = getattr(action, "_typehint", None) or action.type
    if kind is None:
        return "a flag" if action.nargs == 0 else "a path" if action.dest == "config" else "a word"
    # Without a value an option is null: its text says what happens then.
    return _in_words(kind).removesuffix(" or null").replace("|", "\\|")
