"""`train`: what a run leaves, and that it comes to the same however often it is interrupted or divided."""

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from tests.torchdcls_train import made_runs as runs
from torchdcls_train import train as training
from torchdcls_train import validation
from torchdcls_train.evaluate import evaluate, load_model
from torchdcls_train.runs import trained_model
from torchdcls_train.runs.checkpoint import load_checkpoint
from torchdcls_train.runs.trained_model import PARTS, better_part, taken_part
from torchdcls_train.settings import EvalConfig, TrainConfig
from torchdcls_train.train import train
from torchdcls_train.trainer import Step, Trainer


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("images"))


def quietly(config: TrainConfig) -> tuple[dict[str, Any], str]:
    console = Console(file=io.StringIO(), width=200)
    return train(config, argv=["train"], console=console), console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six updates that nothing has interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    quietly(runs.config(images, out))
    return out


def test_everything_a_run_leaves(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    row, printed = quietly(runs.config(images, out, tensorboard=True, epochs=1))
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "torchdcls train"
    assert record["processes"] == 1
    assert record["data"] == {"name": images.name, "train": 24, "validation": 10, "classes": ["bright", "dark"]}
    assert {"commit", "versions", "machine", "device", "parameters", "date"} <= record.keys()
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings == record["config"]
    assert settings["model_args"]["depths"] == [1, 1, 2, 1]
    assert [line["kind"] for line in runs.rows(out)] == ["updates"] * 3 + ["epoch"]
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1]) == row
    assert 0 <= row["positions_at_border"] <= 1
    assert {"val_top1", "val_top5", "ema_val_top1", "train_loss", "images_per_second"} <= row.keys()
    assert sorted(file.name for file in (out / "checkpoints").iterdir()) == ["best.safetensors", "last.safetensors"]
    assert "epoch 1/1  training loss" in printed
    assert f"best: epoch 1, top-1 {max(row['val_top1'], row['ema_val_top1']):.2f} %" in printed

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert {"updates/loss", "updates/lr", "epoch/val_top1", "epoch/positions_at_border"} <= set(
        events.Tags()["scalars"]
    )
    assert any(name.endswith("position") for name in events.Tags()["histograms"])


def test_the_same_settings_give_the_same_run_with_any_number_of_workers(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    quietly(runs.config(images, tmp_path / "run", workers=2))
    runs.assert_same_run(whole, tmp_path / "run")


def test_another_seed_gives_another_run(images: Path, whole: Path, tmp_path: Path) -> None:
    quietly(runs.config(images, tmp_path / "run", seed=1, epochs=1))
    assert runs.rows(tmp_path / "run")[0]["loss"] != runs.rows(whole)[0]["loss"]


@pytest.mark.parametrize("update", range(1, 7))
def test_a_run_goes_on_from_any_update(
    images: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    """It is interrupted during its update of this number, with checkpoints after every second one."""
    config = runs.config(images, tmp_path / "run", checkpoint_every=2)
    done = 0
    one_update = Trainer.update

    def interrupted(*args: Any) -> Any:
        nonlocal done
        done += 1
        if done == update:
            raise KeyboardInterrupt
        return one_update(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quietly(config)
    quietly(replace(config, resume="auto"))
    runs.assert_same_run(whole, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record.get("resumed", [])) == (update > 2)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is not ignored, as it is in what a shell runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("update", [2, 3, 5])
def test_ctrl_c_writes_a_checkpoint_after_the_update(
    images: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int, workers: int
) -> None:
    """Of an epoch's three updates also after the last, before validation. Without `checkpoint_every`."""
    config = runs.config(images, tmp_path / "run", workers=workers)
    handler = signal.getsignal(signal.SIGINT)
    with interrupted_in(monkeypatch, update, times=1), pytest.raises(KeyboardInterrupt):
        quietly(config)
    assert signal.getsignal(signal.SIGINT) is handler
    progress = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors").about["progress"]
    assert 3 * progress["epoch"] + progress["update"] == update
    quietly(replace(config, resume="auto"))
    runs.assert_same_run(whole, tmp_path / "run")


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_stops_at_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    console = Console(file=io.StringIO(), width=300)
    with interrupted_in(monkeypatch, 2, times=2), pytest.raises(KeyboardInterrupt):
        train(runs.config(images, tmp_path / "run"), argv=["train"], console=console)
    assert not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()
    assert "Interrupted; there is no checkpoint to resume from" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "Stopping with a checkpoint after this update; once more stops at once" in capfd.readouterr().err


@contextmanager
def interrupted_in(monkeypatch: pytest.MonkeyPatch, update: int, times: int) -> Iterator[None]:
    """Ctrl-C so many times in the update of this number."""
    done, one_update = 0, Trainer.update

    def interrupted(*args: Any) -> Any:
        nonlocal done
        done += 1
        for _ in range(times if done == update else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return one_update(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", interrupted)
        yield


def test_two_processes_stop_after_the_same_update(images: Path, tmp_path: Path) -> None:
    """The signal goes to the launcher, as from a scheduler, and from it to each process and its readers."""
    out = tmp_path / "run"
    words = runs.command(images, out, epochs=10_000, workers=1, micro_batch=2)
    launcher = runs.start(words, processes=2)
    while launcher.poll() is None and len(lines_of(out)) < 2:
        time.sleep(0.05)
    launcher.terminate()
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert f"Interrupted; --resume auto resumes from '{out / 'checkpoints' / 'last.safetensors'}'" in printed
    progress = load_checkpoint(out / "checkpoints" / "last.safetensors").about["progress"]
    row = [row for row in runs.rows(out) if row["kind"] == "updates"][-1]
    assert row["updates"] == 3 * progress["epoch"] + progress["update"]


def test_a_finished_run_is_left_as_it_is(images: Path, whole: Path) -> None:
    before = (whole / "checkpoints" / "last.safetensors").read_bytes()
    row, _ = quietly(runs.config(images, whole, resume="auto"))
    assert row["epoch"] == 1
    assert (whole / "checkpoints" / "last.safetensors").read_bytes() == before


def test_killed_at_random_again_and_again(images: Path, tmp_path: Path) -> None:
    """SIGKILL at four moments, whatever is being done then: the run comes to the same, bit for bit."""
    settings: dict[str, Any] = {"epochs": 12, "checkpoint_every": 2, "workers": 1}
    words = runs.command(images, tmp_path / "whole", **settings)
    runs.finish(words)
    out = tmp_path / "killed"
    words = runs.command(images, out, resume="auto", **settings)
    seed = int(time.time())
    print(f"moments of seed {seed}")
    random = torch.Generator().manual_seed(seed)
    kills = 0
    for at_row in (3, 12, 23, 35):
        process = runs.start(words)
        while process.poll() is None and len(lines_of(out)) < at_row:
            time.sleep(0.005)
        time.sleep(float(torch.rand((), generator=random)) * 0.1)
        if process.poll() is None:
            kills += 1
        process.kill()
        process.communicate()
    assert kills == 4
    runs.finish(words)
    runs.assert_same_run(tmp_path / "whole", out)


def lines_of(out: Path) -> list[str]:
    path = out / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_two_processes_come_to_the_same_as_one(images: Path, tmp_path: Path) -> None:
    """Everything random included, as each micro-batch, two a process here, has its own; and killed once."""
    whole = tmp_path / "whole"
    quietly(runs.config(images, whole, micro_batch=2))
    words = runs.command(images, tmp_path / "run", resume="auto", checkpoint_every=1, micro_batch=2)
    killed = runs.start(words, processes=2)
    while killed.poll() is None and len(lines_of(tmp_path / "run")) < 2:
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    printed = runs.finish(words, processes=2)
    assert "on 2 x cpu" in printed
    assert "resuming at epoch" in printed
    one, two = runs.rows(whole), runs.rows(tmp_path / "run")
    assert len(one) == len(two)
    for row, other in zip(one, two, strict=True):
        assert row.pop("kind") == other.pop("kind")
        assert row == pytest.approx(other, rel=1e-4)
    tensors, others = runs.last_tensors(whole), runs.last_tensors(tmp_path / "run")
    for name in (name for name in tensors if name.startswith("model.")):
        torch.testing.assert_close(tensors[name], others[name], rtol=1e-3, atol=1e-4)


def test_workers_end_with_their_launcher(images: Path, tmp_path: Path) -> None:
    words = runs.command(images, tmp_path / "run", epochs=10_000)
    launcher = runs.start(words, processes=2)
    while launcher.poll() is None and len(lines_of(tmp_path / "run")) < 2:
        time.sleep(0.05)
    workers = [int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(launcher.pid)], text=True).split()]
    assert len(workers) == 2
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate()
    ends = time.monotonic() + 10
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("broken", ["loss", "weights"])
def test_what_is_not_finite_ends_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """In the second update of the second epoch; checkpoints are written after each."""
    out, one_update, seen = tmp_path / "run", Trainer.update, []

    def update(trainer: Trainer, batches: Any, step: Step) -> torch.Tensor:
        losses = one_update(trainer, batches, step)
        if step == Step(1, 1):
            seen.extend(name for batch in batches for name in batch.names)
            if broken == "weights":
                next(trainer.model.parameters()).data.fill_(math.inf)
            else:
                losses[0] = math.nan
        return losses

    monkeypatch.setattr(Trainer, "update", update)
    config = runs.config(images, out, checkpoint_every=1)
    what = "the loss of update 2 of epoch 2 is nan" if broken == "loss" else "weights after update 2 of epoch 2 are not"
    with pytest.raises(
        FloatingPointError, match=rf"^loss: {what}.*\.png.*last good checkpoint is '.*last.safetensors'"
    ):
        quietly(config)
    # Of a loss the micro-batch is known that it is of.
    expected = seen[: config.micro_batch] if broken == "loss" else seen
    assert (out / "not_finite.txt").read_text().splitlines() == expected
    last = load_checkpoint(out / "checkpoints" / "last.safetensors")
    assert (last.about["progress"]["epoch"], last.about["progress"]["update"]) == (1, 1)
    assert all(tensor.isfinite().all() for tensor in last.tensors.values())
    assert all(math.isfinite(row["loss"]) for row in runs.rows(out) if row["kind"] == "updates")


def test_a_rate_that_is_far_too_large_ends_the_run(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="last good checkpoint does not exist yet"):
        quietly(runs.config(images, tmp_path / "run", lr=1e18, warmup_epochs=0, clip_grad=None))


def test_unreadable_images_are_counted_and_too_many_end_the_run(tmp_path: Path) -> None:
    images = runs.make_images(tmp_path / "images")
    (images / "train" / "dark" / "3.png").write_bytes(b"no image")
    (images / "val" / "dark" / "1.png").write_bytes(b"no image")
    row, _ = quietly(runs.config(images, tmp_path / "run", epochs=1, max_unreadable=0.1))
    assert (row["unreadable_images"], row["unreadable_val_images"]) == (1, 1)
    with pytest.raises(ValueError, match=r"max_unreadable: expected at most 1\.00% .*dark/3\.png"):
        quietly(runs.config(images, tmp_path / "other", epochs=1, max_unreadable=0.01))


def test_a_checkpoint_that_cannot_be_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(training, "save_checkpoint", full)
    with pytest.raises(OSError, match=r"No space left on device; there was none before it\. Make room"):
        quietly(runs.config(images, tmp_path / "run", checkpoint_every=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2e-3}, "resume: expected the settings of .*lr was 0.001, is 0.002"),
        ({"model": "convnext_tiny_dcls_gaussian", "clamp_positions": False}, "model was 'convnext_tiny_dcls_bilinear'"),
        ({"resume": None}, "out: expected a folder without a run in it, .*--resume auto"),
        ({"resume": "nowhere.safetensors"}, "out: expected a folder without a run in it"),
    ],
)
def test_what_a_run_does_not_go_on_with(images: Path, whole: Path, change: dict[str, Any], message: str) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        quietly(runs.config(images, whole, **{"resume": "auto", **change}))
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_run_goes_on_in_another_folder(images: Path, whole: Path, tmp_path: Path) -> None:
    """From a checkpoint that is named; what was logged before stays where it was."""
    config = runs.config(images, tmp_path / "one", checkpoint_every=4)
    quietly(config)
    kept = tmp_path / "kept.safetensors"
    shutil.copy(whole / "checkpoints" / "last.safetensors", kept)
    row, printed = quietly(runs.config(images, tmp_path / "other", resume=str(kept)))
    assert json.loads((tmp_path / "other" / "run.json").read_text())["resumed"][0]["epoch"] == 2
    assert row == {}
    assert (
        f"the run of '{kept}' has finished all its epochs; to train further, begin a new run with its weights"
        in printed
    )
    assert "best: epoch" in printed
    # There is no such file in this folder.
    assert "best.safetensors" not in printed
    with pytest.raises(ValueError, match="out: expected a folder without a run in it"):
        quietly(runs.config(images, tmp_path / "one", resume=str(kept)))
    quietly(replace(config, resume=str(tmp_path / "one" / "checkpoints" / "last.safetensors")))


def test_two_runs_do_not_write_to_one_folder(images: Path, tmp_path: Path) -> None:
    words = runs.command(images, tmp_path / "run", epochs=10_000, resume="auto")
    first = runs.start(words)
    while first.poll() is None and len(lines_of(tmp_path / "run")) < 1:
        time.sleep(0.05)
    with pytest.raises(ValueError, match="out: expected a folder that no other run writes to"):
        quietly(runs.config(images, tmp_path / "run", epochs=10_000, resume="auto"))
    first.kill()
    first.communicate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("added", r"the training images of .*, got others \(25 in place of 24\)"),
        ("moved", r"the training images of .*, got others \(as many, of other names or labels\)"),
        ("renamed", r"the validation images of .*, got others \(as many, of other names or labels\)"),
    ],
)
def test_other_images_are_refused(images: Path, whole: Path, tmp_path: Path, change: str, message: str) -> None:
    """Where they make as many updates of as many classes; the same images in another folder are the same."""
    moved = shutil.copytree(images, tmp_path / "moved")
    out = shutil.copytree(whole, tmp_path / "run")
    quietly(runs.config(moved, out, resume="auto"))
    dark, bright = moved / "train" / "dark", moved / "train" / "bright"
    if change == "added":
        shutil.copy(dark / "3.png", dark / "99.png")
    elif change == "moved":
        (dark / "3.png").rename(bright / "99.png")
    else:
        (moved / "val" / "dark" / "3.png").rename(moved / "val" / "dark" / "99.png")
    last = out / "checkpoints" / "last.safetensors"
    way_out = f"begin a new run with its weights: --initial-checkpoint '{last}' and another --out"
    with pytest.raises(ValueError, match=f"data: expected {message}; give the same ones, or {re.escape(way_out)}"):
        quietly(runs.config(moved, out, resume="auto"))
    quietly(runs.config(moved, tmp_path / "new", initial_checkpoint=str(last), epochs=1))


def test_a_checkpoint_from_before_images_were_known_again(images: Path, whole: Path, tmp_path: Path) -> None:
    """It has neither images nor the settings that came later."""
    out = shutil.copytree(whole, tmp_path / "run")
    last = out / "checkpoints" / "last.safetensors"
    about = dict(load_checkpoint(last).about)
    del about["data"], about["scores"]
    about["config"] = {name: about["config"][name] for name in about["config"] if name not in NEW}
    rewrite(last, about)
    _, printed = quietly(runs.config(images, out, resume="auto"))
    assert f"note: '{last}' does not say which images it was made with, so they are not compared" in printed


NEW = ("initial_checkpoint", "reset_head")


def rewrite(path: Path, about: dict[str, Any]) -> None:
    """A checkpoint as it was before it had a checksum and strides."""
    tensors = {name: tensor.contiguous() for name, tensor in load_checkpoint(path).tensors.items()}
    save_file(tensors, path, {"format": "torchdcls checkpoint 1", "about": json.dumps(about)})


def test_a_run_resumes_from_the_checkpoint_before(images: Path, whole: Path, tmp_path: Path) -> None:
    """By name where the last one is damaged, and by itself where there is no last one."""
    out = shutil.copytree(whole, tmp_path / "run")
    last, previous = (out / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous"))
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    with pytest.raises(ValueError, match=rf"'{last}' is damaged .*take a copy of it, or .*'{previous}'"):
        quietly(runs.config(images, out, resume="auto"))
    _, printed = quietly(runs.config(images, out, resume=str(previous)))
    assert "resuming at epoch 2, update 1" in printed
    runs.assert_same_run(whole, out)
    last.unlink()
    shutil.copy(whole / "checkpoints" / "previous.safetensors", previous)
    quietly(runs.config(images, out, resume="auto"))
    runs.assert_same_run(whole, out)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    images = runs.make_images(tmp_path / "images")
    config = runs.config(images, tmp_path / "run", epochs=1)
    quietly(config)
    for split in ("train", "val"):
        (images / split / "dark").rename(images / split / "night")
    with pytest.raises(ValueError, match=r"data: expected the classes of .*'night' in place of 'dark'"):
        quietly(replace(config, resume="auto"))
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    with pytest.raises(ValueError, match="data: expected classes that the model was trained on, got 'night'"):
        evaluate(best, EvalConfig(data=str(images)), Console(quiet=True))


def test_some_of_the_classes_are_scored_by_name(images: Path, tmp_path: Path) -> None:
    """Also without training images."""
    quietly(runs.config(images, tmp_path / "run", epochs=8, lr=1e-2, ema=None))
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert evaluate(best, EvalConfig(data=str(images)), Console(quiet=True)).top1 == 100
    for name, other in (("dark", "bright"), ("bright", "dark")):
        some = tmp_path / name
        shutil.copytree(images / "val" / name, some / "val" / name)
        (some / "val" / other).mkdir()
        shutil.copy(images / "val" / other / "0.png", some / "val" / other)
        scores = evaluate(best, EvalConfig(data=str(some), micro_batch=3), Console(quiet=True))
        assert (scores.top1, scores.images) == (100, 6)


def test_one_of_the_classes_is_scored(images: Path, tmp_path: Path) -> None:
    """Its folder alone would give it the number of another; the loss tells which it was taken for."""
    quietly(runs.config(images, tmp_path / "run", epochs=8, lr=1e-2, ema=None))
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    console = Console(file=io.StringIO(), width=200)
    for name in ("dark", "bright"):
        shutil.copytree(images / "val" / name, tmp_path / name / "val" / name)
        scores = evaluate(best, EvalConfig(data=str(tmp_path / name), device="cpu"), console)
        assert (scores.top1, scores.images) == (100, 5)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "(5 images of 1 of the model's 2 classes: 'dark'; cpu)" in printed
    assert "(5 images of 1 of the model's 2 classes: 'bright'; cpu)" in printed


def test_a_checkpoint_of_some_images_is_scored_on_others(images: Path, tmp_path: Path) -> None:
    quietly(runs.config(images, tmp_path / "run", epochs=1, train_images=20, val_images=4))
    best, options = tmp_path / "run" / "checkpoints" / "best.safetensors", EvalConfig(device="cpu")
    assert evaluate(best, options, Console(quiet=True)).images == 4
    other = runs.make_images(tmp_path / "other", train=1, validation=1)
    assert evaluate(best, replace(options, data=str(other)), Console(quiet=True)).images == 2


def test_classes_without_names_are_not_guessed(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with some of the classes of a model whose checkpoint does not name them."""
    quietly(runs.config(images, tmp_path / "run", epochs=1, num_classes=3))
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    stored = load_checkpoint(best)
    monkeypatch.setattr(
        trained_model, "load_checkpoint", lambda path: replace(stored, about={**stored.about, "classes": None})
    )
    with pytest.raises(ValueError, match=r"^data: expected all 3 classes, as the checkpoint does not name them, got 2"):
        evaluate(best, EvalConfig(data=str(images), device="cpu"), Console(quiet=True))


def test_one_class_is_not_trained_on(tmp_path: Path) -> None:
    images = runs.make_images(tmp_path / "images")
    for split in ("train", "val"):
        shutil.rmtree(images / split / "dark")
    with pytest.raises(ValueError, match=r"^data: expected at least two classes in 'images', got only 'bright'; add"):
        quietly(runs.config(images, tmp_path / "run"))


def test_what_takes_long_is_announced(images: Path, tmp_path: Path) -> None:
    _, printed = quietly(runs.config(images, tmp_path / "run"))
    steps = [
        "opening the data",
        "making the model",
        "reading the first 8 images, workers: 0",
        "first update",
        "epoch 1/2",
    ]
    assert [line for line in printed.splitlines() if line.startswith(tuple(steps))][:5] == [
        f"opening the data, {images}",
        "making the model, convnext_tiny_dcls_bilinear",
        "reading the first 8 images, workers: 0",
        "first update",
        next(line for line in printed.splitlines() if line.startswith("epoch 1/2")),
    ]


def test_a_cpu_is_not_compiled_for_and_its_cores_are_not_outnumbered(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is asked for."""
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    monkeypatch.setattr(validation, "default_workers", lambda: 1)
    usual = {"epochs": 1, "compile": None, "workers": None}
    _, printed = quietly(runs.config(images, tmp_path / "run", **usual))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["compiled"], record["workers"], compiled) == (False, 1, [])
    assert "reading the first 8 images, workers: 1" in printed
    _, printed = quietly(runs.config(images, tmp_path / "other", **{**usual, "compile": True, "workers": 0}))
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    assert (record["compiled"], record["workers"], len(compiled)) == (True, 0, 1)
    assert "first update, which compiles the model; this may take minutes" in printed


def test_a_model_is_loaded_from_a_checkpoint(whole: Path) -> None:
    last = whole / "checkpoints" / "last.safetensors"
    for part in ("model", "ema"):
        model = load_model(last, part)  # type: ignore[arg-type]
        stored = load_checkpoint(last).tensors
        assert torch.equal(model.state_dict()["head.fc.weight"], stored[f"{part}.head.fc.weight"])
        assert not model.training


def test_batch_norms_of_two_processes_are_those_that_are_saved(images: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": "resnet50_dcls_gaussian", "clamp_positions": False, "repulsion_from": None}
    changes["model_args"] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    runs.finish(runs.command(images, tmp_path / "run", epochs=1, micro_batch=2, **changes), processes=2)
    row = runs.rows(tmp_path / "run")[-1]
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    for part, prefix in (("model", "val"), ("ema", "ema_val")):
        scores = evaluate(last, EvalConfig(weights=part, micro_batch=2), Console(quiet=True))  # type: ignore[arg-type]
        assert scores.loss == pytest.approx(row[f"{prefix}_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_that_torchrun_did_not_start_are_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "4")
    with pytest.raises(ValueError, match="processes that torchrun started, got 4"):
        quietly(runs.config(images, tmp_path / "run"))


@pytest.mark.parametrize("after", [True, False])
def test_learning_rates(images: Path, tmp_path: Path, after: bool) -> None:
    """Linear from 0 for the warm-up, then half a cosine, of what is left or of all."""
    quietly(runs.config(images, tmp_path / "run", epochs=4, warmup_epochs=1, cosine_after_warmup=after, min_lr=1e-4))
    rates = [row["lr"] for row in runs.rows(tmp_path / "run") if row["kind"] == "updates"]
    start, length = (3, 9) if after else (0, 12)
    cosine = [1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi * (step - start) / length)) for step in range(3, 12)]
    assert rates == pytest.approx([0, 1e-3 / 3, 2e-3 / 3, *cosine])


def test_a_broken_checkpoint_is_not_overwritten(images: Path, tmp_path: Path) -> None:
    config = runs.config(images, tmp_path / "run", epochs=1)
    quietly(config)
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    broken = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be read"):
        quietly(replace(config, resume="auto"))
    assert path.read_bytes() == broken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": "convnext_tiny_dcls_gausian"},
            "model: expected a name .*did you mean 'convnext_tiny_dcls_gaussian'",
        ),
        ({"model_args": {"depth": 3}}, "model_args: .* does not take"),
        ({"optimizer": "adamx"}, "optimizer: expected a name that timm knows, got 'adamx'"),
        ({"model": "convnext_tiny"}, "clamp_positions: expected a model with DCLS layers"),
        ({"resume": "nowhere.safetensors"}, "'nowhere.safetensors', which does not exist"),
        ({"device": "gpu"}, "device: expected 'auto' or a device of this machine"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    images: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(replace(runs.config(images, tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"micro_batch": 3, "mixup": 0, "cutmix": 0}, "micro_batch: expected a divisor of batch_size 8, got 3"),
        ({"mixup": 0.5, "micro_batch": 1}, "micro_batch: expected an even number"),
        ({"lr": math.nan}, "lr: expected a finite number of at least 0, got nan"),
        ({"warmup_epochs": 2.0}, "warmup_epochs: expected less than epochs, 2, got 2.0"),
        ({"scale": (1.0, 0.5)}, "scale: expected two positive numbers, the smaller first"),
        ({"ema": 1.0}, "ema: expected a number from 0 to below 1"),
        ({"clip_grad": 0.0}, "clip_grad: expected a positive number"),
        ({"hflip": 1.5}, "hflip: expected a number from 0 to 1"),
        ({"crop_pct": 0.0}, "crop_pct: expected a number above 0"),
        ({"precision": "float16"}, "precision: expected one of"),
        ({"loss": "mse"}, "loss: expected one of"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{**runs.SETTINGS, **change})


def test_the_rate_grows_with_the_batch() -> None:
    settings = {**runs.SETTINGS, "lr": 4e-3, "lr_batch": 4096, "batch_size": 1024}
    assert TrainConfig(**settings).scaled_lr == 1e-3
    assert TrainConfig(**{**settings, "lr_batch": None}).scaled_lr == 4e-3


@pytest.mark.parametrize("loss", ["cross-entropy", "binary"])
def test_eight_images_are_learned(tmp_path: Path, loss: str) -> None:
    """Eight images of noise, each of a class of its own."""
    folder = tmp_path / "images"
    for number in range(8):
        for split in ("train", "val"):
            (folder / split / str(number)).mkdir(parents=True)
            pixels = torch.randint(256, (32, 32, 3), generator=torch.Generator().manual_seed(number)).byte().numpy()
            Image.fromarray(pixels).save(folder / split / str(number) / "image.png")
    plain: dict[str, Any] = {
        **{"drop_path": 0.0, "auto_augment": None, "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0},
        **{"hflip": 0.0, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "crop_pct": 1.0, "label_smoothing": 0.0},
        **{"ema": None, "epochs": 60, "lr": 1e-2, "warmup_epochs": 2.0, "loss": loss, "log_every": 50},
    }
    row, _ = quietly(runs.config(folder, tmp_path / "run", **plain))
    assert row["val_top1"] == 100


def test_a_checkpoint_is_scored_as_in_its_run(images: Path, whole: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    row = runs.rows(whole)[-1]
    last = whole / "checkpoints" / "last.safetensors"
    options = EvalConfig(data=str(images), device="cpu")
    better = better_part(row)
    for part, prefix in (("auto", PREFIXES[better]), *PREFIXES.items()):
        scores = evaluate(last, replace(options, weights=part), console)  # type: ignore[arg-type]
        assert (scores.loss, scores.top1, scores.top5) == (
            row[f"{prefix}_loss"],
            row[f"{prefix}_top1"],
            row[f"{prefix}_top5"],
        )
        assert scores.images == 10
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{PARTS[better]}: top-1 {row['val_top1']:.2f} % in the run's last validation" in printed
    assert "averaged weights: as asked" in printed
    best = load_checkpoint(whole / "checkpoints" / "best.safetensors")
    # Of two epochs, weights and averages, the first of the best.
    part, other = ("ema", "model") if best.has("ema") else ("model", "ema")
    top1 = [[row["val_top1"], row["ema_val_top1"]] for row in runs.rows(whole) if row["kind"] == "epoch"]
    assert evaluate(best.path, options, console).top1 == max(max(pair) for pair in top1)
    with pytest.raises(ValueError, match=f"weights: expected a checkpoint with '{other}'"):
        evaluate(best.path, replace(options, weights=other), console)  # type: ignore[arg-type]
    assert evaluate(best.path, replace(options, weights=part), console).images == 10  # type: ignore[arg-type]


PREFIXES = {"model": "val", "ema": "ema_val"}


@pytest.mark.parametrize(("ema", "part"), [(0.999999, "model"), (None, "model"), (0.0, "ema")])
def test_the_better_of_weights_and_average_is_the_best(
    images: Path, tmp_path: Path, ema: float | None, part: str
) -> None:
    quietly(runs.config(images, tmp_path / "run", ema=ema, epochs=6, lr=1e-2))
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert (best.has("model"), best.has("ema")) == (part == "model", part == "ema")
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert taken_part(last, "auto").part == taken_part(best, "auto").part == part


@pytest.mark.compiles
def test_compiled_in_bfloat16(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own operators, as machine code takes minutes."""
    compiled: list[str] = []
    compile_in_place = nn.Module.compile

    def traced(module: nn.Module) -> None:
        compiled.append(type(module).__name__)
        compile_in_place(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    row, _ = quietly(runs.config(images, tmp_path / "run", epochs=1, compile=True, precision="bfloat16"))
    assert math.isfinite(row["train_loss"])
    assert compiled == ["ConvNeXt"]
