"""The study of settings: its plan, its runs at toy size, what it does after it was killed, and what its page says."""

import io
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from benchmarks.publish import publish_settings
from benchmarks.tables import stale_pages
from studies.differences import Difference
from studies.run import main
from studies.settings import page, plan
from studies.settings import run as settings_run
from studies.settings.plan import QUESTIONS, NetworkCell, Question, TapsCell, planned, task_of
from studies.settings.records import (
    RECORDS,
    NetworkOutcome,
    Outcome,
    Records,
    TapsOutcome,
    line_of,
    read_records,
)
from studies.settings.run import SettingsConfig, run_settings
from torchdcls_train.runs.writer import RunWriter

TOY = SettingsConfig({"taps": 2, "networks": 1}, kernels=2, shortened=100)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> tuple[Question, ...]:
    """A question of each kind."""
    kinds = ("Interpolation", "Number of elements for 6 taps", "Networks: start of positions")
    questions = tuple(question for question in QUESTIONS if question.title in kinds)
    assert len(questions) == 3
    for module in (plan, page):
        monkeypatch.setattr(module, "QUESTIONS", questions)
    return questions


def quietly(folder: Path) -> tuple[str, str]:
    console = Console(file=io.StringIO(), width=200)
    state = run_settings(folder, TOY, argv=["settings"], console=console)
    return state, console.file.getvalue()  # type: ignore[attr-defined]


def asked(title: str) -> Question:
    return next(question for question in QUESTIONS if question.title == title)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Records of one seed of one question: of each row its results beside all columns and on all inputs."""

    def made(title: str, rows: dict[str, Outcome]) -> Records:
        question = asked(title)
        for module in (plan, page):
            monkeypatch.setattr(module, "QUESTIONS", (question,))
        places = product(rows, question.columns, plan.INPUTS)
        outcomes = {question.cell(row, column, 0, inputs).id: rows[row] for row, column, inputs in places}
        return Records(outcomes, [])

    return made


def found(*counts: int, loss: float = 0.5) -> TapsOutcome:
    return TapsOutcome(list(counts), 6, [loss + count / 100 for count in counts])


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
    assert "The same network with 7x7 layers: " in text
    assert len(page.draw(records).axes) == 2
    assert "**2 of 8 seeds are complete**, of 26 runs each." in text
    assert f"**1 of {plan.SEEDS['networks']} seeds are complete**, of 10 runs each." in text
    monkeypatch.setattr(page, "SEEDS", TOY.seeds)
    text = page.page(records)
    assert "All 2 seeds of 26 runs are done." in text and "All 1 seeds of 10 runs" in text
    before = (tmp_path / RECORDS).read_bytes()
    assert "62 of 62 runs are done" in quietly(tmp_path)[1]
    assert (tmp_path / RECORDS).read_bytes() == before


_TAPS_ALONE = """
import sys
from pathlib import Path
from studies.settings import plan
from studies.settings.run import SettingsConfig, run_settings

plan.QUESTIONS = tuple(question for question in plan.QUESTIONS if question.title == "Interpolation")
run_settings(Path(sys.argv[1]), SettingsConfig({"taps": 2, "networks": 0}, kernels=2, shortened=100), argv=["settings"])
"""


def test_killed_and_resumed_it_comes_to_the_same(
    few: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by SIGKILL, with a line that was cut off, interrupted, and then left to finish."""
    monkeypatch.setattr(plan, "QUESTIONS", few[:1])
    file = tmp_path / "a" / RECORDS
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", _TAPS_ALONE, str(file.parent)], env=environment)
    try:
        while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") > 3):
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    done = len(read_records(file).outcomes)
    assert 2 < done < 18
    file.write_text(file.read_text() + '{"id": "12')
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
        assert run_settings(file.parent, console=console, **run) == "interrupted"  # type: ignore[arg-type]
    assert len(read_records(file).outcomes) == done + 5
    assert run_settings(file.parent, console=console, **run) == "finished"  # type: ignore[arg-type]
    assert run_settings(tmp_path / "b", console=console, **run) == "finished"  # type: ignore[arg-type]
    resumed, whole = read_records(file), read_records(tmp_path / "b" / RECORDS)
    assert resumed.outcomes == whole.outcomes and len(whole.outcomes) == 24
    assert (len(resumed.origins), len(whole.origins)) == (3, 1)
    assert len(file.read_text().splitlines()) == 24 + 3  # nothing was run twice


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / RECORDS
    file.write_text('{"origin": {}}\n{"id": "x", "cell": {"tap": 1}, "found": [], "taps": 6, "loss": []}\n')
    with pytest.raises(ValueError, match="expected a result in line 2"):
        read_records(file)


def test_differences_are_those_of_a_paired_t_test(alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrected for all differences of the task, also those that are not there yet."""
    counts = {"bilinear": (1, 2, 0, 1, 2, 1), "triangle": (2, 2, 1, 1, 2, 1), "gaussian": (5, 6, 4, 5, 5, 6)}
    records = alone("Interpolation", {row: found(*each) for row, each in counts.items()})
    effects = page.Findings(records).effects
    rows = ["triangle", "gaussian"]
    assert [(it.row, it.column, it.inputs) for it in effects] == [
        (row, column, inputs)
        for column, inputs, row in product(("narrow start", "spread start"), ("edges", "images"), rows)
    ]
    for effect in effects:
        mine, reference = ([100 * count / 6 for count in counts[row]] for row in (effect.row, "bilinear"))
        test = ttest_rel(mine, reference)
        assert effect.difference.mean == pytest.approx(mean(mine) - mean(reference))
        assert effect.significant == (test.pvalue * 8 < 0.05) == (effect.row == "gaussian")
        interval = test.confidence_interval(1 - 0.05 / 8)
        assert effect.difference.corrected == pytest.approx((interval.low, interval.high))
        assert effect.unseen == pytest.approx((interval.high - interval.low) / 2)
    text = page.page(records)
    assert "| choose the interpolation (edges) | take **gaussian**, not bilinear | gaussian: +66.7 |" in text
    assert "| gaussian | 86.1 ± 13.2 (**+66.7**) | 86.1" in text and "| triangle | 25.0 ± 9.6 (+5.6) | 25.0" in text
    assert "No difference was significant" not in text and "## Networks" not in text
    monkeypatch.undo()
    taps = sum((len(it.rows) - 1) * len(it.columns) * 2 for it in QUESTIONS if it.task == "taps")
    networks = sum((len(it.rows) - 1) * len(it.columns) for it in QUESTIONS if it.task == "networks")
    assert f"over {taps} differences of the recovery task, {networks} of networks" in page.page(records)


def test_a_question_without_a_significant_difference_is_said_to_have_none(alone: Any) -> None:
    rows = {
        "bilinear": found(1, 2, 0, 1, 2, 1),
        "triangle": found(2, 2, 1, 1, 2, 1),
        "gaussian": found(1, 2, 1, 1, 2, 0),
    }
    text = page.page(alone("Interpolation", rows))
    assert "| If you |" not in text
    unseen = f"{max(effect.unseen for effect in page.Findings(alone('Interpolation', rows)).effects):.0f}"
    assert "No difference was significant in these; in brackets is" in text
    assert f"- edges: Interpolation ({unseen})\n- images: Interpolation ({unseen})\n" in text


def test_advice_keeps_the_first_row_where_others_are_worse(alone: Any) -> None:
    title = "Learning rate of positions over that of weights"
    rows = {row: found(3, 4, 3, 4, 3, 4) for row in asked(title).rows} | {"1": found(1, 2, 1, 1, 1, 2)}
    text = page.page(alone(title, rows))
    assert "over that of weights (edges) | keep **5 (paper)**, not 1 | 1: -36.1 |" in text


def test_less_loss_is_better(alone: Any) -> None:
    rows = {row: found(1, 2, 1, 2, loss=loss) for row, loss in (("6", 0.5), ("12", 0.3), ("24", 0.1))}
    rows["12"].loss[0] += 0.001  # for an interval
    rows["24"].loss[0] += 0.001
    text = page.page(alone("Number of elements for 6 taps", rows))
    assert "more elements than taps (images) | take **24**, or 12, not 6 | 24: loss -40.0 |" in text


def test_advice_names_the_columns_that_it_holds_for() -> None:
    """A row that is better beside one column and worse beside another is no advice for both."""
    question = asked("Kernel size, narrow start")
    better, worse = (
        page.Effect(question, "19", column, "edges", Difference(9, mean, (mean - 1, mean + 1), (mean - 2, mean + 2)))
        for column, mean in (("bilinear", 5.0), ("Gaussian", -4.0))
    )
    others = [
        page.Effect(question, row, "bilinear", "edges", Difference(9, 0.0, (-1, 1), (-2, 2))) for row in ("31", "41")
    ]
    told = page._then(question, [better, worse, *others])
    assert told == ["take **19** with bilinear; else keep **23**", "19: -4.0 to +5.0"]


def test_a_seed_that_is_not_complete_is_not_shown(few: tuple[Question, ...]) -> None:
    """It would weigh the settings that it has more than the others."""
    outcomes: dict[str, Outcome] = {
        cell.id: found(1, 2, 3) if isinstance(cell, TapsCell) else NetworkOutcome(80.0 + cell.seed, 21)
        for cell in planned({"taps": 3, "networks": 2})
    }
    whole = page.page(Records(outcomes, []))
    assert "**3 of 8 seeds are complete**" in whole
    assert f"**2 of {plan.SEEDS['networks']} seeds are complete**" in whole
    question = few[0]
    del outcomes[question.cell("gaussian", "spread start", 2, "images").id]
    less = page.page(Records(outcomes, []))
    assert "**2 to 3 of 8 seeds are complete**, of 26 runs each." in less and "80.5 ± " in less
    assert "\n| 2 seeds | narrow start, edges |" in less and "\n| 3 seeds | bilinear, edges |" in less
    values = page.Findings(Records(outcomes, [])).values(question, "bilinear", "narrow start", "edges")
    assert sorted(values) == [seed * page._KERNELS + kernel for seed in range(2) for kernel in range(3)]
    assert "| --- |" not in page.page(Records({}, []))


def test_records_are_published_and_make_a_page(tmp_path: Path) -> None:
    question = asked("Interpolation")
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
    runs: list[Any] = []

    def run(*given: Any, **more: Any) -> str:
        runs.append((given, more["tasks"]))
        return "interrupted"

    monkeypatch.setattr(settings_run, "run_settings", run)
    assert main(["--out", str(tmp_path), "settings", "--tasks", "taps"]) == 130
    assert main(["settings"]) == 130
    assert runs[0] == ((tmp_path,), ["taps"])
    assert runs[1][0] == (Path("runs/study-settings"),) and list(runs[1][1]) == ["taps", "networks"]
