"""Models of many families: what the steps notice, and the page of made rows."""

import pytest
import torch
from torch import nn

from benchmarks import families
from benchmarks.families import DONE, STEPS, Family, examine, page
from torchdcls.nn import DclsLayer


def test_steps_of_a_small_model() -> None:
    row = examine(Family("a 1-D network for sound", "ours", (1, 400), 9))
    assert [row[step] for step in STEPS] == [DONE] * len(STEPS)
    assert row["replaced"] == 4 and row["parameters"][1] <= row["parameters"][0]
    assert sum(row["skipped"].values()) == 5
    assert row["onnx_sizes"] == "any"


def test_file_of_fixed_sizes() -> None:
    assert examine(Family("a 1-D network for sound", "ours", (1, 400), 9, sizes="fixed"))["onnx_sizes"] == "fixed"


def test_a_step_that_fails_does_not_keep_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module) -> None:
        raise ValueError("no\nway")

    monkeypatch.setattr(families, "fuse", broken)
    monkeypatch.setattr(families, "_export", lambda model, example, sizes: "any")
    row = examine(Family("a 1-D network for sound", "ours", (1, 400), 9))
    assert {step: row[step] for step in STEPS} == dict.fromkeys(STEPS, DONE) | {"fuse": "no way"}


def test_model_without_convolutions_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families._OURS, "a 1-D network for sound", lambda: nn.Sequential(nn.Linear(3, 3)))
    row = examine(Family("a 1-D network for sound", "ours", (1, 400), 9))
    assert "at least one convolution" in row["convert"]
    assert {row[step] for step in STEPS[1:]} == {"-"}


def converted() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, _ = families._converted(Family("a 1-D network for sound", "ours", (1, 400), 9))
    return model, torch.randn(2, 1, 400)


def test_training_notices_a_frozen_layer() -> None:
    model, example = converted()
    layer = next(module for module in model.modules() if isinstance(module, DclsLayer))
    layer.position.requires_grad_(False)
    with pytest.raises(RuntimeError, match="missing"):
        families._train_step(model, example)


def test_training_notices_a_weight_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(RuntimeError, match="has not changed"):
        families._train_step(*converted())


def test_comparison_notices_a_difference() -> None:
    one = torch.ones(3)
    families._compare(one, one, 0.0)
    with pytest.raises(RuntimeError, match="differ"):
        families._compare(one + 1e-4, one, 1e-5)
    with pytest.raises(RuntimeError, match="differ"):
        families._compare(one * torch.nan, one, 1.0)


def test_page_of_made_rows() -> None:
    good = {"model": "a", "source": "timm", "picked": "depthwise", "kernel_size": 11, "replaced": 3, "kernel_count": 9}
    good |= {"skipped": {"stride": 2, "not depthwise": 5}, "parameters": [1000, 990]} | dict.fromkeys(STEPS, DONE)
    good |= {"onnx_sizes": "any"}
    bad = good | {"model": "b", "picked": "all", "skipped": {"stride": 1}, "ONNX": "an operator is missing"}
    del bad["onnx_sizes"]
    lost = {"model": "c", "source": "ours", "picked": "all", "convert": "nothing there"} | dict.fromkeys(STEPS[1:], "-")
    text = page({"families": [good, bad, lost]}, "the caption")
    assert "**1 of 3 models pass all steps.**" in text
    assert "| timm a | depthwise | 3 | 11 | 9 | 1,000 | 990 | yes | yes | yes | yes | yes | any |" in text
    assert "| timm b | several taps | 3 | 11 | 9 | 1,000 | 990 | yes | yes | yes | yes | no | - |" in text
    assert "| c | several taps | - | - | - | - | - | no | - | - | - | - | - |" in text
    assert "- timm b, ONNX: an operator is missing\n- c, convert: nothing there" in text
    assert "- not depthwise: 5 convolutions of 1 model\n- stride: 3 convolutions of 2 models" in text
    assert text.endswith("the caption\n")
