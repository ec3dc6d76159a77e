"""The notebooks are those of their texts, can be opened in Colab, and run."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from pages import ROOT

_spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
assert _spec is not None and _spec.loader is not None
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)

# What they print: it worked.
PRINTED = {
    "first_picture": r"relative error 0\.[0-5]\d",
    "convert_and_fine_tune": r"2 layers replaced",
    "learned_delays": r"(9\d|100) % of the delays are right",
}


def test_there_are_three() -> None:
    assert {text.stem for text in notebooks.TEXTS} == set(PRINTED)


@pytest.mark.parametrize("text", notebooks.TEXTS, ids=lambda text: text.stem)
def test_a_notebook_is_that_of_its_text_and_opens_in_colab(text: Path) -> None:
    file = text.with_suffix(".ipynb")
    assert file.read_text(encoding="utf-8") == notebooks.made(text), "run python docs/notebooks.py"
    address = f"https://colab.research.google.com/github/torchdcls/torchdcls/blob/main/{file.relative_to(ROOT)}"
    assert address in (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", notebooks.TEXTS, ids=lambda text: text.stem)
def test_a_notebook_runs(text: Path, tmp_path: Path) -> None:
    notebook = nbformat.reads(text.with_suffix(".ipynb").read_text(encoding="utf-8"), 4)
    # The package of this checkout is tested, not one of an index.
    kept = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    assert len(kept) == len(notebook.cells) - 1
    notebook.cells = kept
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    assert re.search(PRINTED[text.stem], printed), printed
    if text.stem == "convert_and_fine_tune":
        before, converted, after = (float(found) for found in re.findall(r": (\d+\.\d) %", printed))
        assert converted == before and after > 55
    else:
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert any("image/png" in output.get("data", {}) for output in outputs)
