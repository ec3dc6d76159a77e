"""Docstrings of the package as reStructuredText: they are written to be read in a terminal.

What stands in backticks is code, and a link where it is a public name. Outside them stars, bars and final underscores
are text. An indented block below a line that ends with a colon is literal.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

MODULES = (
    "",
    ".delays",
    ".inspection",
    ".deployment",
    ".deployment.hub",
    ".conversion",
    ".models",
    ".nn",
    ".plots",
    ".testing",
)
# Constructors that say nothing about arguments: that of `torch.nn.Module`, and `DclsHubMixin.__new__`.
_INTERNAL = ("Initialize internal Module state", "Notes the arguments of the constructor")
_CODE = re.compile(r"(`[^`]+`)")
_MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")


def setup(app: Any) -> dict[str, bool]:
    # Before napoleon, which makes fields of sections.
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("html-page-context", correct_back_links)
    return {"parallel_read_safe": True}


def public_names() -> dict[str, str]:
    """Where the site has an entry for a public name: the first module that offers it."""
    places: dict[str, str] = {}
    for module in (f"torchdcls{name}" for name in MODULES):
        for name in import_module(module).__all__:
            places.setdefault(name, f"{module}.{name}")
    return places


def correct_back_links(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Sphinx's event: a page of source says of all its names that they are offered by the module of the first."""
    if page.startswith("_modules/"):
        names = public_names()
        context["body"] = re.sub(
            r"#torchdcls\.(\w+)", lambda found: f"#{names.get(found[1], found[0][1:])}", context["body"]
        )


def process(app: Any, what: str, name: str, found: object, options: Any, lines: list[str]) -> None:
    """Sphinx's event: changes the lines of a docstring in place."""
    if lines and lines[0].startswith(_INTERNAL):
        lines.clear()
        return
    text = "\n".join(_paragraphs(lines))
    # Napoleon would take what stands before a colon, as in "Unit: cells", for a type.
    lines[:] = re.sub("^Returns:$", ":returns:", text, flags=re.MULTILINE).split("\n")
    if what == "property":
        lines[:0] = ["..", ""]  # a comment: what stands in the first line before a colon would be the type here, too


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """The blocks of a docstring, as reStructuredText: words converted, code as it is."""
    words: list[str] = []
    literal: int | None = None  # the least indentation of a literal block, inside one
    doctest = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip():
            literal = None if literal is not None and indent < literal else literal
            doctest = doctest or line.lstrip().startswith(">>>")
        else:
            doctest = False
        if literal is not None or doctest:
            yield from _converted(words)
            words = []
            yield line
            continue
        following = lines[number + 1 : number + 3]
        if line.endswith(":") and len(following) == 2 and not following[0].strip() and following[1].strip():
            deeper = len(following[1]) - len(following[1].lstrip())
            if deeper > indent:
                literal, line = deeper, f"{line}:"
        words.append(line)
    yield from _converted(words)


def _converted(lines: list[str]) -> Iterator[str]:
    if lines:
        parts = _CODE.split("\n".join(lines))  # words and code in turns
        words = [_MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
        # A letter right behind code, as in `Result`s, needs a mark between them.
        words[1:] = [f"\\ {part}" if part[:1].isalnum() else part for part in words[1:]]
        parts[::2], parts[1::2] = words, [_code(part[1:-1]) for part in parts[1::2]]
        yield "".join(parts)


def _code(text: str) -> str:
    text = " ".join(text.split())
    names = public_names()
    full = text if text in names.values() else names.get(text)
    return f"``{text}``" if full is None else f":py:obj:`{text} <{full}>`"
