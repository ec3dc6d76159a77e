"""The file of a study: what it may say, and the sentence that comes of what it may not."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS
from studies.files import content_of, load_study, study_from, study_names
from studies.layers import build
from studies.records import read_published
from studies.run import main
from studies.schedule import make_schedule
from tests.studies.made_study import PLATFORM, TOY, toy
from torchdcls.conversion import parameter_count


def candidates(**grids: Any) -> dict[str, Any]:
    return {"tuning": {"seeds": [100], "candidates": {**TOY["tuning"]["candidates"], **grids}}}


def test_a_whole_study() -> None:
    config = load_study("cpu")
    assert len(config.seeds) >= 5
    assert set(config.models) == {"convnext", "convformer"}
    assert len(config.methods) == 7
    assert len({len(config.candidates(method)) for method in config.methods}) == 1
    for method in ("bilinear", "triangle", "gaussian"):
        grid = config.tuning.candidates[method]
        assert len(grid["kernel_size"]) > 1 and len(grid["start"]) > 1
    assert config.side in config.sweeps.kernel_sizes
    assert {candidate.start for candidate in config.candidates("frozen")} == {"whole"}


def test_minutes_of_a_gpu() -> None:
    """Three methods at equal parameters, nothing tuned and nothing swept; batches of one size."""
    config = load_study("gpu-minutes")
    assert tuple(config.methods) == ("7x7", "bilinear", "gaussian") and len(config.seeds) == 3
    schedule = make_schedule(config, PLATFORM, {})
    assert {entry.phase for entry in schedule.left} == {"final"} and len(schedule.left) == 9
    assert all(count % config.batch_size == 0 for count in (45_000, config.validation_images, 10_000))
    cells = {entry.method: entry.cell for entry in schedule.left}
    parameters = {method: parameter_count(build(cell, 3, 10)[0]) for method, cell in cells.items() if cell is not None}
    assert max(parameters.values()) == parameters["7x7"] == 1_280_266


@pytest.mark.parametrize("name", study_names())
def test_a_packaged_study_says_nothing_of_a_run(name: str) -> None:
    """How the published ones came about is for their records alone; others run the same files."""
    assert load_study(name).note is None
    published = RESULTS / f"study-{name}.jsonl"
    assert not published.is_file() or read_published(published).config.note


def test_the_sizes_that_the_comments_of_the_files_count() -> None:
    epochs = {}
    for name in study_names():
        left = make_schedule(load_study(name), PLATFORM, {}).left
        epochs[name] = {
            phase: sum(entry.epochs for entry in left if entry.phase == phase) for phase in ("tune", "final")
        }
        epochs[name]["sweeps"] = sum(entry.epochs for entry in left) - sum(epochs[name].values())
    assert epochs["cpu"] == {"tune": 2 * 56, "final": 2 * 280, "sweeps": 120}
    assert epochs["gpu-minutes"] == {"tune": 0, "final": 3 * 3 * 30, "sweeps": 0}


def test_settings_survive_a_file() -> None:
    config = toy(seeds=3)
    assert tuple(config.seeds) == (0, 1, 2)
    again = study_from(json.loads(json.dumps(content_of(config))))
    assert content_of(again) == content_of(config)
    assert make_schedule(again, PLATFORM, {}) == make_schedule(config, PLATFORM, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: expected a setting of a study; did you mean 'epochs'?"),
        ({"tuning": {"seed": [1]}}, "tuning.seed: expected a setting of a study; did you mean 'seeds'?"),
        ({"methods": ["7x7", "gausian"]}, "methods: expected some of .* got 'gausian'; did you mean 'gaussian'?"),
        ({"methods": ["gaussian"]}, "methods: expected '7x7' among them"),
        ({"models": "convnext"}, "models: expected a list of at least one, got 'convnext'"),
        ({"data": "mnist"}, "data: expected one of 'embedded', 'fashion-mnist', 'cifar10', got 'mnist'"),
        ({"seeds": [0]}, "seeds: expected at least 2, as differences are between pairs, got 1"),
        ({"seeds": 1}, "seeds: expected at least 2"),
        ({"seeds": [0, 0]}, "seeds: expected each once, got '0 0'"),
        ({"seeds": [0, 100]}, r"tuning.seeds: expected none of the study's own seeds, got \[100\] in both"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"lr": "fast"}, "lr: expected a number, got 'fast'"),
        ({"note": 5}, "note: expected words, got 5"),
        ({"data_dir": 3}, "data_dir: expected a folder, got 3"),
        ({"label_smoothing": "x"}, "label_smoothing: expected a number, got 'x'"),
        ({"label_smoothing": 1}, "label_smoothing: expected a number from 0 to below 1, got 1"),
        ({"seeds": -1}, "seeds: expected at least 2, got -1"),
        ({"precision": "float16"}, "precision: expected one of 'float32', 'bfloat16', got 'float16'"),
        (candidates(gaussian={"kernel_size": [5, 31]}), "kernel_size: expected at most 9, the images' side, got 31"),
        (candidates(gaussian={"kernel_size": [5]}), "as many for one method as for another, .* 7x7 2, gaussian 1"),
        (
            candidates(gausian={"lr": [1]}),
            "expected a method of this study, got 'gausian'; did you mean 'gaussian'?",
        ),
        (candidates(**{"7x7": {"start": [1, 2]}}), "expected lists of lr, weight_decay, got 'start'"),
        (candidates(gaussian={"starts": [1, 2]}), "got 'starts'; did you mean 'start'?"),
        (candidates(gaussian={"start": ["all", 1]}), "start: expected a radius in cells, .* got 'all'"),
        ({"sweeps": {"kernel_size": 7, "kernel_sizes": [3, 30]}}, "sweeps.kernel_sizes: expected at most 9"),
        ({"sweeps": {"kernel_size": 7, "methods": ["dense"]}}, "sweeps.methods: expected one of .* got 'dense'"),
        ({"sweeps": {"kernel_size": 7, "models": ["convformer"]}}, "sweeps.models: expected models of this study"),
        ({"tuning": {"candidates": [1]}}, "tuning.candidates: expected for each method lines"),
    ],
)
def test_wrong_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(**change)


def test_dilated_kernels_have_an_extent_that_taps_make() -> None:
    grids = {"7x7": {"lr": [1e-3]}, "dilated": {"kernel_size": [7]}}
    with pytest.raises(ValueError, match=r"dilated.kernel_size: expected an extent that 5 taps .* got 7"):
        toy(methods=["7x7", "dilated"], tuning={"seeds": [100], "candidates": grids})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cqu"],
            "config: expected 'cpu', 'gpu-minutes', 'settings', or a file that ends in .yaml, got 'cqu'; did you mean",
        ),
        (
            ["cqu", "--report"],
            "config: expected 'cpu', 'gpu-minutes', 'settings', or a file that ends in .yaml, got 'cqu'",
        ),
        (["cpu", "--status", "--report"], "--status: expected by itself"),
        (["cpu", "--report", "--seeds", "1"], "--report: expected by itself"),
        (["nowhere.yaml"], "config: expected a YAML file, nowhere.yaml cannot be read"),
        (["cpu", "--statsu"], "--statsu: expected an option; did you mean '--status'?"),
        (["cpu", "--report", "--out", "nowhere"], "--out: expected the folder of a study"),
    ],
)
def test_wrong_arguments_end_with_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m studies.run: {message}")
    assert error.count("\n") == 1


def test_a_model_that_timm_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("models: [convnxt]\n")
    with pytest.raises(ValueError, match=r"^config: in .*mine.yaml, model: expected .* got 'convnxt'"):
        load_study(str(tmp_path / "mine.yaml"))


def test_a_file_that_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("- 1\n", "a: [\n", "models: 3\n", "tuning: 3\n", "batch_size: [1]\n", "train_images: much\n"):
        (tmp_path / "mine.yaml").write_text(text)
        assert main([str(tmp_path / "mine.yaml"), "--status"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "expected" in error, error


def test_status_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpu", "--status", "--out", str(tmp_path)]) == 0
    assert "unknown yet" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
