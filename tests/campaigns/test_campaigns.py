"""The command that runs campaigns, and the page that is made of what they found."""

import importlib
import json
import sys
from types import ModuleType

import pytest

from benchmarks import tables
from tests.campaigns import __main__ as command
from tests.campaigns.case import Case


@pytest.fixture
def toy(monkeypatch):
    """A campaign of three kinds of case, of which the seed 1 makes one a fault."""
    module = ModuleType("tests.campaigns.toy")

    def run(cases, seed):
        """Numbers against numbers."""
        for index in range(cases):
            fault = "3 is not 4" if seed == 1 and index == 3 else None
            yield Case(f"kind {index % 3}", f"case {index}", fault, None if index % 3 == 2 else index / 2)

    module.CASES, module.WORST, module.run = 7, "error", run
    monkeypatch.setitem(sys.modules, "tests.campaigns.toy", module)
    return importlib.import_module("tests.campaigns.toy")


def run(folder, *options):
    status = command.main([*options, "--out", str(folder)], ["toy"])
    (file,) = folder.iterdir()
    return status, json.loads(file.read_text())


def test_full_campaign_without_faults(toy, tmp_path):
    status, result = run(tmp_path)
    assert (status, result["complete"], result["faults"]) == (0, True, [])
    assert result["rows"] == [
        {"kind": "kind 0", "cases": 3, "faults": 0, "worst": 3.0},
        {"kind": "kind 1", "cases": 2, "faults": 0, "worst": 2.0},
        {"kind": "kind 2", "cases": 2, "faults": 0, "worst": None},
    ]
    assert result["command"] == "python -m tests.campaigns toy --seed 0"


def test_fault_is_named_and_fails(toy, tmp_path, capsys):
    status, result = run(tmp_path, "toy", "--seed", "1")
    assert (status, result["faults"]) == (1, ["kind 0: case 3: 3 is not 4"])
    assert [row["faults"] for row in result["rows"]] == [1, 0, 0]
    printed = capsys.readouterr().out
    assert "kind 0: case 3: 3 is not 4" in printed
    assert "toy: 7 cases, 1 faults" in printed


def test_part_of_a_campaign_is_not_complete(toy, tmp_path):
    status, result = run(tmp_path, "--cases", "2")
    assert (status, result["complete"], len(result["rows"])) == (0, False, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["tyo"], "NAME: expected one of toy, got 'tyo'"), (["--cases", "0"], "--cases: expected at least 1, got 0")],
)
def test_wrong_arguments(options, words, capsys):
    with pytest.raises(SystemExit):
        command.main(options, ["toy"])
    assert words in capsys.readouterr().err


def test_page(toy, tmp_path):
    results, docs = tmp_path / "results", tmp_path / "docs"
    run(results, "--seed", "1")
    ((path, page),) = tables.stale_pages(docs, results).items()
    assert path.name == "campaigns.md"
    for line in (
        "## Toy",
        "Numbers against numbers.",
        "- kind 0: case 3: 3 is not 4",
        "| kind | cases | faults | error |",
        "| kind 0 | 3 | 1 | 3 |",
        "| kind 2 | 2 | 0 | - |",
    ):
        assert line in page.splitlines()
    assert "**7 cases, 1 faults**" in page
    assert "`python -m tests.campaigns toy --seed 1`" in page
