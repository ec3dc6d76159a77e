"""The record of a comparison, the table, and what it says about the methods."""

import io
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from scipy.stats import ttest_rel

from tests.torchdcls_train.comparison.made_results import made_result
from torchdcls_results import half_interval
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.images.findings import comparison_rows, finished_runs, images_section, verdicts
from torchdcls_train.comparison.images.result import ImagesEpoch, ImagesResult, ImagesRun
from torchdcls_train.comparison.images.run import new_result
from torchdcls_train.comparison.record import Record
from torchdcls_train.comparison.report import markdown
from torchdcls_train.comparison.result import read_result, result_from
from torchdcls_train.data.image_set import ImageData, ImageSet


def make_result(accuracies: dict[str, list[float]], quick: bool = False, status: str = "finished") -> ImagesResult:
    """A finished comparison in which each method and seed ends at an accuracy."""
    runs = [
        {
            "method": method,
            "seed": seed,
            "parameters": 1234 if method == "7x7" else 1200,
            "kernel_count": None if method == "7x7" else 26,
            "epochs": [
                {
                    **{"epoch": epoch, "train_loss": 1.0, "test_loss": 1.0, "seconds": 1.0, "images_per_second": 100.0},
                    "test_accuracy": accuracy,
                }
                for epoch, accuracy in ((1, 10.0), (2, value))
            ],
        }
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    config = {
        "methods": list(accuracies),
        "epochs": 2,
        "model": "convnext",
        "dilated_kernel_size": 17,
        "position_radius": 3.0,
        "quick": quick,
    }
    data = {"name": "images", "train_images": 6000, "test_images": 1000, "image_size": 28}
    data |= {"channels": 1, "classes": ["a", "b"], "skipped_images": 0}
    return made_result(ImagesResult, device="cpu", runs=runs, config=config, data=data, status=status)


def told(result: ImagesResult) -> str:
    return markdown(images_section(result, Path()))


def test_interval_is_student_s() -> None:
    """The two-sided 95 % quantiles of Student's t are 12.706 for one degree of freedom and 4.303 for two."""
    assert half_interval([1.0, 3.0]) == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2), rel=1e-4)
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_rows() -> None:
    rows = comparison_rows(make_result({"7x7": [80.0, 82.0], "gaussian": [83.0, 84.0, 85.0]}))
    assert rows[0] == ["method", "elements", "parameters", "seeds", "test accuracy (%)", "training images/s"]
    assert rows[1] == ["7x7", "-", "1,234", "2", "81.00", "100 (100 to 100)"]
    assert rows[2] == ["gaussian", "26", "1,200", "3", "84.00 ± 2.48", "100 (100 to 100)"]


def test_speed_has_its_range_and_limits_are_told() -> None:
    result = make_result({"7x7": [80.0, 82.0], "gaussian": [83.0, 84.0]})
    for run, speeds in zip(result.runs, ((1000.0, 2000.0), (42.0, 1100.0)), strict=False):
        run.epochs[:] = [
            replace(epoch, images_per_second=speed) for epoch, speed in zip(run.epochs, speeds, strict=True)
        ]
    assert comparison_rows(result)[1][-1] == "1,050 (42 to 2,000)"
    assert "This comparison does not tune them" in told(result) and "kernels have 289 cells instead of 49" in told(
        result
    )


def test_a_run_that_was_cut_short_is_not_in_the_table() -> None:
    result = make_result({"7x7": [80.0], "gaussian": [83.0]})
    result.runs[1].epochs.pop()
    assert list(finished_runs(result)) == ["7x7"]
    assert len(comparison_rows(result)) == 2
    assert verdicts(result) == []


@pytest.mark.parametrize(
    ("gaussian", "conclusion", "verdict"),
    [
        (
            [82.0, 83.0, 84.1],
            "Significantly more accurate than 7x7: gaussian. All differences from 7x7 are significant.",
            "+2.03 points against 7x7, 95 % interval +1.89 to +2.18 over 3 seeds, paired: significantly better",
        ),
        (
            [78.0, 79.0, 80.1],
            "Significantly less accurate than 7x7: gaussian. All differences from 7x7 are significant.",
            "-1.97 points against 7x7, 95 % interval -2.11 to -1.82 over 3 seeds, paired: significantly worse",
        ),
        (
            [80.0, 81.5, 81.5],
            "No difference from 7x7 is significant; a difference of 1.2 points or more would have been, and smaller",
            "paired: not significant; 1.24 points or more would be significant.",
        ),
    ],
)
def test_verdict_of_several_seeds_is_paired(gaussian: list[float], conclusion: str, verdict: str) -> None:
    """Seeds that are easy or hard for both methods cancel out of the difference."""
    first, sentence = verdicts(make_result({"7x7": [80.0, 81.0, 82.0], "gaussian": gaussian}))
    assert first.startswith(conclusion)
    assert verdict in sentence


def test_significance_is_that_of_a_paired_t_test_after_correction() -> None:
    """Of three methods, p values by scipy: a verdict changes where p times 3 crosses 5 %."""
    baseline = [80.0, 81.0, 82.0, 80.5]
    methods = {
        "bilinear": [81.0, 82.3, 83.1, 81.2],
        "triangle": [80.9, 82.8, 82.3, 81.2],
        "gaussian": [80.1, 80.8, 82.1, 80.3],
    }
    chances = {name: 3 * float(ttest_rel(values, baseline).pvalue) for name, values in methods.items()}
    first, *sentences = verdicts(make_result({"7x7": baseline, **methods}))
    assert chances["bilinear"] < 0.05 < chances["triangle"]
    assert first.startswith(
        "Significantly more accurate than 7x7: bilinear. Of the rest, no difference from 7x7 is significant; a"
    )
    for (name, chance), sentence in zip(chances.items(), sentences, strict=True):
        assert sentence.startswith(f"{name}: ") and ("not significant" in sentence) == (chance > 0.05)


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed:"), (2, "2 seeds:")])
def test_few_seeds_show_nothing(seeds: int, words: str) -> None:
    """Two equal differences would have an interval of width 0."""
    first, sentence = verdicts(make_result({"7x7": [80.0] * seeds, "gaussian": [90.0] * seeds}))
    assert first.startswith(f"No conclusion from {words}")
    assert "about 1.6 points" in first  # sqrt(2 * 0.85 * 0.15 / 1000)
    assert sentence == "gaussian: +10.00 points against 7x7."


def test_no_baseline_no_verdict() -> None:
    assert verdicts(make_result({"gaussian": [80.0, 81.0]})) == []


def test_markdown() -> None:
    text = told(make_result({"7x7": [80.0], "gaussian": [85.0]}))
    assert text.splitlines()[:4] == [
        "**Accuracy after the last epoch**",
        "",
        "| method | elements | parameters | seeds | test accuracy (%) | training images/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    assert "Small convnext on images (6,000 training and 1,000 test images of 28 pixels), 2 epochs" in text
    assert "positions start uniform within 3 cells" in text
    assert "No conclusion from 1 seed" in text


def test_quick_and_interrupted_runs_say_so_first() -> None:
    accuracies = {"7x7": [80.0], "gaussian": [85.0]}
    quick = make_result(accuracies, quick=True)
    assert told(quick).startswith("**A quick run")
    assert "points against" not in told(quick)
    interrupted = make_result(accuracies, quick=True, status="interrupted")
    assert told(interrupted).startswith("**The comparison is not complete (interrupted)")


def test_file_is_whole_after_every_epoch(tmp_path: Path) -> None:
    images = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    data = ImageData(images, images, ("a", "b"), "images", skipped=2)
    config = CompareConfig(data="/private/photos", data_dir=Path("/private"), epochs=1)
    record = Record(tmp_path / "run", new_result(config, data, "cpu", ["compare"]))
    file = record.folder / "results.json"
    record.result.runs.append(ImagesRun("7x7", 0, 1234, None, [ImagesEpoch(1, 0.5, 0.6, 70.0, 2.0, 1.5)]))
    record.save()
    text = file.read_text()
    assert read_result(ImagesResult, file).runs == record.result.runs
    stored = json.loads(text)
    assert stored["runs"][0]["epochs"][0]["test_accuracy"] == 70.0
    assert stored["data"]["skipped_images"] == 2 and stored["config"]["data"] == "photos"
    assert {"date", "commit", "dirty", "command", "machine", "versions", "config", "device"} <= set(stored)
    assert not {"data_dir", "out"} & set(stored["config"])
    assert "/private" not in text
    assert {path.name for path in record.folder.iterdir()} <= {"results.json", ".lock"}
    with record.under_way(Console(file=io.StringIO())):
        assert (record.result.complete, record.result.status) == (False, "running")
    assert json.loads(file.read_text())["complete"] is True


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyboardInterrupt, "interrupted"), (ArithmeticError, "failed: ArithmeticError")]
)
def test_how_a_comparison_ended(tmp_path: Path, raised: type[BaseException], status: str) -> None:
    record, console = Record(tmp_path, make_result({})), Console(file=io.StringIO())
    with nullcontext() if raised is KeyboardInterrupt else pytest.raises(raised), record.under_way(console):
        raise raised
    stored = json.loads((tmp_path / "results.json").read_text())
    assert (stored["status"], stored["complete"]) == (status, False)
    assert Record(tmp_path, make_result({})).result.status == "running"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "digits"}, "benchmark: expected 'comparison', got 'digits'"),
        ({"machine": {"cpu": "A", "cores": "many", "memory_gib": None, "os": "B"}}, "machine.cores: expected int, got"),
        ({"runs": [{"method": "7x7"}]}, r"runs\[0\].seed: expected a value, got none"),
        ({"runs": {}}, "runs: expected list, got {}"),
        ({"config": {"methods": ["9x9"]}}, r"config.methods\[0\]: expected .*7x7.*, got '9x9'"),
        ({"load": "much"}, "load: expected float, got 'much'"),
    ],
)
def test_broken_results_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**make_result({"7x7": [80.0]}).json(), **change}))
    with pytest.raises(ValueError, match=f"^{message}"):
        read_result(ImagesResult, path)
    path.write_text("half of {")
    with pytest.raises(ValueError, match=f"^expected JSON in '{path}', got something else"):
        read_result(ImagesResult, path)


def test_results_of_earlier_versions_are_read() -> None:
    """Settings that they did not know take their defaults, and what is known no more is left out."""
    stored = json.loads(json.dumps(make_result({"7x7": [80.0]}).json()))
    del stored["config"]["data"], stored["config"]["sigma_init"]
    result = result_from(ImagesResult, {**stored, "table": "| a |", "config": {**stored["config"], "old": 1}})
    assert (result.config.data, result.config.sigma_init) == ("embedded", None)
    assert result == make_result({"7x7": [80.0]})
