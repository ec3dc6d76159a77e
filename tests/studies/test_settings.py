"""The study of settings: its plan, its runs at toy size, what it does after it was killed, and what its page says."""

import io
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from benchmarks.publish import publish_settings
from benchmarks.tables import stale_pages
from studies.run import main
from studies.settings import page, plan
from studies.settings import run as settings_run
from studies.settings.plan import QUESTIONS, NetworkCell, Question, TapsCell, planned, task_of
from studies.settings.records import RECORDS, Outcome, Records, TapsOutcome, line_of, read_records
from studies.settings.run import SettingsConfig, run_settings
from torchdcls_train.runs.writer import RunWriter

TOY = SettingsConfig({"taps": 2, "networks": 1}, kernels=2, shortened=100)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> tuple[Question, ...]:
    """A question of each kind."""
    kinds = ("Interpolation", "Number of elements for 6 taps", "Networks: start of positions and sigma")
    questions = tuple(question for question in QUESTIONS if question.title in kinds)
    assert len(questions) == 3
    for module in (plan, page):
        monkeypatch.setattr(module, "QUESTIONS", questions)
    return questions


def quietly(folder: Path) -> tuple[str, str]:
    console = Console(file=io.StringIO(), width=200)
    state = run_settings(folder, TOY, argv=["settings"], console=console)
    return state, console.file.getvalue()  # type: ignore[attr-defined]


def made(found: dict[str, list[int]]) -> Records:
    """Records of the cells of "Interpolation" at the narrow start, edges: taps found of 6, kernel by kernel."""
    question = next(question for question in QUESTIONS if question.title == "Interpolation")
    outcomes: dict[str, Outcome] = {
        question.cell(row, "narrow start", 0, "edges").id: TapsOutcome(counts, 6, [0.5] * len(counts))
        for row, counts in found.items()
    }
    return Records(outcomes, [])


def test_each_cell_is_planned_once_and_seed_by_seed() -> None:
    cells = list(planned({"taps": 3, "networks": 2}))
    assert len({cell.id for cell in cells}) == len(cells)
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds) and {cell.seed for cell in cells if task_of(cell) == "networks"} == {0, 1}
    assert TapsCell() in cells and NetworkCell("7x7") in cells
    wanted = {
        question.cell(row, column, 1, inputs).id
        for question in QUESTIONS
        for row in question.rows
        for column in question.columns
        for inputs in plan.INPUTS
    }
    assert wanted <= {cell.id for cell in cells if cell.seed == 1}
    for question in QUESTIONS:
        first, *others = (question.cell(row, next(iter(question.columns)), 0) for row in question.rows)
        assert first not in others


def test_a_toy_run_and_its_page(few: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, printed = quietly(tmp_path)
    assert state == "finished" and "0 of 62 runs are done" in printed
    records = read_records(tmp_path / RECORDS)
    assert set(records.outcomes) == {cell.id for cell in planned(TOY.seeds)}
    text = page.page(records)
    for question in few:
        assert f"## {question.title}" in text
    assert "The same network with 7x7 layers: " in text and "| - |" not in text
    assert len(page.draw(records).axes) == 2
    assert "**The study is not complete: 52 of 208 runs of the recovery task and 10 of 30 runs of networks are" in text
    monkeypatch.setattr(page, "SEEDS", TOY.seeds)
    assert "not complete" not in page.page(records)
    before = (tmp_path / RECORDS).read_bytes()
    assert "62 of 62 runs are done" in quietly(tmp_path)[1]
    assert (tmp_path / RECORDS).read_bytes() == before


def test_killed_and_resumed_it_comes_to_the_same(
    few: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C and with a line that was cut off."""
    monkeypatch.setattr(plan, "QUESTIONS", few[:1])
    search = settings_run.TapsSearch.__call__
    left = iter(range(5))

    def interrupted(self: Any, cell: TapsCell) -> TapsOutcome:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return search(self, cell)

    monkeypatch.setattr(settings_run, "NetworkTraining", lambda config: lambda cell: pytest.fail("not asked for"))
    run = {"config": SettingsConfig({"taps": 2, "networks": 0}, kernels=2, shortened=100), "argv": ["settings"]}
    console = Console(quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(settings_run.TapsSearch, "__call__", interrupted)
        assert run_settings(tmp_path / "a", console=console, **run) == "interrupted"  # type: ignore[arg-type]
    file = tmp_path / "a" / RECORDS
    assert len(read_records(file).outcomes) == 5
    file.write_text(file.read_text() + '{"id": "12')
    assert run_settings(tmp_path / "a", console=console, **run) == "finished"  # type: ignore[arg-type]
    assert run_settings(tmp_path / "b", console=console, **run) == "finished"  # type: ignore[arg-type]
    resumed, whole = read_records(file), read_records(tmp_path / "b" / RECORDS)
    assert resumed.outcomes == whole.outcomes and len(whole.outcomes) == 24
    assert (len(resumed.origins), len(whole.origins)) == (2, 1)
    assert len(file.read_text().splitlines()) == 24 + 2  # nothing was run twice


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / RECORDS
    file.write_text('{"origin": {}}\n{"id": "x", "cell": {"tap": 1}, "found": [], "taps": 6, "loss": []}\n')
    with pytest.raises(ValueError, match="expected a result in line 2"):
        read_records(file)


def test_differences_are_those_of_a_paired_t_test() -> None:
    """Corrected for all differences of the page, also those that are not there yet."""
    found = {"bilinear": [1, 2, 0, 1, 2, 1], "triangle": [2, 2, 1, 1, 2, 1], "gaussian": [5, 6, 4, 5, 5, 6]}
    records = made(found)
    effects = list(page.effects_of(records))
    assert [(effect.row, effect.place) for effect in effects] == [
        ("triangle", "narrow start, edges"),
        ("gaussian", "narrow start, edges"),
    ]
    number = sum(
        (len(question.rows) - 1) * len(question.columns) * (2 if question.task == "taps" else 1)
        for question in QUESTIONS
    )
    for effect in effects:
        mine, reference = ([100 * count / 6 for count in found[row]] for row in (effect.row, "bilinear"))
        test = ttest_rel(mine, reference)
        assert effect.difference.mean == pytest.approx(mean(mine) - mean(reference))
        assert effect.significant == (test.pvalue * number < 0.05)
        interval = test.confidence_interval(1 - 0.05 / number)
        assert effect.difference.corrected == pytest.approx((interval.low, interval.high))
    assert [effect.significant for effect in effects] == [False, True]
    text = page.page(records)
    assert "| Interpolation | bilinear to gaussian | narrow start, edges | +66.7 | " in text
    assert "| gaussian | 86.1 ± 13.2 (**+66.7**) | - | - | - |" in text
    assert "| triangle | 25.0 ± 9.6 (+5.6) | - | - | - |" in text
    assert "## Networks" not in text


def test_a_question_without_a_significant_difference_is_said_to_have_none() -> None:
    text = page.page(made({"bilinear": [1, 2, 0, 1, 2, 1], "triangle": [2, 2, 1, 1, 2, 1]}))
    assert "No significant effect: Interpolation (differences under " in text


def test_records_are_published_and_make_a_page(tmp_path: Path) -> None:
    question = next(question for question in QUESTIONS if question.title == "Interpolation")
    run, results, docs = tmp_path / "run", tmp_path / "results", tmp_path / "docs"
    with RunWriter(run, "study.json", RECORDS) as writer:
        for row in question.rows:
            cell = question.cell(row, "narrow start", 0)
            writer.add(line_of(cell, TapsOutcome([1, 2], 6, [0.5, 0.6])))
    assert publish_settings(run, results) == results / RECORDS
    (stale,) = stale_pages(docs, results).items()
    assert stale[0] == docs / "settings.md" and stale[1].startswith("# Choosing settings")
    docs.mkdir()
    stale[0].write_text(stale[1])
    assert not stale_pages(docs, results)


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def run(*given: Any, **more: Any) -> str:
        asked.append((given, more["tasks"]))
        return "interrupted"

    monkeypatch.setattr(settings_run, "run_settings", run)
    assert main(["--out", str(tmp_path), "settings", "--tasks", "taps"]) == 130
    assert main(["settings"]) == 130
    assert asked[0] == ((tmp_path,), ["taps"])
    assert asked[1][0] == (Path("runs/study-settings"),) and list(asked[1][1]) == ["taps", "networks"]
