"""Tables in README.md and docs/: where they go, which result they come from, and when they are stale."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.tables import TableError, main, update

BEFORE = "# Title\n\nWords.\n\n"
AFTER = "\n\nMore words.\n"


def place(name: str, inside: str = "\nold") -> str:
    return f"<!-- table:{name} -->{inside}\n<!-- /table:{name} -->"


@pytest.fixture(autouse=True)
def simple_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables that show one number each."""
    makers = {name: lambda result: f"| {result['value']} |" for name in ("construction", "conv")}
    monkeypatch.setattr(tables, "TABLES", makers)


def put(folder: Path, name: str, date: str, value: Any, **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"date": date, "value": value, **more}))


def test_table_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    put(tmp_path, "construction-a", "2026-01-01", r"7 \1")
    text, stale = update(BEFORE + place("construction") + AFTER, tmp_path)
    assert text == BEFORE + place("construction", "\n| 7 \\1 |") + AFTER
    assert stale == ["construction"]
    assert update(text, tmp_path) == (text, [])


def test_empty_place_is_filled(tmp_path: Path) -> None:
    put(tmp_path, "construction-a", "2026-01-01", 7)
    text, _ = update(place("construction", ""), tmp_path)
    assert text == place("construction", "\n| 7 |")


def test_several_tables(tmp_path: Path) -> None:
    put(tmp_path, "construction-a", "2026-01-01", 1)
    put(tmp_path, "conv-a", "2026-01-01", 2)
    text, stale = update(place("conv") + "\n\n" + place("construction", "\n| 1 |"), tmp_path)
    assert text == place("conv", "\n| 2 |") + "\n\n" + place("construction", "\n| 1 |")
    assert stale == ["conv"]


def test_newest_by_the_date_inside(tmp_path: Path) -> None:
    put(tmp_path, "construction-a", "2026-02-01T10:00:00+00:00", 2)
    put(tmp_path, "construction-b", "2026-01-01T10:00:00+00:00", 1)
    put(tmp_path, "construction-c", "2026-02-01T09:00:00+00:00", 3)
    assert tables.newest_result("construction", tmp_path)["value"] == 2


def test_incomplete_results_do_not_count(tmp_path: Path) -> None:
    put(tmp_path, "construction-a", "2026-01-01", 1, complete=True)
    put(tmp_path, "construction-b", "2026-02-01", 2, complete=False)
    assert tables.newest_result("construction", tmp_path)["value"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table:construction -->\nno end",
        "no start\n<!-- /table:construction -->",
        "<!-- /table:construction -->\n<!-- table:construction -->",
        place("construction") + "\n" + place("construction"),
        "<!-- table:construction -->\n" + place("construction"),
    ],
)
def test_broken_markers(tmp_path: Path, text: str) -> None:
    put(tmp_path, "construction-a", "2026-01-01", 1)
    with pytest.raises(TableError, match=r"table 'construction': expected <!-- table:construction --> once"):
        update(text, tmp_path)


def test_results_without_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "results", "construction-a", "2026-01-01", 1)
    (tmp_path / "README.md").write_text("# Title\n")
    assert main(["--root", str(tmp_path), "--results", str(tmp_path / "results")]) == 1
    assert "no page has table 'construction'" in capsys.readouterr().err


def test_pages_have_tables_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "results", "construction-a", "2026-01-01", 1)
    page = tmp_path / "docs" / "guides" / "speed.md"
    page.parent.mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Title\n")
    page.write_text(place("construction"))
    arguments = ["--root", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main(["--check", *arguments]) == 1
    assert "docs/guides/speed.md: table 'construction' is stale" in capsys.readouterr().err
    assert main(arguments) == 0
    assert page.read_text() == place("construction", "\n| 1 |")
    page.write_text(place("speed"))
    assert main(arguments) == 1
    assert "docs/guides/speed.md: unknown table 'speed'" in capsys.readouterr().err


def test_place_without_results(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no complete result for table 'construction'"):
        update(place("construction"), tmp_path)


def test_unknown_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="unknown table 'speed'"):
        update(place("speed"), tmp_path)


def test_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    put(results, "construction-a", "2026-01-01", 1)
    readme.write_text(place("construction"))
    arguments = ["--root", str(tmp_path), "--results", str(results)]
    assert main(["--check", *arguments]) == 1
    assert "README.md: table 'construction' is stale" in capsys.readouterr().err
    assert readme.read_text() == place("construction")
    assert main(arguments) == 0
    assert readme.read_text() == place("construction", "\n| 1 |")
    assert main(["--check", *arguments]) == 0


def test_error_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(place("construction"))
    assert main(["--root", str(tmp_path), "--results", str(tmp_path)]) == 1
    assert "README.md: no complete result" in capsys.readouterr().err


def construction_result() -> dict[str, Any]:
    problem = {
        "name": "stage-1",
        "candidate_ms": 1.234,
        "baseline_ms": 123.4,
        "ratio": 100.2,
        "spread": [9.94, 110.4],
        "verdict": "faster",
        "ratio_by_turn": [100.2] * 9,
        "candidate_saved_bytes": 2**20,
        "baseline_saved_bytes": 20 * 2**20,
    }
    total = {"layers": 3, "candidate_ms": 3.7, "baseline_ms": 370.2}
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "command": "python -m benchmarks.run construction",
        "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 23.5, "os": "Debian"},
        "versions": {"Python": "3.11.2", "torch": "2.14.1"},
        "settings": {"turns": 9, "threads": 2},
        "problems": [problem, {**problem, "name": "stage-2", "verdict": "no difference"}],
        "total": {**total, "candidate_saved_bytes": 3 * 2**20, "baseline_saved_bytes": 60 * 2**20},
    }


def test_construction_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    lines = tables.TABLES["construction"](construction_result()).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| stage-1 | 1.23 ms | 123 ms | 100 (9.94 to 110) | 1 MiB | 20 MiB |"
    assert lines[3] == "| stage-2 | 1.23 ms | 123 ms | no difference (9.94 to 110) | 1 MiB | 20 MiB |"
    assert lines[4] == "| all 3 layers | 3.7 ms | 370 ms |  | 3 MiB | 60 MiB |"
    assert lines[5] == ""
    assert lines[6].endswith(tables.caption(construction_result()))
    assert "threads: 2, median of 9 turns" in lines[6]


def test_caption_says_where_the_numbers_come_from() -> None:
    assert tables.caption(construction_result()) == (
        "AMD EPYC, 2 cores, 23.5 GiB, Debian; Python 3.11.2, torch 2.14.1; commit 0123456789, 2026-01-02; "
        "`python -m benchmarks.run construction`"
    )


def test_caption_admits_uncommitted_changes() -> None:
    result = {**construction_result(), "dirty": True}
    assert "commit 0123456789 with uncommitted changes" in tables.caption(result)


def test_pages_are_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "PAGES", {"families": ("page.md", lambda result: f"{result['value']} below")})
    readme, docs, results = tmp_path / "README.md", tmp_path / "docs", tmp_path / "results"
    readme.write_text("words")
    docs.mkdir()
    results.mkdir()
    call = ["--root", str(tmp_path), "--results", str(results)]
    assert main([*call, "--check"]) == 0  # nothing measured, nothing stale
    put(results, "families-a", "2026-01-01", 7)
    assert main([*call, "--check"]) == 1
    assert "docs/page.md is stale" in capsys.readouterr().err
    assert not (docs / "page.md").exists()
    assert main(call) == 0
    assert (docs / "page.md").read_text() == "7 below"
    assert main([*call, "--check"]) == 0
    (docs / "page.md").write_text("8 by hand")
    assert main([*call, "--check"]) == 1
