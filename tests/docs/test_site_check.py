"""The check of the built site finds links that lead nowhere and what comes from other hosts."""

import importlib.util
from pathlib import Path

import pytest
from pages import ROOT

_spec = importlib.util.spec_from_file_location("browse", ROOT / "docs" / "browse.py")
assert _spec is not None and _spec.loader is not None
browse = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browse)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="b.html#there">b</a><a href="https://example.org">out</a><img src="b.html?v=1">', []),
        ('<a href="c.html">c</a>', ["a.html links to c.html, which is not there"]),
        ('<a href="b.html#gone">b</a>', ["a.html links to b.html#gone, which is not there"]),
        ('<a href="#gone">b</a>', ["a.html links to #gone, which is not there"]),
        ('<script src="https://cdn.example.org/x.js"></script>', ["a.html loads https://cdn.example.org/x.js"]),
        ('<link href="//fonts.example.org/f.css">', ["a.html loads //fonts.example.org/f.css"]),
    ],
)
def test_links(tmp_path: Path, html: str, expected: list[str]) -> None:
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<p id="there">')
    assert list(browse.broken_links(tmp_path)) == expected


def test_style_sheets(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a { background: url('https://example.org/a.png') } b { background: url(b.png) }")
    assert list(browse.broken_links(tmp_path)) == ["a.css loads url('https://example.org/a.png"]
