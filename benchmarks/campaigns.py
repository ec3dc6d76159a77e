"""docs/campaigns.md: what the last full campaigns of `tests/campaigns` found."""

from collections.abc import Mapping, Sequence
from typing import Any

from torchdcls_results import markdown_table

_INTRODUCTION = """\
# Campaigns

Random and forced cases, in numbers for which a test run has no time. Run them by hand and once a week:

    python -m tests.campaigns                          # all of them, full size
    python -m tests.campaigns values --cases 100       # a part of one
    python -m benchmarks.tables                        # this page from the newest full results

A fault is printed with all that is needed to repeat it, and the exit status is then 1.
"""


def page(results: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """The page of the newest result of each campaign, each with its caption."""
    return "\n".join([_INTRODUCTION, *(_section(result, caption) for result, caption in results)])


def _section(result: Mapping[str, Any], caption: str) -> str:
    rows, worst = sorted(result["rows"], key=lambda row: row["kind"]), result["worst"]
    header = ["kind", "cases", "faults", *([worst] if worst else [])]
    table = [header]
    for row in rows:
        number = "-" if row["worst"] is None else f"{row['worst']:.3g}"
        table.append([row["kind"], f"{row['cases']:,}", str(row["faults"]), *([number] if worst else [])])
    cases, faults = (sum(row[name] for row in rows) for name in ("cases", "faults"))
    title = result["benchmark"].removeprefix("campaign-").capitalize()
    found = f"**{cases:,} cases, {faults} faults** in {result['seconds']:,} s."
    listed = "".join(f"- {fault}\n" for fault in result["faults"])
    parts = [f"## {title}", result["about"], found, listed.rstrip(), markdown_table(table), caption]
    return "\n\n".join(part for part in parts if part) + "\n"
