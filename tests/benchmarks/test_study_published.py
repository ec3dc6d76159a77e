"""A study's records come into the repository, and page, pictures and table out of them alone."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.evidence import stale_pictures, studies
from benchmarks.evidence import studies_page as page
from benchmarks.publish import publish_study
from benchmarks.record import RESULTS, ROOT
from benchmarks.tables import main, stale_pages
from studies.page import write_page
from studies.records import CELLS, SETTINGS, Study
from studies.results import results_of
from tests.studies.made_study import made_study, toy
from torchdcls_train.runs.writer import RunWriter


def run_folder(folder: Path, study: Study) -> Path:
    with RunWriter(folder, SETTINGS, CELLS) as writer:
        writer.write(study.header())
        writer.keep(map(asdict, study.finished.values()))
    return folder


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with results and a README, and the arguments that make its tables."""
    study = made_study(toy())
    path = publish_study(run_folder(tmp_path / "run", study), tmp_path / "results")
    assert path.name == "study-made.jsonl"
    (tmp_path / "README.md").write_text("# Title\n\n<!-- table:evidence -->\n<!-- /table:evidence -->\n")
    return tmp_path, ["--root", str(tmp_path), "--results", str(tmp_path / "results")]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_command_makes_all_of_it_byte_for_byte(published: tuple[Path, list[str]]) -> None:
    folder, arguments = published
    assert main(["--check", *arguments]) == 1
    assert main(arguments) == 0
    assert main(["--check", *arguments]) == 0
    made = {"README.md": (folder / "README.md").read_bytes(), **files_of(folder / "docs")}
    assert {"results.md", "images/study-made-accuracy.png", "images/study-made-kernel-size.png"} <= set(made)
    for name in files_of(folder / "docs"):
        (folder / "docs" / name).unlink()
    assert main(["--check", *arguments]) == 1
    assert main(arguments) == 0
    assert {"README.md": (folder / "README.md").read_bytes(), **files_of(folder / "docs")} == made
    text = (folder / "docs" / "results.md").read_text()
    assert "](images/study-made-accuracy.png)" in text
    assert all(f"](images/{Path(name).name})" in text for name in made if name.endswith(".png"))


def test_a_changed_record_or_page_is_stale(
    published: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = published
    main(arguments)
    typed = folder / "docs" / "results.md"
    typed.write_text(typed.read_text().replace("points", "percent"))
    assert main(["--check", *arguments]) == 1
    assert "docs/results.md is stale" in capsys.readouterr().err
    main(arguments)
    path = folder / "results" / "study-made.jsonl"
    header, *lines = path.read_text().splitlines()
    final = next(number for number, line in enumerate(lines) if json.loads(line)["test"])
    changed = json.loads(lines[final])
    changed["test"]["accuracy"] += 1
    lines[final] = json.dumps(changed)
    path.write_text("\n".join([header, *lines]) + "\n")
    stale = stale_pictures(studies(folder / "results"), folder / "docs")
    assert "images/study-made-accuracy.png" in [name for _, name in stale]
    assert main(["--check", *arguments]) == 1
    error = capsys.readouterr().err
    assert "table 'evidence' is stale" in error and "docs/results.md is stale" in error


def test_the_page_of_the_run_has_the_same_numbers(published: tuple[Path, list[str]]) -> None:
    folder, _ = published
    write_page(results_of(made_study(toy())), folder / "run")
    own = re.sub("^#", "##", (folder / "run" / "results.md").read_text(), flags=re.MULTILINE)
    assert page(studies(folder / "results")).replace("images/study-made-", "").endswith(own)


def test_unfinished_and_foreign_cells(tmp_path: Path) -> None:
    """An unfinished study is published as what it is; cells of other settings stay behind."""
    study = made_study(toy(), cells=5)
    folder = run_folder(tmp_path / "run", study)
    foreign = made_study(toy(lr=3e-3), cells=3)
    with RunWriter(folder, SETTINGS, CELLS) as writer:
        for id, cell in foreign.finished.items():
            if id not in study.finished:
                writer.add(asdict(cell))
    path = publish_study(folder, tmp_path)
    assert len(path.read_text().splitlines()) == 6
    assert "not complete: 5 of" in page(studies(tmp_path))


def test_a_note_stays_with_the_records(tmp_path: Path) -> None:
    """It is no setting of the package's study, which others run too."""
    said, silent = made_study(toy(note="Seed 1 came later.")), made_study(toy(), cells=5)
    path = publish_study(run_folder(tmp_path / "said", said), tmp_path)
    assert publish_study(run_folder(tmp_path / "silent", silent), tmp_path) == path
    assert len(path.read_text().splitlines()) == 6
    assert "after the last epoch. Seed 1 came later.\n" in page(studies(tmp_path))
    another = made_study(toy(note="Seed 2 came later."))
    publish_study(run_folder(tmp_path / "another", another), tmp_path)
    assert "Seed 1" not in page(studies(tmp_path)) and "Seed 2" in page(studies(tmp_path))


def test_nothing_published_is_nothing_stale(tmp_path: Path) -> None:
    assert studies(tmp_path) == []
    assert stale_pages(tmp_path, tmp_path) == {}


def test_the_repository_s_own_page_is_fresh() -> None:
    assert stale_pages(ROOT / "docs", RESULTS) == {}
    assert stale_pictures(studies(RESULTS), ROOT / "docs") == []
