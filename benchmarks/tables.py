"""Puts the newest results into README.md and docs/: `python -m benchmarks.tables`; `--check` only says what is stale.

A page of docs/ that is made from results is made whole. A table of README.md stands between two comments,
`<!-- table:NAME -->` and `<!-- /table:NAME -->`, and comes from the result file `NAME-*.json` that has the latest
`date`. Results of some of a benchmark's problems (`"complete": false`) do not count. Published studies,
`study-*.jsonl`, have a table together, and docs/results.md with its pictures.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from studies.settings.page import page as settings_page
from studies.settings.records import RECORDS, read_records
from torchdcls._tables import markdown_table

from . import campaigns, construction, conv, families, gpu_session, kept_weights, model, sizes, study
from .record import RESULTS, ROOT, newest_of

Result = Mapping[str, Any]


# Processes that wanted a core before a measurement, from where on its caption says so.
BUSY = 0.5


class TableError(Exception):
    """A table that cannot be made or has no place."""


def update(text: str, results: Path) -> tuple[str, list[str]]:
    """Replaces every table in a text.

    Args:
        text: Markdown with markers.
        results: Folder of the result files.

    Returns:
        The text with all tables new, and the names of those that were stale.

    Raises:
        TableError: A marker without its partner, without results or of an unknown name; results without a marker.
    """
    newest = {name: result for name in TABLES if (result := newest_result(name, results)) is not None}
    places = _names(text)
    if missing := [name for name in newest if name not in places]:
        raise TableError(
            f"no place for table {missing[0]!r}: expected {_opening(missing[0])} and {_closing(missing[0])}"
        )
    stale = []
    for name in places:
        if name not in TABLES:
            raise TableError(f"unknown table {name!r}, expected one of {', '.join(TABLES)}")
        if name in newest:
            table = TABLES[name](newest[name])
        elif name in UNMEASURED:
            table = UNMEASURED[name]
        else:
            raise TableError(f"no complete result for table {name!r} among the result files")
        replaced = _replace(text, name, table)
        if replaced != text:
            stale.append(name)
        text = replaced
    return text, stale


def stale_pages(docs: Path, results: Path) -> dict[Path, str]:
    """The pages that are not what the newest results make of them, with what they should be."""
    stale = {}
    for name, (file, page) in PAGES.items():
        result, path = newest_result(name, results), docs / file
        if result is None:
            continue
        text = page(result)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale[path] = text
    return stale


def newest_result(name: str, results: Path) -> Result | None:
    """The complete result `NAME-*.json` with the latest date in it, or None; studies together, and campaigns."""
    if name == "settings":
        return {"records": read_records(results / RECORDS)} if (results / RECORDS).is_file() else None
    if name == "study":
        return {"studies": published} if (published := study.studies(results)) else None
    if name == "campaigns":
        names = {json.loads(path.read_text(encoding="utf-8"))["benchmark"] for path in results.glob("campaign-*.json")}
        newest = [newest_result(each, results) for each in sorted(names)]
        return {"campaigns": known} if (known := [result for result in newest if result is not None]) else None
    return newest_of(name, results)


def caption(result: Result) -> str:
    """The line below a table: machine, versions, commit, date and command of the result."""
    machine = result["machine"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    memory = f", {machine['memory_gib']} GiB" if machine.get("memory_gib") is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    commit = (result["commit"] or "unknown")[:10] + (" with uncommitted changes" if result["dirty"] else "")
    load = f", load before it {result['load']}" if (result.get("load") or 0) > BUSY else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores{memory}, {machine['os']}; {versions}; "
        f"commit {commit}, {result['date'][:10]}; `{result['command']}`{load}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the tables of README.md; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Update the tables of README.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a table is stale")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file with the tables")
    parser.add_argument("--docs", type=Path, help="folder of the pages (default: docs beside the README)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    arguments = parser.parse_args(argv)
    docs = arguments.docs or arguments.readme.parent / "docs"
    try:
        text, stale = update(arguments.readme.read_text(encoding="utf-8"), arguments.results)
    except TableError as error:
        print(f"{arguments.readme.name}: {error}", file=sys.stderr)
        return 1
    pages, published = stale_pages(docs, arguments.results), study.studies(arguments.results)
    if arguments.check:
        pictures = [name for _, name in study.stale_pictures(published, docs)]
        for name in stale:
            print(f"{arguments.readme.name}: table {name!r} is stale, run python -m benchmarks.tables", file=sys.stderr)
        for name in (stale_files := [path.name for path in pages] + pictures):
            print(f"docs/{name} is stale, run python -m benchmarks.tables", file=sys.stderr)
        return 1 if stale or stale_files else 0
    arguments.readme.write_text(text, encoding="utf-8")
    docs.mkdir(parents=True, exist_ok=True)
    for path, page in pages.items():
        path.write_text(page, encoding="utf-8")
    for path in [*pages, *study.write_pictures(published, docs)]:
        print(f"docs/{path.relative_to(docs).as_posix()}: written")
    print(f"{arguments.readme.name}: {', '.join(stale) or 'nothing'} updated")
    return 0


def _measured(benchmark: ModuleType) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        return f"{markdown_table(benchmark.rows(result))}\n\n{benchmark.note(result)} {caption(result)}"

    return table


def _of_session(name: str) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        return f"{markdown_table(gpu_session.part(name).rows(result))}\n\n{caption(result)}"

    return table


# Table name, which result files are named by too, to what makes its Markdown out of a result.
TABLES: dict[str, Callable[[Result], str]] = {
    "comparison": lambda result: f"{result['table']}\n\n{caption(result)}",
    "digits": lambda result: f"{result['table']}\n\n{caption(result)}",
    "study": lambda result: study.table(result["studies"]),
    "fine-tuning": _measured(kept_weights),
    "construction": _measured(construction),
    "conv": _measured(conv),
    "model": _measured(model),
    "sizes": _measured(sizes),
    "gpu-layers": _of_session("layers"),
    "gpu-model": _of_session("model"),
}
# Result files' name to the page made of them, and what makes it out of a result.
PAGES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "study": (study.PAGE, lambda result: study.page(result["studies"])),
    "settings": ("settings.md", lambda result: settings_page(result["records"])),
    "families": ("models.md", lambda result: families.page(result, caption(result))),
    "campaigns": (
        "campaigns.md",
        lambda result: campaigns.page([(each, caption(each)) for each in result["campaigns"]]),
    ),
}
# What stands in a table's place until its command has run on a machine that has what it takes.
UNMEASURED = dict.fromkeys(
    ("gpu-layers", "gpu-model"),
    "Not measured yet: `python -m benchmarks.gpu_session` on a machine with a GPU, and then "
    "`python -m benchmarks.tables`, fill this place.",
)
UNMEASURED["study"] = (
    "No study is published yet. `python -m studies.run cpu` (hours) or `python -m studies.run gpu-minutes`, then "
    "`python -m benchmarks.publish FOLDER` and `python -m benchmarks.tables`, fill this place and docs/results.md."
)


def _names(text: str) -> list[str]:
    opening = re.findall(r"^<!-- table:(\S+) -->$", text, re.MULTILINE)
    closing = re.findall(r"^<!-- /table:(\S+) -->$", text, re.MULTILINE)
    for name in [*opening, *closing]:
        if opening.count(name) != 1 or closing.count(name) != 1 or not _between(name).search(text):
            raise TableError(f"table {name!r}: expected {_opening(name)} once and below it {_closing(name)} once")
    return opening


def _replace(text: str, name: str, table: str) -> str:
    place = f"{_opening(name)}\n{table}\n{_closing(name)}"
    return _between(name).sub(lambda _: place, text)


def _between(name: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(_opening(name))}$.*^{re.escape(_closing(name))}$", re.MULTILINE | re.DOTALL)


def _opening(name: str) -> str:
    return f"<!-- table:{name} -->"


def _closing(name: str) -> str:
    return f"<!-- /table:{name} -->"


if __name__ == "__main__":
    sys.exit(main())
