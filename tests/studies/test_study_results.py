"""What a study says of made numbers whose answer is known."""

import re
from dataclasses import replace
from typing import Any

import pytest

from studies.cells import Cell, Score
from studies.conclusions import verdict_words
from studies.config import LAYERS
from studies.differences import Difference, paired_difference
from studies.page import page_text as page_of
from studies.records import Study
from studies.results import results_of
from studies.status import status_rows
from tests.studies.made_study import TOY, made_study, toy, with_cells

ALL = {"7x7": {"lr": [2e-3, 4e-3]}, **{method: {"kernel_size": [5, 9]} for method in LAYERS if method != "7x7"}}


def page_text(study: Study) -> str:
    return page_of(results_of(study), {})


def test_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1; Student's t for two degrees is 4.3027 at 95 %, 9.9248 at 99 %."""
    found = paired_difference({0: 51.0, 1: 72.0, 2: 93.0, 9: 1.0}, {2: 90.0, 1: 70.0, 0: 50.0, 8: 1.0}, comparisons=5)
    assert found is not None
    assert (found.pairs, found.mean) == (3, pytest.approx(2))
    root = 3**-0.5
    assert found.interval == pytest.approx((2 - 4.30265 * root, 2 + 4.30265 * root), rel=1e-4)
    assert found.corrected == pytest.approx((2 - 9.92484 * root, 2 + 9.92484 * root), rel=1e-4)


def test_one_pair_has_no_interval() -> None:
    assert paired_difference({0: 1.0, 1: 2.0}, {1: 1.0}, comparisons=1) is None


@pytest.mark.parametrize(
    ("interval", "corrected", "verdict"),
    [
        ((1.0, 3.0), (0.5, 3.5), "better"),
        ((-3.0, -1.0), (-3.5, -0.5), "worse"),
        ((1.0, 3.0), (-0.5, 4.5), "not significant"),
        ((-3.0, -1.0), (-4.5, 0.5), "not significant"),
        ((-1.0, 1.0), (-2.0, 2.0), "not significant"),
        ((1.0, 1.0), (1.0, 1.0), "no conclusion"),
    ],
)
def test_verdicts(interval: Any, corrected: Any, verdict: str) -> None:
    assert Difference(5, sum(interval) / 2, interval, corrected).verdict == verdict


def test_equal_differences_are_no_conclusion() -> None:
    found = paired_difference({0: 51.0, 1: 61.0}, {0: 50.0, 1: 60.0}, comparisons=1)
    assert found is not None
    assert found.verdict == "no conclusion"


def known(cell: Cell) -> float:
    """Final accuracies: 7x7 at 70, 71, 72, ...; gaussian a point better, dense much worse, both with a little noise."""
    gain = {"gaussian": 1.0, "dense": -5.0}.get(cell.method, 0.0)
    noise = 0.0 if cell.method == "7x7" else 0.01 * (cell.seed % 2) + (0.5 * (cell.seed % 3) if gain == 0 else 0)
    tuned = 0.1 * (cell.kernel_size or 0) + 100 * cell.lr if not cell.test else 0.0
    return 70.0 + cell.seed % 100 + gain + noise + tuned


def known_study(cells: int | None = None) -> Any:
    config = toy(methods=list(LAYERS), seeds=5, tuning={"seeds": [100], "candidates": ALL})
    return made_study(config, known, cells)


def test_comparisons_of_known_accuracies() -> None:
    results = results_of(known_study())
    found = {(entry.method, entry.other): entry for entry in results.comparisons}
    assert len(found) == 10  # six methods against 7x7, gaussian against bilinear and three controls
    assert found["gaussian", "7x7"].difference.mean == pytest.approx(1.004)  # type: ignore[union-attr]
    accuracies = {final.method: final.accuracies for final in results.finals}
    assert found["frozen", "7x7"].difference == paired_difference(
        accuracies["frozen"], accuracies["7x7"], comparisons=10
    )
    verdicts = {key: entry.verdict for key, entry in found.items()}
    assert verdicts["gaussian", "7x7"] == "better"
    assert verdicts["dense", "7x7"] == "worse"
    assert verdicts["bilinear", "7x7"] == "not significant"
    assert verdict_words(found["gaussian", "7x7"].difference) == "significantly better"
    assert verdict_words(found["dense", "7x7"].difference) == "significantly worse"
    assert verdict_words(found["bilinear", "7x7"].difference) == "not significant"
    assert verdict_words(Difference(5, 2.0, (1.0, 3.0), (-0.5, 4.5))) == "not significant; by itself better"
    assert verdict_words(Difference(5, -2.0, (-3.0, -1.0), (-4.5, 0.5))) == "not significant; by itself worse"
    assert verdict_words(Difference(2, 1.0, (1.0, 1.0), (1.0, 1.0))).startswith("no conclusion")


def test_the_best_on_the_validation_images_is_chosen() -> None:
    study = known_study()
    choices = results_of(study).schedule.choices
    assert all(choices["convnext", method].kernel_size == 9 for method in LAYERS[1:])
    assert choices["convnext", "7x7"].lr == 4e-3
    # Equal scores: the first; a smaller loss decides before that.
    even = made_study(study.config, lambda cell: 80.0)
    assert results_of(even).schedule.choices["convnext", "dense"].kernel_size == 5
    losses = {
        id: replace(cell, validation=Score(0.1 if cell.cell.kernel_size == 9 else 0.2, 80.0))
        for id, cell in even.finished.items()
    }
    assert results_of(with_cells(even, losses)).schedule.choices["convnext", "dense"].kernel_size == 9


def test_nothing_is_chosen_before_all_candidates_are_done() -> None:
    schedule = results_of(known_study(cells=1)).schedule
    assert schedule.choices == {}
    assert all(entry.cell is None for entry in schedule.entries if entry.phase == "final")


def test_a_page_says_what_is_not_there_yet() -> None:
    study = known_study(cells=20)
    page = page_text(study)
    assert page.splitlines()[2].startswith("**The study is not complete: ")
    assert " final of bilinear, " in page.splitlines()[2]
    assert "| - | - | - | - | not finished |" in page
    assert page_text(known_study(cells=0)).count("not chosen") == 7
    assert "not complete" not in page_text(known_study())
    assert status_rows(results_of(study).schedule)[-1][3] == str(int(page.split("complete: ")[1].split(" of ")[0]))


def test_a_negative_result_is_printed_as_one() -> None:
    text = page_text(known_study())
    assert "| dense against 7x7 | -5.00 | 5 | -5.0" in text and " | significantly worse |\n" in text
    together = (
        "here.** 1 of 4 gains was significant; 0 of 4 differences are negative. "
        "Of 10 comparisons, 2 are significant at 5 % after Bonferroni correction; effects below 0.0 to 1.0 points"
    )
    assert f"{together} are below this study's resolution." in text
    even = made_study(known_study().config, lambda cell: 80.0 + (cell.id > "8"))
    assert "Of 10 comparisons, none is significant at 5 % after Bonferroni correction; effects" in page_text(even)
    assert "**What the papers claim, here.** No gain was significant; " in page_text(even)
    worse = made_study(known_study().config, lambda cell: known(cell) - 9.0 * (cell.method == "triangle"))
    assert "here.** 1 of 4 gains was significant, 1 significantly negative; 1 of 4 differences are" in page_text(worse)
    assert "here.** Nothing can be said yet." in page_text(known_study(cells=3))
    assert "dense has 200 parameters more than 7x7" in text


def test_what_may_not_be_concluded_is_said() -> None:
    page = page_text(known_study())
    assert "see 40 images of 9 pixels 1 time." in page
    assert "Their first stage has 9 cells a side, 1.3 times 7." in page
    # 69 to 75 % and their noise; one accuracy of 20 images near 71 % errs by 10 points.
    assert "They reach 65.0 to 75." in page and "Left out here: the small convformer." in page
    assert "choices the lead was below 10." in page and "the standard error of one such accuracy: there chance" in page
    assert page.count("without several seeds at each there is no conclusion") == 3
    assert "longer training runs are not tested." in page
    assert "| convnext | 7x7, for comparison | - | 49 |" in page
    assert "What this does not test" not in page_text(known_study(cells=3))


def test_a_sweep_is_drawn_when_it_is_whole() -> None:
    study = known_study()
    (missing,) = [id for id, cell in study.finished.items() if cell.cell.kernel_size == 3]
    less = with_cells(study, {id: cell for id, cell in study.finished.items() if id != missing})
    assert results_of(study).sweeps["kernel size"] and not results_of(less).sweeps["kernel size"]
    heading = "## Accuracy against kernel size"
    assert heading in page_text(study) and heading not in page_text(less)


def test_what_other_sweeps_keep_fixed_is_among_the_counts() -> None:
    assert [point.value for point in results_of(known_study()).sweeps["kernel count"]] == [4, 26]


def test_whether_a_sweep_shows_anything() -> None:
    sweeps = {**TOY["sweeps"], "seeds": [100, 101, 102]}
    even = made_study(toy(sweeps=sweeps), lambda cell: 80.0 + cell.seed % 100)
    told = "span 0.00 points. By scipy's one-way analysis of variance over the seeds p = 1: not significant (below"
    assert told in page_text(even)
    uneven = made_study(toy(sweeps=sweeps), lambda cell: 80.0 + 0.1 * (cell.seed % 100) + (cell.kernel_size or 0))
    assert ": significant (below 0.017 counts, as there are 3 sweeps)" in page_text(uneven)


def test_candidates_that_are_the_same_model_are_marked() -> None:
    """Whoever has such has fewer to choose from than the others."""
    even = made_study(known_study().config, lambda cell: 80.0)
    assert [row.like_another for row in results_of(even).schedule.tuned] == [False, True] * 7
    page = page_text(even)
    assert "7 of 14 candidates, marked =, have accuracy" in page and page.count("| 80.00 = |") == 7
    assert not any(row.like_another for row in results_of(known_study()).schedule.tuned)


def test_what_was_chosen_for_some_methods_alone_is_said() -> None:
    page = page_text(known_study())
    assert (
        "The learning rate was chosen for 7x7 and fixed for bilinear, triangle, gaussian, dense, dilated and frozen"
        in page
    )
    assert "Weight decay was chosen" not in page and "The kernel's size was chosen" not in page


def test_how_a_study_came_about_is_said() -> None:
    study = made_study(toy(note="Seed 1 came later.\n"))
    assert "after the last epoch. Seed 1 came later.\n" in page_text(study)


def test_times_and_dates_of_a_short_study() -> None:
    study = known_study()
    assert "training runs, 2 minutes in all, 2026-01-02. " in page_text(study)
    fast = {id: replace(cell, images_per_second=40000.0) for id, cell in study.finished.items()}
    assert "| 0.025 |" in page_text(with_cells(study, fast))


def test_what_diverged_is_said() -> None:
    study = known_study()
    cell = results_of(study).finals[0].cells[2]
    broken = replace(cell, failure="the loss is nan", validation=None, test=None, images_per_second=None)
    told = page_text(with_cells(study, {**study.finished, cell.id: broken}))
    assert "7x7 diverged with seed 2, which is left out" in told
    assert re.search(r"\| gaussian against 7x7 \| [+\d.]+ \| 4 \|", told)


def test_a_crowded_machine_is_said() -> None:
    study = known_study()
    assert "cannot be compared" not in page_text(study)
    cell = next(iter(study.finished.values()))
    crowded = with_cells(study, {**study.finished, cell.id: replace(cell, load=4.25)})
    told = page_text(crowded)
    assert "training runs the load average was above the number of cores (up to 4.2)" in told
    assert "ms/image" in page_text(study) and "ms/image" not in told and "The page Speed on CPU has" in told
    final = next(cell for cell in study.finished.values() if cell.test is not None)
    crowded = with_cells(study, {**study.finished, final.id: replace(final, load=2.75)})
    assert "Speeds cannot be compared" in page_text(crowded)  # and there are none in that table
    assert "images/s" in page_text(study) and "images/s" not in page_text(crowded)
    fine = with_cells(study, {**study.finished, final.id: replace(final, load=2.25)})
    assert "cannot be compared" not in page_text(fine)


def test_sweeps_share_the_cells_that_are_equal() -> None:
    results = results_of(known_study())
    points = results.sweeps["kernel size"]
    assert [(point.value, point.accuracies) for point in points] == [
        (3, [pytest.approx(71.7)]),
        (7, [pytest.approx(72.1)]),
    ]
    assert points[0].ms_per_image == 4
    assert [point.value for point in results.sweeps["start"]] == [0, "whole"]


def test_records_of_other_settings_are_not_read() -> None:
    study = known_study()
    other = replace(study, config=toy(weight_decay=0.1))
    assert all(not final.cells for final in results_of(other).finals)
