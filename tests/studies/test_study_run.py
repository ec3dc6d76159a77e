"""The whole study at toy size: every phase, what it leaves, and what it does after it was killed."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from studies import images, run, training
from studies.cells import Score
from studies.config import LAYERS, StudyConfig, Sweeps
from studies.files import load_study
from studies.page import page_text
from studies.records import CELLS, read_finished, read_run
from studies.results import results_of
from studies.run import print_status, report, study
from tests.studies.made_study import ENVIRONMENT, TOY, made_study, toy
from torchdcls_train.comparison import small as comparison
from torchdcls_train.comparison.training import short_run
from torchdcls_train.data.image_set import ImageData, ImageSet

# One epoch is over in a moment; all that takes time is making models.
CANDIDATES = {method: {"kernel_size": [5, 9]} for method in LAYERS if method != "7x7"} | {"7x7": {"lr": [2e-3, 4e-3]}}


class Guarded:
    """Test images that may be read only while a final cell is scored."""

    def __init__(self, content: ImageSet) -> None:
        self.content, self.open, self.scored = content, False, 0

    def __len__(self) -> int:
        return len(self.content)

    def __getattr__(self, name: str) -> Any:
        assert self.open, "test images were read before the end of a final cell"
        return getattr(self.content, name)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """A small test set in the place of the real one, behind a guard; models of two layers a stage."""
    monkeypatch.setattr(comparison, "_DEPTHS", (2, 2, 2, 2))
    data = images.load_data("embedded", None, 9)
    test = Guarded(ImageSet(data.test.images[:40], data.test.labels[:40]))
    guarded = ImageData(data.train, test, data.classes, data.name)  # type: ignore[arg-type]
    monkeypatch.setattr(images, "load_data", lambda *args: guarded)
    score = training._score

    def opened(*args: Any) -> Score:
        test.open, test.scored = True, test.scored + 1
        try:
            return score(*args)
        finally:
            test.open = False

    monkeypatch.setattr(training, "_score", opened)
    return test


def quietly(
    config: StudyConfig, folder: Path, models: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> tuple[str, str]:
    console, argv = Console(file=io.StringIO(), width=200), ["toy.yaml", "--out", "away"]
    state = study(config, name="toy", out=folder, argv=argv, console=console, models=models, seeds=seeds)
    return state, console.file.getvalue()  # type: ignore[attr-defined]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / CELLS).read_text().splitlines()]


def outcomes(folder: Path) -> dict[str, Any]:
    """What the cells came to, without what depends on the machine's hour."""
    timeless = ("epoch", "train_loss", "loss", "accuracy")
    return {
        line["id"]: (
            line["validation"],
            line["test"],
            [{name: epoch[name] for name in timeless} for epoch in line["epochs"]],
        )
        for line in lines_of(folder)
    }


def table_of(folder: Path) -> list[list[str]]:
    """The rows of the table of finals, without speeds, which are there where no training had to share its core."""
    text = page_text(results_of(read_run(folder)), {})
    table = text.split("\n| method | ")[1].split("\n\n")[0]
    return [row.strip("| ").split(" | ")[:9] for row in table.splitlines()[2:]]


def test_dry_run_of_everything(guarded: Guarded, tmp_path: Path) -> None:
    config = toy(
        models=["convnext", "convformer"],
        methods=list(LAYERS),
        tuning={"seeds": [100], "candidates": CANDIDATES},
    )
    state, printed = quietly(config, tmp_path)
    assert state == "finished"
    lines = lines_of(tmp_path)
    finals = [line for line in lines if line["cell"]["test"]]
    # Of each of 2 models and 7 methods 2 seeds; every one of these scored on the test images, once.
    assert len(finals) == guarded.scored == 28
    assert Counter(line["cell"]["method"] for line in finals) == dict.fromkeys(LAYERS, 4)
    assert len(lines) == len({line["id"] for line in lines})
    assert all(line["test"] is None for line in lines if not line["cell"]["test"])
    assert {line["cell"]["seed"] for line in finals} == {0, 1}
    assert {line["cell"]["seed"] for line in lines if not line["cell"]["test"]} == {100}
    of_method = {(line["cell"]["model"], line["cell"]["method"]): line["parameters"] for line in finals}
    for (model, method), parameters in of_method.items():
        if method != "dense":
            assert parameters <= of_method[model, "7x7"]
    wanted = {"parameters", "kernel_count", "images_per_second", "seconds", "versions", "commit", "machine", "command"}
    assert all(wanted | {"date", "dirty", "epochs", "cell"} <= set(line) for line in lines)
    assert {line["command"] for line in lines} == {"python -m studies.run toy.yaml"}
    page = (tmp_path / "results.md").read_text()
    assert "not complete" not in page
    for name in ("accuracy", "kernel-size", "kernel-count", "start"):
        assert f"]({name}.png)" in page
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert "all" in printed and "results.md" in printed
    # The final settings are those of the best tuning cell.
    for model in config.models:
        cells = [line for line in lines if line["cell"]["model"] == model and line["cell"]["method"] == "dense"]
        tuned = {line["cell"]["kernel_size"]: line["validation"]["accuracy"] for line in cells if not line["test"]}
        (chosen,) = {line["cell"]["kernel_size"] for line in cells if line["test"]}
        assert tuned[chosen] == max(tuned.values())


def test_a_toy_of_the_study_for_a_gpu(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of `gpu-minutes` on a few small images, with a narrow network of its form."""
    monkeypatch.setitem(comparison.CONVMIXERS, "convmixer-256-16", (8, 2))
    small = {"data": "embedded", "image_size": 9, "train_images": 60, "validation_images": 20, "batch_size": 20}
    config = replace(
        load_study("gpu-minutes"), **small, device="cpu", threads=1, epochs=1, sweeps=Sweeps(kernel_size=9, start=3.0)
    )  # type: ignore[arg-type]
    assert quietly(config, tmp_path)[0] == "finished"
    assert guarded.scored == len(lines_of(tmp_path)) == 9
    text = (tmp_path / "results.md").read_text()
    assert "## ConvMixer-256/16" in text and "Settings were fixed before the study" in text
    assert [row[0] for row in table_of(tmp_path)] == ["7x7", "bilinear", "gaussian"]


def test_killed_and_resumed_it_comes_to_the_same(tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle of a line, interrupted in the middle of a cell, then left to finish."""
    whole, killed, file = tmp_path / "whole", tmp_path / "killed", tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(dict(TOY)))
    quietly(toy(), whole)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "studies.run", str(file), "--out", str(killed)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            if process.poll() is not None or ((killed / CELLS).exists() and (killed / CELLS).read_bytes().count(b"\n")):
                break
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, process.communicate()[1]
    done = (killed / CELLS).read_bytes().count(b"\n")
    assert 0 < done < len(lines_of(whole))
    with (killed / CELLS).open("ab") as torn:
        torn.write(b'{"id": "0123')
    state, printed = quietly(toy(), killed)
    assert state == "finished"
    assert f"{done} cells were finished before and are used again" in printed
    assert outcomes(killed) == outcomes(whole)
    assert table_of(killed) == table_of(whole)
    assert len(table_of(whole)) == 2


def test_interruption_keeps_finished_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: Guarded) -> None:
    count = 0

    def stopping(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return short_run(*args, **kwargs)

    monkeypatch.setattr(training, "short_run", stopping)
    state, printed = quietly(toy(), tmp_path)
    assert state == "interrupted"
    assert "rerun the same command to resume from the last finished cell" in printed
    assert len(lines_of(tmp_path)) == 2
    assert "not complete: 2 of 12 training runs" in (tmp_path / "results.md").read_text()
    assert quietly(toy(), tmp_path)[0] == "finished"
    ids = [line["id"] for line in lines_of(tmp_path)]
    assert len(ids) == len(set(ids)) == 12  # the sweep's 7 cells from a start of 1 are the tuning's too


def test_parts_put_together_are_the_whole(tmp_path: Path, guarded: Guarded) -> None:
    config = toy(models=["convnext", "convformer"])
    together = tmp_path / "together"
    together.mkdir()
    for model in config.models:
        quietly(config, tmp_path / model, [model])
        assert {line["cell"]["model"] for line in lines_of(tmp_path / model)} == {model}
        with (together / CELLS).open("a") as file:
            file.write((tmp_path / model / CELLS).read_text())
    before = (together / CELLS).read_text()
    quietly(config, together)
    assert (together / CELLS).read_text() == before
    quietly(config, tmp_path / "alone")
    assert outcomes(together) == outcomes(tmp_path / "alone")
    with pytest.raises(
        ValueError, match="models: expected some of convnext, convformer, got 'convnet'; did you mean 'convnext'"
    ):
        quietly(config, tmp_path / "other", ["convnet"])


def test_seeds_put_together_are_the_whole(tmp_path: Path, guarded: Guarded) -> None:
    """Fixed settings, which need no tuning: nothing but final runs is shared."""
    config = toy(tuning={"seeds": [100], "candidates": {"gaussian": {"kernel_size": [5]}}}, sweeps={"kernel_size": 7})
    together = tmp_path / "together"
    together.mkdir()
    for seed in config.seeds:
        quietly(config, tmp_path / str(seed), seeds=[seed])
        assert [line["cell"]["seed"] for line in lines_of(tmp_path / str(seed))] == [seed, seed]
        with (together / CELLS).open("a") as file:
            file.write((tmp_path / str(seed) / CELLS).read_text())
    _, printed = quietly(config, together)
    assert "4 cells were finished before" in printed and len(lines_of(together)) == 4
    page = (together / "results.md").read_text()
    assert "not complete" not in page
    assert "Settings were fixed before the study; final" in page and "no method was tuned" in page
    with pytest.raises(ValueError, match="seeds: expected some of 0, 1, got 2, 7"):
        quietly(config, tmp_path / "other", seeds=[7, 0, 2])


def test_changed_settings_use_what_is_equal(tmp_path: Path, guarded: Guarded) -> None:
    quietly(toy(sweeps={"kernel_size": 7, "start": 1}), tmp_path)
    before = len(lines_of(tmp_path))
    # Positions of the candidates start where the sweeps' do.
    more = toy(seeds=[0, 1, 2], sweeps={"kernel_size": 7, "start": 1})
    _, printed = quietly(more, tmp_path)
    assert f"{before} cells were finished before and are used again" in printed
    assert "others in the folder" not in printed
    assert len(lines_of(tmp_path)) == before + 2
    _, printed = quietly(toy(lr=3e-3, sweeps={"kernel_size": 7, "start": 1}), tmp_path)
    assert "4 others" in printed or "others in the folder belong to other settings" in printed


def test_a_training_that_breaks_off_is_a_result(tmp_path: Path, guarded: Guarded) -> None:
    grids = {"7x7": {"lr": [1e30, 4e-3]}, "gaussian": {"kernel_size": [5, 7]}}
    config = toy(epochs=4, warmup_epochs=0, tuning={"seeds": [100], "candidates": grids}, sweeps={"kernel_size": 7})
    assert quietly(config, tmp_path)[0] == "finished"
    failed = [line for line in lines_of(tmp_path) if line["failure"] is not None]
    assert [line["cell"]["lr"] for line in failed] == [1e30]
    assert {line["cell"]["lr"] for line in lines_of(tmp_path) if line["cell"]["test"]} == {4e-3}


def test_report_and_status_train_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: Guarded) -> None:
    quietly(toy(), tmp_path)
    pages = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".md", ".png")}
    for name in pages:
        (tmp_path / name).unlink()
    monkeypatch.setattr(run, "train_cell", None)
    monkeypatch.setattr(images, "load_data", None)
    report(name="toy", out=tmp_path, console=Console(file=io.StringIO()))
    assert {name: (tmp_path / name).read_bytes() for name in pages} == pages
    console = Console(file=io.StringIO(), width=120)
    print_status(toy(seeds=[0, 1, 5]), name="toy", out=tmp_path, console=console)
    rows = [row.replace("│", " ").split() for row in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["final", "convnext", "7x7", "2", "1", "0", "min"] in rows
    assert ["all", "12", "2", "0", "min"] in rows


def test_one_process_at_a_time(tmp_path: Path, guarded: Guarded) -> None:
    pytest.importorskip("fcntl")
    program = (
        "import sys; from pathlib import Path; from torchdcls_train.runs.writer import RunWriter\n"
        "writer = RunWriter(Path(sys.argv[1]), 'a', 'b'); print('has it', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match="out: expected a folder that no other run writes to"):
            quietly(toy(), tmp_path)
        other.communicate("")
    assert other.returncode == 0


def test_a_broken_line_in_the_middle_is_refused(tmp_path: Path, guarded: Guarded) -> None:
    whole = json.dumps(asdict(next(iter(made_study(toy(), cells=1).finished.values()))))
    (tmp_path / CELLS).write_text(f'{whole}\n{{"id": \n{whole}\n')
    with pytest.raises(ValueError, match="expected a finished cell in line 2"):
        quietly(toy(), tmp_path)


def test_bfloat16_is_what_the_forward_pass_runs_in(guarded: Guarded) -> None:
    from studies.cells import make_cell
    from studies.run import platform_of

    found: dict[str, list[Any]] = {}
    for precision in ("float32", "bfloat16"):
        config = toy(precision=precision)
        (candidate, *_) = config.candidates("7x7")
        platform = platform_of(config, torch.device("cpu"))
        cell = make_cell(config, platform, "convnext", "7x7", candidate, seed=0)
        result = training.train_cell(cell, images.load_images(config), torch.device("cpu"), ENVIRONMENT)
        found[precision] = [epoch["train_loss"] for epoch in result.epochs]
    assert found["float32"] != found["bfloat16"]
    assert found["float32"] == pytest.approx(found["bfloat16"], rel=0.05)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"study": "a", "config": {"epoch": 1}}'])
def test_broken_settings_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(ValueError, match=r"out: .*study\.json"):
        read_run(tmp_path)


def test_a_line_without_all_of_a_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / CELLS).write_text('{"id": "0123"}\n')
    with pytest.raises(ValueError, match=r"cells\.jsonl: expected a finished cell in line 1"):
        quietly(toy(), tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a folder that can be written to, got .* \(it is a file\)"):
        quietly(toy(), tmp_path / "file")
    with pytest.raises(ValueError, match="out: expected a folder, got the file"):
        read_finished(tmp_path / "file")
