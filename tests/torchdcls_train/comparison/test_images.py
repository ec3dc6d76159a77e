"""The comparison from end to end, on images small enough to train on in seconds."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from torchdcls_train import processes
from torchdcls_train.comparison.config import LAYERS, CompareConfig
from torchdcls_train.comparison.images import run as images_run
from torchdcls_train.comparison.images.result import ImagesResult
from torchdcls_train.comparison.images.run import compare_images
from torchdcls_train.comparison.models import compared_model
from torchdcls_train.comparison.training import short_run, short_settings
from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.image_set import ImageSet, balanced
from torchdcls_train.data.in_memory import channel_mean_std, load_data
from torchdcls_train.evaluate import evaluate as evaluate_checkpoint
from torchdcls_train.evaluate import load_model as load_checkpoint_model
from torchdcls_train.processes import Processes
from torchdcls_train.settings import EvalConfig, TrainConfig
from torchdcls_train.validation import Scores, validate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of greyscale images, dark and bright."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, base in (("dark", 40), ("bright", 200)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = (base + random.integers(-30, 30, (16, 16))).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> CompareConfig:
    return CompareConfig(
        data=str(folder), image_size=16, seeds=1, epochs=1, batch_size=8, dilated_kernel_size=9, out=tmp_path / "run"
    )


def quietly(config: CompareConfig) -> tuple[ImagesResult, str]:
    console = Console(file=io.StringIO(), width=200)
    return compare_images(config, argv=["compare"], console=console), console.file.getvalue()  # type: ignore[attr-defined]


def scored(model: nn.Module, batches: HeldBatches) -> Scores:
    plain = TrainConfig(precision="float32", channels_last=False)
    return validate(model, batches, Processes(torch.device("cpu")), plain)


@pytest.mark.parametrize("model", ["convmixer", "convnext", "convformer"])
def test_everything_a_run_leaves(config: CompareConfig, model: Any) -> None:
    result, printed = quietly(replace(config, model=model))
    folder = config.out
    assert folder is not None
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(result.json()))
    assert result.status == "finished"
    assert [run.method for run in result.runs] == list(LAYERS)
    baseline, *others = [run.parameters for run in result.runs]
    assert all(count <= baseline for count in others)
    for method in LAYERS:
        assert f"{method}, seed 0" in printed
        assert method in (folder / "table.md").read_text()
    for name in ("accuracy", "positions", "kernels"):
        with Image.open(folder / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.std() > 1, f"{name}.png is blank"
    with Image.open(folder / "positions.png") as picture:
        assert picture.width > picture.height  # the methods of a single stage stand side by side
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png") == 3 and "7x7: " not in report and "gaussian: " in report

    data = load_data(config.data, image_size=16)
    loaded, _ = compared_model(replace(config, model=model), "gaussian", data, seed=5)
    load_model(loaded, str(folder / "checkpoints" / "gaussian-seed0.safetensors"))
    test = HeldBatches(data.test, config.batch_size, *channel_mean_std(data.train.images))
    scores = scored(loaded, test)
    last = result.runs[-1].epochs[-1]
    assert (scores.loss, scores.top1) == pytest.approx((last.test_loss, last.test_accuracy), rel=1e-5)


def test_same_seed_same_result_other_seed_another(config: CompareConfig, tmp_path: Path) -> None:
    def losses(name: str) -> list[float]:
        result, _ = quietly(replace(config, methods=("gaussian",), seeds=2, out=tmp_path / name))
        return [run.epochs[-1].train_loss for run in result.runs]

    first = losses("a")
    assert first == losses("b")
    assert first[0] != first[1]


def test_methods_start_alike_but_for_their_depthwise_layers(config: CompareConfig) -> None:
    data = load_data(config.data, image_size=16)
    start = {method: compared_model(config, method, data, seed=3)[0].state_dict() for method in LAYERS}
    for method in LAYERS[1:]:
        common = [name for name in start[method] if name in start["7x7"] and "fn.0.weight" not in name]
        assert len(common) > 20
        assert all(torch.equal(start[method][name], start["7x7"][name]) for name in common)


@pytest.mark.parametrize("method", LAYERS)
def test_a_seed_decides_on_the_start(config: CompareConfig, method: Any) -> None:
    data = load_data(config.data, image_size=16)
    first, again, other = (compared_model(config, method, data, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_interruption_leaves_a_readable_folder(config: CompareConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield next(short_run(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(images_run, "short_run", interrupted)
    result, printed = quietly(replace(config, epochs=2))
    assert result.status == "interrupted"
    assert "Interrupted" in printed
    assert config.out is not None
    assert json.loads((config.out / "results.json").read_text())["runs"][0]["epochs"][0]["epoch"] == 1
    assert (config.out / "accuracy.png").exists()
    assert not (config.out / "table.md").exists()


def test_an_interrupted_comparison_resumes_to_the_same_result(
    config: CompareConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(config, methods=("7x7", "gaussian"), seeds=2, epochs=2)
    started: list[int] = []

    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        started.append(len(started))
        epochs = short_run(*args, **kwargs)
        yield next(epochs)
        if len(started) == 4:
            raise KeyboardInterrupt
        yield from epochs

    monkeypatch.setattr(images_run, "short_run", interrupted)
    first, printed = quietly(config)
    assert first.status == "interrupted" and [len(run.epochs) for run in first.runs] == [2, 2, 2, 1]
    assert "Interrupted; rerun the same command with --out" in printed
    assert config.out is not None
    (config.out / "checkpoints" / "gaussian-seed0.safetensors").unlink()  # as if killed before it was written
    started[:] = [0] * 10
    resumed, _ = quietly(config)
    assert len(started) == 10 + 2 and resumed.status == "finished" and len(resumed.resumed) == 1
    assert resumed.date == first.date
    whole, _ = quietly(replace(config, out=tmp_path / "whole"))

    def scores(result: ImagesResult) -> dict[tuple[str, int], list[tuple[float, float]]]:
        return {
            (run.method, run.seed): [(epoch.train_loss, epoch.test_accuracy) for epoch in run.epochs]
            for run in result.runs
        }

    assert scores(resumed) == scores(whole)
    for name in ("positions.png", "kernels.png"):  # drawn of the models' files where they were trained before
        assert (config.out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    started.clear()
    assert quietly(config)[0] == resumed and started == []
    with pytest.raises(ValueError, match=r"out: expected the settings and data of .*epochs was 2, is 3"):
        quietly(replace(config, epochs=3))


def test_a_loss_that_is_not_finite_ends_the_run(config: CompareConfig) -> None:
    with pytest.raises(FloatingPointError, match=r"training loss of epoch \d is \w+ after update \d; try a smaller"):
        quietly(replace(config, methods=("7x7",), epochs=8, lr=1e30, warmup_epochs=0))
    assert config.out is not None
    assert json.loads((config.out / "results.json").read_text())["status"] == "failed: FloatingPointError"


def test_bilinear_positions_stay_on_the_grid(config: CompareConfig) -> None:
    data = load_data(config.data, image_size=16)
    model, report = compared_model(replace(config, position_radius=4.0), "bilinear", data, seed=0)
    assert report is not None
    mean, std = channel_mean_std(data.train.images)
    batches = HeldBatches(data.train, 8, mean, std, 0)
    bilinear = replace(config, lr=0.5, epochs=4)
    settings = short_settings(bilinear, 0, bilinear=True)
    list(short_run(model, batches, HeldBatches(data.test, 8, mean, std), settings, torch.device("cpu")))
    positions = torch.cat([model.get_submodule(row.name).position.flatten() for row in report.replaced])
    assert positions.abs().max() == 4  # pushed against the edge, not over it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("7x7", "dense")}, "methods: expected one of .* got 'dense'"),
        ({"methods": ("7x7", "7x7")}, "methods: expected each once"),
        ({"methods": ()}, "methods: expected each once, at least one"),
        ({"model": "resnet"}, "model: expected .* got 'resnet'"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": -1}, "batch_size: expected at least 1, got -1"),
        ({"dilated_kernel_size": 0}, "dilated_kernel_size: expected at least 1, got 0"),
        ({"lr": float("nan")}, "lr: expected a finite number of at least 0, got nan"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected a number from 0 to below 1, got 1.0"),
        ({"device": "gpu"}, "device: expected 'auto' or a device of this machine, got 'gpu'"),
        ({"data": "nowhere"}, "nowhere"),
        ({"kernel_count": 60}, "kernel_count: expected a count at which bilinear has at most 7x7's"),
    ],
)
def test_bad_settings_are_refused_before_training(config: CompareConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(replace(config, **change))
    assert config.out is not None
    assert not config.out.exists()


def test_its_checkpoints_open_in_eval(config: CompareConfig, folder: Path, tmp_path: Path) -> None:
    """The test accuracy of the run comes out again; from a file alone, wherever it is, and for one of the classes."""
    result, _ = quietly(replace(config, methods=("7x7", "gaussian"), epochs=2))
    assert config.out is not None
    options = EvalConfig(device="cpu")
    for run in result.runs:
        path = (config.out / "checkpoints" / f"{run.method}-seed0.safetensors").rename(tmp_path / "it.safetensors")
        console = Console(file=io.StringIO(), width=200)
        scores = evaluate_checkpoint(path, options, console)
        last = run.epochs[-1]
        assert (scores.top1, scores.images, scores.top5) == (last.test_accuracy, 8, 100)
        assert scores.loss == pytest.approx(last.test_loss, rel=1e-5)
        assert f"convmixer with {run.method} layers, seed 0, on {folder.name}: top-1 {scores.top1:.2f} %" in (
            console.file.getvalue()  # type: ignore[attr-defined]
        )
    model = load_checkpoint_model(path)
    data = load_data(config.data, image_size=16)
    mean, std = channel_mean_std(data.train.images)
    assert not model.training
    assert scored(model, HeldBatches(data.test, 8, mean, std)).top1 == last.test_accuracy

    for name in ("dark", "bright"):
        for split in ("train", "test"):
            shutil.copytree(folder / split / name, tmp_path / name / split / name)
    each = [
        evaluate_checkpoint(path, replace(options, data=str(tmp_path / name)), Console(quiet=True))
        for name in ("dark", "bright")
    ]
    assert [score.images for score in each] == [4, 4]
    assert sum(score.top1 for score in each) / 2 == last.test_accuracy
    assert sum(score.loss for score in each) / 2 == pytest.approx(last.test_loss, rel=1e-5)
    for change, message in (
        ({"crop_pct": 0.9}, "crop_pct: expected none for a checkpoint of torchdcls compare"),
        ({"weights": "ema"}, "weights: expected 'model'"),
        ({"data": "cifar10", "data_dir": tmp_path / "x"}, "data_dir: expected a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_checkpoint(path, replace(options, **change), Console(quiet=True))  # type: ignore[arg-type]

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for name, value, reason in (("warp", 9, "it has the settings warp"), ("epochs", "few", "config.epochs: expected")):
        about = json.loads(metadata["about"])
        about["config"][name] = value
        save_file(load_file(path), path, {**metadata, "about": json.dumps(about)})
        with pytest.raises(ValueError, match=rf"is of another version of torchdcls compare \({reason}"):
            evaluate_checkpoint(path, options, Console(quiet=True))


@pytest.mark.parametrize(
    ("wanted", "helpful", "threads_taken", "said"),
    [
        (None, 1, 1, "1 CPU thread instead of 2: other processes use the CPU"),
        (None, 2, 2, None),
        (2, 1, 2, "Warning: --threads 2 is slower than --threads 1"),
        (2, 2, 2, None),
    ],
)
def test_threads_beside_other_processes(
    config: CompareConfig,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int | None,
    helpful: int,
    threads_taken: int,
    said: str | None,
) -> None:
    monkeypatch.setattr("torchdcls_train.processes.helpful_threads", lambda threads: min(threads, helpful))
    torch.set_num_threads(2)
    result, printed = quietly(replace(config, methods=("7x7",), threads=wanted, device="cpu"))
    assert result.threads == threads_taken == torch.get_num_threads()
    assert said in printed if said is not None else "slower than" not in printed


def test_as_many_threads_as_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a measurement in turns; torch's number of threads stays."""
    before, turns = torch.get_num_threads(), []

    def rate(count: int, of_two: float) -> float:
        turns.append(count)
        torch.set_num_threads(count)
        return {1: 100.0, 2: of_two}[count]

    for of_two, expected in ((190.0, 2), (60.0, 1)):
        monkeypatch.setattr(processes, "_rate", lambda count, of_two=of_two: rate(count, of_two))
        assert processes.helpful_threads(2) == expected
    assert turns[:4] == [1, 2, 1, 2]
    assert processes.helpful_threads(1) == 1 and torch.get_num_threads() == before
    monkeypatch.undo()
    assert processes.helpful_threads(2) in (1, 2) and torch.get_num_threads() == before


def test_another_file_is_not_overwritten(config: CompareConfig) -> None:
    assert config.out is not None
    config.out.mkdir()
    (config.out / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="out: expected a folder with a comparison of images or with none"):
        quietly(config)


def test_quick_is_short() -> None:
    quick, usual = CompareConfig(quick=True).checked(), CompareConfig().checked()
    assert (quick.seeds, quick.epochs, quick.train_images) == (1, 2, 2000)
    assert (usual.seeds, usual.epochs, usual.lr) == (6, 4, 1e-2)
    deep = CompareConfig(model="convnext").checked()
    assert (deep.seeds, deep.epochs, deep.lr) == (1, 6, 4e-3)
    assert usual.train_images is None
    assert CompareConfig(quick=True, epochs=5).checked().epochs == 5


def testbalanced_subset() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 2)
    images = ImageSet(torch.zeros(22, 1, 8, 8, dtype=torch.uint8), labels)
    assert balanced(images, 6).labels.bincount().tolist() == [2, 2, 2]
    assert balanced(images, 12).labels.bincount().tolist() == [5, 5, 2]
    assert len(balanced(images, 100)) == 22
