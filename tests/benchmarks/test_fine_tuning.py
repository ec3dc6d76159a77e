"""Fine-tuning after a conversion: where each arm starts, and what the table and the sentences say of made numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import fine_tuning
from benchmarks.fine_tuning import FineTuning, measure, start
from benchmarks.kept_weights import ARMS, EVALUATIONS_AN_EPOCH, Arm, draw, note, rows
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.small import comparison_model
from torchdcls_train.data.image_set import ImageData, ImageSet
from torchdcls_train.runs.progress_bar import ProgressBar


def small_data() -> ImageData:
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> ImageSet:
        levels = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=generator)
        return ImageSet(levels, torch.arange(count) % 2)

    return ImageData(images(32), images(8), ("a", "b"), "noise")


def made(curves: dict[str, list[list[float]]]) -> dict[str, Any]:
    """A result in which each arm has a curve for each seed."""
    seeds = range(len(next(iter(curves.values()))))
    return {
        "settings": {"model": "convnext", "epochs": 6, "fine_tuning_epochs": 1, "rates": [0.001]}
        | {"dilated_kernel_size": 17},
        "data": {"name": "noise", "train_images": 32, "test_images": 8},
        "runs": [
            {
                "seed": seed,
                "trained_test_accuracy": 90.0 + seed,
                "fine_tuned": [
                    {
                        "arm": name,
                        "lr": 0.001,
                        "kernel_count": None if name == "7x7" else 26,
                        "residual": 0.25 if name.endswith("keep") else None,
                        "test_accuracy": each[seed],
                    }
                    for name, each in curves.items()
                ],
            }
            for seed in seeds
        ],
    }


def curve(first: float, last: float) -> list[float]:
    return [first, *[0.0] * (EVALUATIONS_AN_EPOCH - 1), last]


MADE = {
    "7x7": [curve(90, 91), curve(91, 92), curve(92, 93)],
    "bilinear, keep": [curve(80, 90), curve(81, 90), curve(82, 90)],
    "bilinear, random": [curve(10, 80), curve(10, 81), curve(10, 82)],
    "gaussian, keep": [curve(70, 85), curve(70, 80), curve(70, 90)],
    "gaussian, random": [curve(10, 80), curve(10, 85), curve(10, 90)],
}


def test_measured_arms_start_where_they_should() -> None:
    config = CompareConfig(epochs=1, batch_size=16).checked()
    study = FineTuning(config, epochs=1, rates=[1e-3], seeds=[0])
    data = small_data()
    with ProgressBar(Console(quiet=True), study.images(data)) as bar:
        (run,) = measure(study, data, bar)
    arms = {entry["arm"]: entry for entry in run["fine_tuned"]}
    assert list(arms) == [arm.name for arm in ARMS]
    assert arms["7x7"]["test_accuracy"][0] == run["trained_test_accuracy"]
    for name, entry in arms.items():
        # Two updates an epoch: looked at before each, and after the last.
        assert len(entry["test_accuracy"]) == 3, name
        assert entry["parameters_added"] <= 0
        assert (entry["residual"] is not None) == ("keep" in name)


def test_start_leaves_the_trained_model_alone() -> None:
    config = CompareConfig().checked()
    trained = comparison_model("convnext", 1, 2, 28)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    same, about = start(trained, Arm(), config, 0)
    assert same is not trained and about["residual"] is None
    kept, about = start(trained, Arm("bilinear", "keep"), config, 0)
    assert 0 < about["residual"] < 1 and about["kernel_count"] == 34
    random, about = start(trained, Arm("bilinear", "random"), config, 0)
    assert about["residual"] is None
    assert before.keys() == trained.state_dict().keys()
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    images = torch.randn(2, 1, 28, 28)
    expected, near, far = (model.eval()(images) for model in (trained.eval(), kept, random))
    assert (near - expected).norm() < (far - expected).norm()


def test_table_of_made_numbers() -> None:
    header, *body = rows(made(MADE))
    assert header == ["layers, weights", "learning rate", "elements", "residual", "at the start", "after epoch 1"]
    assert body[0][:4] == ["7x7", "0.001", "-", "-"]
    assert body[1][:4] == ["bilinear, warm start", "0.001", "26", "0.25"]
    # 80, 81, 82: deviation 1, t of two degrees of freedom 4.303, over the root of 3.
    assert body[1][4] == "81.00 ± 2.48"


def test_sentences_of_made_numbers() -> None:
    text = note(made(MADE))
    assert "to 91.00 ± 2.48 %" in text
    assert "Warm start against new weights, bilinear, learning rate 0.001: +9.00 points" in text
    assert "+6.52 to +11.48, paired: better." in text
    assert "gaussian, learning rate 0.001: +0.00 points" in text and "not significant" in text
    one = {name: curves[:1] for name, curves in MADE.items()}
    assert "one seed." in note(made(one)) and "±" not in str(rows(made(one)))
    worse = note(made(MADE | {"bilinear, keep": MADE["bilinear, random"], "bilinear, random": MADE["bilinear, keep"]}))
    assert "-9.00 points" in worse and "paired: worse." in worse


def test_picture(tmp_path: Path) -> None:
    draw(made(MADE), tmp_path / "folder" / "curves.png")
    assert (tmp_path / "folder" / "curves.png").stat().st_size > 10_000


def test_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert fine_tuning.main(["--model", "convnxt"]) == 1
    assert "or a timm name, got 'convnxt'; did you mean 'convnext'" in capsys.readouterr().err
