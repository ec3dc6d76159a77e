"""Words that the pages and the docstrings do not use, each with what to say instead."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, ROOT, name

SAY_INSTEAD = {
    r"\btrainings\b": "training runs",
    r"\bgo(es)? on\b": "resumes, continues",
    r"\b(broke|breaks) off\b": "diverged",
    r"\btimes as fast\b": "1.8x faster, speedup",
    r"\bcannot be had\b|\bknows? no\b": "missing, unsupported",
    r"\bhinted\b": "significant at 5 %, not significant",
    r"\bin the place of\b": "instead of, replaces",
    r"\bwhat it comes to\b|\bcomes? to what\b": "the result, preview",
    r"\brecorded updates\b|\btoo slow to ask\b": "CUDA graphs, kernel launch overhead",
    r"\b\w*(optimis|normalis|initialis|recognis)\w*": "American spelling",
    r"\b(colour|favour|behaviour|centre)s?\b": "American spelling",
    r"\b(can|do|does|is|are|was|wo)n't\b": "cannot, do not",
}
# The page of models has messages of the versions that it was made with.
WORDED = [page for page in PAGES if page.name != "models.md"]
# Sentences of pages that are made of results have all the numbers that belong together.
WRITTEN = [page for page in WORDED if page.name not in ("changes.md", "results.md", "campaigns.md", "settings.md")]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def found_in(text: str) -> list[str]:
    """The words that should not be there, with those around them and what to say instead."""
    return [
        f"...{text[max(0, found.start() - 30) : found.end() + 30]}...: say {instead}"
        for words, instead in SAY_INSTEAD.items()
        for found in re.finditer(words, text)
    ]


def written(page: Path) -> str:
    """A page without the tables that are made of results."""
    return re.sub(r"<!-- table:(\S+) -->.*?<!-- /table:\1 -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", WORDED, ids=name)
def test_pages(page: Path) -> None:
    assert found_in(written(page)) == []


def test_docstrings() -> None:
    assert [f"{name(path)}: {found}" for path in MODULES for text in docstrings(path) for found in found_in(text)] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_sentences_are_short(page: Path) -> None:
    """The rule: 25 words at most."""
    text = re.sub(r"^```.*?^```$", "", written(page), flags=re.MULTILINE | re.DOTALL)
    paragraphs = re.split(r"\n\s*\n|\n(?=[-|#] ?)", text)
    sentences = [
        sentence for paragraph in paragraphs for sentence in re.split(r"(?<=[.:;?])\s+", paragraph.strip("-|# \n"))
    ]
    long = [" ".join(sentence.split()) for sentence in sentences if "|" not in sentence and len(sentence.split()) > 25]
    assert long == []
