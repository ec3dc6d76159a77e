"""Makes the notebooks of their texts: `python docs/notebooks.py`."""

from pathlib import Path

import jupytext
import nbformat

TEXTS = sorted((Path(__file__).parent / "notebooks").glob("*.py"))


def made(text: Path) -> str:
    """The notebook of a text as its file holds it; the same text gives the same file."""
    notebook = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return str(nbformat.writes(notebook)) + "\n"


if __name__ == "__main__":
    for text in TEXTS:
        text.with_suffix(".ipynb").write_text(made(text), encoding="utf-8")
        print(f"wrote {text.with_suffix('.ipynb')}")
