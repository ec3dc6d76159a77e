"""Puts the newest results into README.md and docs/: `python -m benchmarks.tables`; `--check` only says what is stale.

A page of docs/ that is made from results is made whole. A table in README.md or any other page stands between two
comments, `<!-- table:NAME -->` and `<!-- /table:NAME -->`, and comes from the result file `NAME-*.json` that has the
latest `date`. Results of some of a benchmark's problems (`"complete": false`) do not count. A comparison on images is
known by the name of its data, and the table shows them all. Published studies, `study-*.jsonl`, are docs/results.md.
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
from torchdcls_results import markdown_table

from . import construction, conv, delays, evidence, families, gpu_session, kept_weights, model, sizes
from .record import RESULTS, ROOT, newest_of

Result = Mapping[str, Any]


# Processes that wanted a core before a measurement, from where on its caption says so.
BUSY = 0.5


class TableError(Exception):
    """A table that cannot be made or has no place."""


def update(text: str, results: Path) -> tuple[str, list[str]]:
    """The text with all tables new, and the names of those that were stale.

    Raises:
        TableError: A marker without its partner, without results or of an unknown name.
    """
    stale = []
    for name in _names(text):
        if name not in TABLES:
            raise TableError(f"unknown table {name!r}, expected one of {', '.join(TABLES)}")
        result = newest_result(name, results)
        if result is not None:
            table = TABLES[name](result)
        elif name in UNMEASURED:
            table = UNMEASURED[name]
        else:
            raise TableError(f"no complete result for table {name!r} among the result files")
        replaced = _replace(text, name, table)
        if replaced != text:
            stale.append(name)
        text = replaced
    return text, stale


def update_all(root: Path, results: Path) -> dict[Path, tuple[str, list[str]]]:
    """What `update` makes of README.md and of every page in docs/ that has tables.

    Raises:
        TableError: See `update`; the message begins with the page. Results whose table stands on no page.
    """
    updated, places = {}, set[str]()
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        try:
            places.update(_names(text))
            updated[path] = update(text, results)
        except TableError as error:
            raise TableError(f"{path.relative_to(root).as_posix()}: {error}") from None
    for name in TABLES:
        if name not in places and newest_result(name, results) is not None:
            raise TableError(f"no page has table {name!r}: expected {_opening(name)} and {_closing(name)} in docs/")
    return updated


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
    """The complete result `NAME-*.json` with the latest date in it, or None; together where a page shows several."""
    if name == "settings":
        return {"records": read_records(results / RECORDS)} if (results / RECORDS).is_file() else None
    if name == "study":
        return {"studies": published} if (published := evidence.studies(results)) else None
    if name == "comparison":
        return {"comparisons": compared} if (compared := evidence.newest_comparisons(results)) else None
    if name == "evidence":
        found = newest_of("positions", results), evidence.newest_comparisons(results), evidence.studies(results)
        return {"found": found} if any(found) else None
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
    """Writes or checks the tables and pages; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Update all tables of results.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a table is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with README.md and docs/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    arguments = parser.parse_args(argv)
    root, results = arguments.root, arguments.results
    try:
        updated = update_all(root, results)
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    docs, published = root / "docs", evidence.studies(results)
    pages = stale_pages(docs, results)
    stale = [f"{_name(path, root)}: table {name!r}" for path, (_, names) in updated.items() for name in names]
    stale += [_name(path, root) for path in pages]
    if arguments.check:
        stale += [f"docs/{name}" for _, name in evidence.stale_pictures(published, docs)]
        for name in stale:
            print(f"{name} is stale, run python -m benchmarks.tables", file=sys.stderr)
        return 1 if stale else 0
    docs.mkdir(parents=True, exist_ok=True)
    for path, text in {**{path: text for path, (text, names) in updated.items() if names}, **pages}.items():
        path.write_text(text, encoding="utf-8")
    stale += [_name(path, root) for path in evidence.write_pictures(published, docs)]
    print("\n".join(f"{name} updated" for name in stale) or "nothing to update")
    return 0


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _measured(benchmark: ModuleType) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        return f"{markdown_table(benchmark.rows(result))}\n\n{benchmark.note(result)} {caption(result)}"

    return table


def _of_session(name: str) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        return f"{markdown_table(gpu_session.part(name).rows(result))}\n\n{caption(result)}"

    return table


# The pictures of the comparison of digits, by the names that `benchmarks.publish` gives them.
_DIGITS = "\n\n".join(
    f"![{title}](images/digits-{name}.png)"
    for name, title in (
        ("accuracy", "Test accuracy of each method"),
        ("delays", "Delays over training"),
        ("fields", "What neurons read: delay against input"),
        ("raster", "Spikes of a recording"),
    )
)
# Table name, which result files are named by too, to what makes its Markdown out of a result.
TABLES: dict[str, Callable[[Result], str]] = {
    "positions": lambda result: f"{result['table']}\n\n{caption(result)}",
    "comparison": lambda result: "\n\n".join(
        evidence.comparison_section(it, caption(it)) for it in result["comparisons"]
    ),
    "digits": lambda result: f"{result['table']}\n\n{caption(result)}\n\n{_DIGITS}",
    "evidence": lambda result: evidence.evidence(*result["found"]),
    "fine-tuning": _measured(kept_weights),
    "construction": _measured(construction),
    "conv": _measured(conv),
    "model": _measured(model),
    "sizes": _measured(sizes),
    "delays": _measured(delays),
    "gpu-layers": _of_session("layers"),
    "gpu-model": _of_session("model"),
}
# Result files' name to the page made of them, and what makes it out of a result.
PAGES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "study": ("results.md", lambda result: evidence.studies_page(result["studies"])),
    "settings": ("settings.md", lambda result: settings_page(result["records"])),
    "families": ("models.md", lambda result: families.page(result, caption(result))),
    "campaigns": (
        "campaigns.md",
        lambda result: evidence.campaigns_page([(each, caption(each)) for each in result["campaigns"]]),
    ),
}
# What stands in a table's place until its command has run on a machine that has what it takes.
_COMMANDS = {
    "gpu-layers": "`python -m benchmarks.gpu_session` on a machine with a GPU",
    "gpu-model": "`python -m benchmarks.gpu_session` on a machine with a GPU",
    "delays": "`python -m benchmarks.run delays`",
    "digits": "`torchdcls compare digits`, `python -m benchmarks.publish RUN_FOLDER`",
}
UNMEASURED = {
    name: f"Not measured yet: {command}, and then `python -m benchmarks.tables`, fill this place."
    for name, command in _COMMANDS.items()
}


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
