"""The figures of the start pages come from one script, and each of them is on a page."""

import importlib.util
from pathlib import Path

from pages import PAGES, ROOT

_spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
assert _spec is not None and _spec.loader is not None
figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(figures)


def test_the_script_draws_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "_static").mkdir()
    figures.main(tmp_path / "images")
    drawn = {path.name for path in (tmp_path / "images").iterdir()}
    assert drawn == {f"{name}.png" for name in figures.FIGURES}
    kept = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert drawn <= kept
    assert [name for name in sorted(drawn) if f"images/{name})" not in text] == []
    assert (tmp_path / "_static" / "icon.png").is_file()


def test_every_picture_that_is_kept_is_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    kept = sorted(path.name for path in (ROOT / "docs" / "images").iterdir())
    assert [name for name in kept if f"images/{name})" not in text] == []
