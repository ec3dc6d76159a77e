"""The campaign of kills: a few cases, and that it finds a resume that is not the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.campaigns import kills
from torchdcls_train.runs.checkpoint import load_checkpoint


def test_a_few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "_KILLS", 1)
    cases = list(kills.run(2, seed=0))
    assert [case.kind for case in cases] == ["adamw, contiguous, 1 process", "adamw, contiguous, 2 processes"]
    assert [case.fault for case in cases] == [None, None]
    assert cases[0].name.startswith("case 0 of seed 0, killed after 0.844 of the ")


def test_a_resume_that_is_not_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of the optimizer's state is moved by a bit before the run is resumed."""
    killed = kills.killed

    def spoilt(children: Any, out: Path, after: float) -> str | None:
        last = out / "checkpoints" / "last.safetensors"
        while not last.exists():
            children[0].join(0.01)
        found = killed(children, out, 0.0)
        checkpoint = load_checkpoint(last)
        tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
        tensors["optimizer.state.0.exp_avg"] *= 1 + 2**-20
        save_file(tensors, last, {"format": "torchdcls checkpoint 1", "about": json.dumps(checkpoint.about)})
        return found

    monkeypatch.setattr(kills, "_KILLS", 1)
    monkeypatch.setattr(kills, "killed", spoilt)
    (case,) = kills.run(1, seed=0)
    assert case.fault is not None
    assert case.fault.startswith("line ") or " tensors differ, such as " in case.fault
