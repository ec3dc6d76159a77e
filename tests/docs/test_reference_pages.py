"""The reference has every public name, option, extra and variable of the environment."""

import importlib
import re
import sys
import tomllib
from dataclasses import fields

import pytest
from pages import ROOT

from torchdcls.cli.info import InfoConfig
from torchdcls_cli import COMMANDS
from torchdcls_train.settings import EvalConfig, ExportConfig, TrainConfig

sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
from commands import lines
from docstrings import MODULES, process

REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
ENTRIES = set(re.findall(r"^\.\. (?:py:data|auto\w+):: (\S+)$", REFERENCE, re.MULTILINE))


@pytest.mark.parametrize("module", [f"torchdcls{name}" for name in (*MODULES, ".native")])
def test_every_public_name_has_an_entry(module: str) -> None:
    missing = []
    for name in importlib.import_module(module).__all__:
        # Most names are offered by several modules, and have an entry under one.
        if not any(entry == name or entry.endswith(f".{name}") for entry in ENTRIES):
            missing.append(name)
    assert missing == []


def test_every_package_with_public_names_is_looked_at() -> None:
    packages = {
        ".".join(path.parent.relative_to(ROOT / "src").parts)
        for path in (ROOT / "src" / "torchdcls").glob("**/__init__.py")
        if "__all__" in path.read_text(encoding="utf-8")
    }
    below = {name for name in packages if name.startswith("torchdcls.ops")}  # their names are those of torchdcls
    assert packages - below - {"torchdcls.cli"} <= {f"torchdcls{name}" for name in MODULES}


def test_every_option_of_every_command_is_told() -> None:
    page = "\n".join(lines())
    for name in COMMANDS:
        assert f"\n## torchdcls {name}\n" in f"\n{page}\n"
    for config in (InfoConfig, TrainConfig, EvalConfig, ExportConfig):
        for setting in fields(config):
            assert f"`--{setting.name.replace('_', '-')}`" in page
    assert "`--kernel-count` (an integer or 'iso', default `iso`)\n: elements per kernel, or iso" in page
    assert "\n## torchdcls compare positions\n" in page


def test_every_variable_of_the_environment_is_told() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    read = set()
    for path in (*(ROOT / "src").rglob("*.py"), ROOT / "hatch_build.py", *(ROOT / "csrc").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        read |= set(re.findall(r"environ(?:\.get\(|\.setdefault\(|\[)\"(\w+)\"", source))
        read |= set(re.findall(r"\"(\w+)\" (?:not )?in os\.environ", source))
        read |= set(re.findall(r"^SWITCH = \"(\w+)\"", source, re.MULTILINE))
    assert {"TORCHDCLS_NATIVE", "GOMP_SPINCOUNT", "LOCAL_RANK"} <= read
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


def test_every_extra_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "start" / "install.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(project["optional-dependencies"])


def test_docstrings_become_markup() -> None:
    text = """Says (batch, *map) of |u|, see `convert`,
`layer.x`; `Profile`s with a final_ line:

    kernel[x] = a * b

Returns:
    Cells. Unit: cells.

Example:
    >>> a * b
    6"""
    found = text.split("\n")
    process(None, "function", "name", None, None, found)
    assert (
        "\n".join(found)
        == r"""Says (batch, \*map) of \|u\|, see :py:obj:`convert <torchdcls.convert>`,
``layer.x``; :py:obj:`Profile <torchdcls.Profile>`\ s with a final\_ line::

    kernel[x] = a * b

:returns:
    Cells. Unit: cells.

Example:
    >>> a * b
    6"""
    )
