"""What a comparison tells when it ends: on the console, and in a report, one HTML file that holds all it shows."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from torchdcls_results import markdown_table, write_text

from ..runs.progress_bar import say
from .result import RESULTS, Result, settings


@dataclass(frozen=True)
class Section:
    """The section of a report about one comparison.

    Args:
        title: Its heading.
        asked: The question.
        found: The answer, a sentence or two to each point; accuracies of a quick run mean nothing, and it has none.
        explained: Meaning and limits of names and numbers.
        tables: Each with its title; rows, the header first.
        pictures: Each with its caption; those without a file are left out.
        more_tables: Tables of the report alone.
    """

    title: str
    asked: str
    found: Sequence[str]
    explained: Sequence[str]
    tables: Mapping[str, Sequence[Sequence[str]]]
    pictures: Mapping[Path, str]
    result: Result
    more_tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    @property
    def all_tables(self) -> Mapping[str, Sequence[Sequence[str]]]:
        return {**self.tables, **self.more_tables}


def present(section: Section | None, folder: Path, console: Console, draw: Callable[[], Sequence[Path]]) -> None:
    """Prints what was found, and writes `table.md`, the pictures and `report.html`.

    Args:
        section: None before a run has finished: then only pictures are written.
        folder: The run folder.
        console: Where to print.
        draw: Draws the pictures, and returns the files.
    """
    written = [folder / RESULTS]
    if section is not None:
        written.append(folder / "table.md")
        write_text(written[-1], markdown(section) + "\n")
        for title, (header, *body) in section.all_tables.items():
            columns = (Column(name, no_wrap=number < 2) for number, name in enumerate(header))
            table = Table(*columns, title=title, title_justify="left")
            for row in body:
                table.add_row(*row)
            console.print(table)
        for sentence in filter(None, [section.result.notice, *section.found, *section.explained]):
            say(console, sentence)
    written += draw()
    if section is not None:
        written.append(folder / "report.html")
        write_report(written[-1], [section])
    for path in written:
        say(console, f"wrote {path}")


def markdown(section: Section) -> str:
    """Notice, tables, findings as a list, and explanations."""
    tables = [f"**{title}**\n\n{markdown_table(rows)}" for title, rows in section.tables.items()]
    notice = f"**{section.result.notice}**" if section.result.notice else ""
    found = "\n".join(f"- {sentence}" for sentence in section.found)
    return "\n\n".join(filter(None, [notice, *tables, found, *section.explained]))


def save_figures(folder: Path, figures: Mapping[str, Any]) -> list[Path]:
    """Writes figures by their names; returns the files."""
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120)
    return [folder / name for name in figures]


def write_report(path: Path, sections: Sequence[Section]) -> None:
    """Writes the file of a report; of several sections the first finding of each stands at the top."""
    title = " and ".join(section.title for section in sections)
    lines = ["<h1>What was compared</h1>", *_contents(sections)] if len(sections) > 1 else []
    lines += [line for number, section in enumerate(sections) for line in _section(section, f"section-{number}")]
    body = "\n".join(lines)
    write_text(
        path,
        "<!doctype html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>torchdcls: {escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
    )


def _contents(sections: Sequence[Section]) -> list[str]:
    items = []
    for number, section in enumerate(sections):
        first = " ".join(filter(None, [section.result.notice, *section.found[:1]]))
        items.append(f'<li><a href="#section-{number}">{escape(section.title)}</a><br>{escape(first)}</li>')
    return ["<ul>", *items, "</ul>"]


def _section(section: Section, anchor: str) -> list[str]:
    lines = [f'<h1 id="{anchor}">{escape(section.title)}</h1>', f'<p class="asked">{escape(section.asked)}</p>']
    if section.result.notice:
        lines.append(f'<p class="notice">{escape(section.result.notice)}</p>')
    lines += _list("What was found", section.found)
    for title, rows in section.all_tables.items():
        lines += [f"<h3>{escape(title)}</h3>", *_table(rows, header=True)]
    for path, shows in section.pictures.items():
        if path.exists():
            kind, data = path.suffix[1:], base64.b64encode(path.read_bytes()).decode()
            image = f'<img alt="{escape(shows)}" src="data:image/{kind};base64,{data}">'
            caption = f"<figcaption>{escape(shows)}</figcaption>"
            lines.append(f'<figure><div class="wide">{image}</div>{caption}</figure>')
    lines += _list("How to read it", section.explained)
    lines += ["<h2>How it was made</h2>", *_table(_origin(section.result)), "<details><summary>Settings</summary>"]
    return [*lines, *_table(_settings(section.result)), "</details>"]


def _list(title: str, points: Sequence[str]) -> list[str]:
    items = [f"<li>{escape(point)}</li>" for point in points]
    return [f"<h2>{title}</h2>", "<ul>", *items, "</ul>"] if items else []


def _table(rows: Iterable[Sequence[str]], header: bool = False) -> list[str]:
    lines = ['<div class="wide"><table>']
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row) + "</tr>")
    return [*lines, "</table></div>"]


def _origin(result: Result) -> list[list[str]]:
    machine, commit = result.machine, result.commit
    cores = f"{machine.cores} cores, {result.threads} of them used" if machine.cores else ""
    memory = f"{machine.memory_gib} GiB" if machine.memory_gib else ""
    return [
        ["command", result.command],
        ["date", result.date],
        ["machine", ", ".join(filter(None, [machine.cpu, cores, memory, machine.os]))],
        ["load at the start", "not known" if result.load is None else f"{result.load} processes"],
        ["versions", ", ".join(f"{name} {number}" for name, number in result.versions.items())],
        ["commit", "none" if commit is None else commit + (", with changes" if result.dirty else "")],
    ]


def _settings(result: Result) -> list[list[str]]:
    def words(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return [[name, "default" if value is None else words(value)] for name, value in settings(result.config).items()]


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; color: #222; }
h1 { margin-top: 2.5rem; line-height: 1.2; }
h3 { margin-bottom: .3rem; }
.asked { font-size: 1.15rem; }
.notice { background: #fff3cd; padding: .6rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
h3 + .wide { white-space: nowrap; }
th { border-bottom: 2px solid #888; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
/* On a phone pictures are as large as their letters need, and scroll. */
@media (max-width: 36rem) { img { max-width: none; width: 40rem; } }
figcaption { color: #555; font-size: .9rem; }
@media (max-width: 40rem) { figure { overflow-x: auto; } img { max-width: none; width: 44rem; } }
"""
