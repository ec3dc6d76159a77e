"""Words that the pages and docstrings do not use, each with what to say instead; see CONTRIBUTING.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, ROOT, name

WORDS = {
    r"\btrainings\b|\ba training\b(?! (?:run|step|image|loop|framework|script|set))": "run, training run",
    r"\bgoes on\b|\bgo on\b": "resume, continue",
    r"\bbroke off\b|\bbreaks off\b": "diverged",
    r"\btimes as fast\b": "1.8x faster",
    r"\bcannot be had\b|\bknows? no\b": "out of memory, unsupported, missing",
    r"\bhinted\b": "significant, not significant",
    r"\bin the place of\b": "replaces, instead of",
    r"\bwhat it comes to\b|\bcomes? to what\b": "preview, result",
    r"\brecorded updates\b|\btoo slow to ask\b": "CUDA graph, kernel launch overhead",
    r"\b(?:optimiser|normalis|initialis|colour|favour|centre\b|behaviour|licence\b|artefact)": "American spelling",
    r"\bcan't\b|\bdon't\b|\bwon't\b|\bisn't\b": "cannot, do not",
    r"\bpoetic\b": "",
}
# Pages made of results have the words of what makes them.
WRITTEN = [page for page in PAGES if "Made by `python" not in page.read_text(encoding="utf-8")]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
if __name__ == "__main__":
    for path in [*WRITTEN, *MODULES]:
        texts = [path.read_text()] if path.suffix == ".md" else list(docstrings(path))
        for t in texts:
            for w in WORDS:
                for m in re.finditer(w, t):
                    print(path.relative_to(ROOT), repr(t[max(0,m.start()-40):m.end()+30]))
