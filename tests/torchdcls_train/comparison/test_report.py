"""The report: one file that needs nothing else, and says what the record says."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tests.torchdcls_train.comparison.made_results import made_result
from torchdcls_train.comparison.positions.result import PositionsResult
from torchdcls_train.comparison.report import Section, present, write_report

PNG = b"\x89PNG not really"


class Read(HTMLParser):
    """What a browser sees of a file: its text, the addresses it would fetch, and tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.ids: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids |= {value for name, value in attrs if name == "id"}
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value is not None]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def part(tmp_path: Path) -> Section:
    (tmp_path / "a.png").write_bytes(PNG)
    data = {"name": "d", "train_images": 1, "test_images": 1, "correlated_cells": {}}
    config = {"students": ["bilinear", "gaussian"], "lr": 0.004, "updates": None}
    about = {"command": "torchdcls compare images", "status": "interrupted"}
    result = made_result(PositionsResult, **about, data=data, config=config)
    pictures = {tmp_path / "a.png": "What it shows", tmp_path / "missing.png": "not drawn"}
    return Section(
        "Do they?",
        "Asked & answered",
        ["more", "less < none"],
        ["it means"],
        {"T": [["m"], ["1"]]},
        pictures,
        result,
    )


def test_a_report_holds_all_it_shows(part: Section, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(file, [part, part])
    read = Read()
    read.feed(file.read_text())
    assert not read.open and file.read_text().startswith("<!doctype html>")
    picture = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert read.fetched == ["#section-0", "#section-1", picture, picture]
    assert {"section-0", "section-1"} <= read.ids
    text = " ".join(read.text)
    for expected in (
        *(
            "Do they?",
            "Asked & answered",
            "The comparison is not complete (interrupted): only",
            "more",
            "less < none",
            "it means",
            "What it shows",
        ),
        *("A <fast> one, 2 cores, 1 of them used, 23.5 GiB, Debian", "torchdcls compare images", "torch 2.14"),
        *("abc, with changes", "0.5 processes", "bilinear gaussian", "0.004", "default", "2026-01-02T03:04:05+00:00"),
    ):
        assert text.count(expected) >= 2, expected
    assert "not drawn" not in text
    assert not re.search(r"https?://", file.read_text())


def test_a_report_of_several_begins_with_what_each_found(part: Section, tmp_path: Path) -> None:
    file, whole = tmp_path / "report.html", replace(part.result, status="finished")
    write_report(file, [replace(part, title="First", result=whole), replace(part, title="Second")])
    top = file.read_text().split('<h1 id="section-0">')[0]
    assert [line for line in top.splitlines() if line.startswith("<li>")] == [
        '<li><a href="#section-0">First</a><br>more</li>',
        f'<li><a href="#section-1">Second</a><br>{part.result.notice} more</li>',
    ]
    write_report(file, [part])
    assert "#section-0" not in file.read_text()


@pytest.mark.parametrize("done", [True, False])
def test_what_is_done_is_printed_and_written(part: Section, tmp_path: Path, done: bool) -> None:
    console = Console(file=io.StringIO(), width=80)
    drawn = [tmp_path / "a.png"]
    present(part if done else None, tmp_path, console, lambda: drawn)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    written = [line.removeprefix("wrote ") for line in printed.splitlines() if line.startswith("wrote ")]
    names = ["results.json", "table.md", "a.png", "report.html"] if done else ["results.json", "a.png"]
    assert written == [str(tmp_path / name) for name in names]
    told = [part.result.notice, *part.found, *part.explained, *part.tables]
    assert all((words in printed) == done for words in told)
    assert {path.name for path in tmp_path.iterdir()} == ({"a.png", "table.md", "report.html"} if done else {"a.png"})
