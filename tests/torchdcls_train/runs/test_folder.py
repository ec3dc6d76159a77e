"""Runs that were begun by older code resume."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from torchdcls_train.runs.writer import read_rows
from torchdcls_train.settings import TrainConfig
from torchdcls_train.train import train

# Killed after 15 of its 20 updates, the last checkpoint behind the 13th; `whole.jsonl` is of the same run, not killed.
# Commit 7838dfa has written both: checkpoints had no scores then, and did not tell which images they are of.
OLD_RUN = Path(__file__).parent / "run_of_7838dfa.tar.xz"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def settings(folder: Path, **changes: object) -> TrainConfig:
    """Those of the run, as `--config config.yaml --resume auto` takes them."""
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    return TrainConfig(**{**stored, "out": folder, "resume": "auto", **changes})


def test_an_old_run_resumes(old_run: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    train(settings(old_run), argv=["train"], console=console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "resuming at epoch 2, update 4" in printed
    assert "does not say which images it was made with" in printed
    rows, whole = read_rows(old_run / "metrics.jsonl"), read_rows(old_run / "whole.jsonl")
    assert [row["updates"] for row in rows] == [row["updates"] for row in whole]
    for row, expected in zip(rows, whole, strict=True):
        assert row.pop("kind") == expected.pop("kind")
        expected["images_per_second"] = row["images_per_second"]
        # Losses and accuracies, rates, and what positions and sigmas have come to.
        assert row == pytest.approx(expected, rel=1e-4)
    assert len(json.loads((old_run / "run.json").read_text())["resumed"]) == 1


def test_an_old_run_says_why_it_does_not_resume(old_run: Path) -> None:
    with pytest.raises(ValueError, match=r"^resume: expected the settings .*\(lr was 0\.01, is 0\.02\); give"):
        train(settings(old_run, lr=0.02), argv=["train"], console=Console(quiet=True))
