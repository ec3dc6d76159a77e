"""Which weights of a checkpoint are taken."""

from pathlib import Path
from typing import Any

import pytest
import torch

from torchdcls_train.runs.checkpoint import Checkpoint
from torchdcls_train.runs.trained_model import taken_part


def stored(*parts: str, decay: float = 0.9, updates: int = 100, **scores: float) -> Checkpoint:
    scores = {"val_loss": 1.0, "ema_val_loss": 1.0, **scores} if scores else {}
    about: dict[str, Any] = {"config": {"ema": decay}, "ema_updates": updates, "scores": scores or None}
    return Checkpoint(Path("last.safetensors"), {f"{part}.weight": torch.zeros(1) for part in parts}, about)


def test_the_better_in_the_last_validation() -> None:
    """The case that was found: 39.8 % trained, 4.9 % averaged."""
    taken = taken_part(stored("model", "ema", val_top1=39.8, ema_val_top1=4.9), "auto")
    assert taken.part == "model"
    assert str(taken) == (
        "trained weights: top-1 39.80 % in the run's last validation, 4.90 % averaged; "
        "--weights ema takes the averaged weights"
    )
    for loss, part in ((1.1, "model"), (1.0, "ema"), (0.9, "ema")):
        equal = {"val_top1": 39.8, "ema_val_top1": 39.8, "ema_val_loss": loss}
        assert taken_part(stored("model", "ema", **equal), "auto").part == part


@pytest.mark.parametrize(("updates", "part"), [(0, "model"), (28, "model"), (29, "ema"), (10_000, "ema")])
def test_before_a_validation_by_the_age_of_the_average(updates: int, part: str) -> None:
    assert taken_part(stored("model", "ema", updates=updates), "auto").part == part


def test_a_young_average_is_warned_of_unless_it_was_the_better_one() -> None:
    young = {"decay": 0.9999, "updates": 500}
    warning = "warning: only 5 % of this average is trained, the rest is the run's first weights"
    assert str(taken_part(stored("model", "ema", **young), "ema")) == f"averaged weights: as asked; {warning}"
    assert str(taken_part(stored("ema", **young), "auto")).endswith(warning)
    assert taken_part(stored("model", "ema", **young), "model").warning is None
    assert taken_part(stored("ema"), "auto").warning is None
    assert taken_part(stored("model", "ema", **young, val_top1=39.8, ema_val_top1=4.9), "ema").warning is not None
    assert taken_part(stored("model", "ema", **young, val_top1=4.9, ema_val_top1=39.8), "ema").warning is None


def test_weights_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"weights: expected a checkpoint with 'ema', got 'last.safetensors' without"):
        taken_part(stored("model"), "ema")
