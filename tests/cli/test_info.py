"""`torchdcls info`: names it finds, what it prints, and what it says of wrong words."""

import re

import pytest
import timm
import torch

from torchdcls.cli import main
from torchdcls.models.named import named_model, timm_model


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["info", *words]) == 0
    return capsys.readouterr().out


def test_a_model_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "convnext_tiny", "--dilated-kernel-size", "13", "23", "--interpolation", "gaussian", "bilinear")
    assert "convnext_tiny, input 1x3x224x224" in text
    assert "28,589,128" in text
    assert "1,688 x 1,688" in text
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in text.splitlines() if "│" in line]
    assert ["stages.2", "9", "384", "7x7", "13x13, 23x23", "14x14"] in rows
    assert ["4", "not depthwise", "stem.0"] in rows
    assert ["23x23", "gaussian", "26", "28,586,536", "11 G", "6104x6104"] in rows
    assert [row[:2] for row in rows if row[0] in ("13x13", "23x23")] == [
        [size, name] for size in ("13x13", "23x23") for name in ("gaussian", "bilinear")
    ]


def test_a_dcls_model_beside_its_twin(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "convnext_tiny_dcls_bilinear", "--num-classes", "10")
    twin = sum(parameter.numel() for parameter in timm.create_model("convnext_tiny", num_classes=10).parameters())
    assert f"convnext_tiny, which has dense kernels: {twin:,} parameters, -" in text
    assert "│ stages.0 │      3 │       96 │  17x17 │" in text
    assert "bilinear" in text


def test_size_count_and_classes(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "convnext_atto", "--image-size", "64", "--kernel-count", "7", "--num-classes", "3")
    assert "input 1x3x64x64" in text
    assert "16x16" in text
    assert re.search(r"23x23 │ gaussian +│ +21 │ +7 │", text)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "mobilenet_v2"])
def test_a_model_of_torchvision(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert not timm.is_model("mobilenet_v2")
    text = told(capsys, name, "--interpolation", "bilinear")
    assert "torchvision:mobilenet_v2, input" in text
    assert "491 x 491" in text


def test_a_model_that_cannot_be_made_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert "575 x 575 without them" in told(capsys, "torchvision:regnet_y_400mf")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convnext_tinny"], "model: expected a name that timm or torchvision knows, .* mean 'convnext_tiny'"),
        (["torchvision:resnet5"], "model: expected a model of torchvision after .* mean 'resnet50'"),
        (["convnext_atto", "--dilated-kernel-size", "0"], "--dilated-kernel-size: expected at least 1, got 0"),
        (["convnext_atto", "--image-size", "8"], "example: expected an input that ConvNeXt can be run on"),
        (["convnext_atto", "--kernel-size", "8"], "--kernel-size: expected an option; did you mean"),
        (
            ["convnext_atto", "--interpolation", "cubic"],
            "--interpolation: expected 'bilinear', 'triangle' or 'gaussian', got 'cubic'",
        ),
        (["convnext_atto", "--kernel-count", "few"], "--kernel-count: expected an integer or 'iso', got 'few'"),
        (["convnext_atto", "--kernel-count", "0"], "--kernel-count: expected at least 1, got 0"),
    ],
)
def test_wrong_words_end_with_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["info", *words]) == 2
    error = capsys.readouterr().err
    assert re.match(f"torchdcls info: {message}", error)
    assert error.count("\n") == 1


def test_named_models_have_no_weights_unless_asked_for() -> None:
    bare = named_model("convnext_atto", weights=False)
    assert all(parameter.is_meta for parameter in bare.model.parameters())
    assert named_model("convnext_atto", num_classes=3).model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert (bare.twin, named_model("resnet50_dcls_gaussian", weights=False).twin) == (None, "resnet50")


def test_a_model_of_timm_with_arguments() -> None:
    assert timm_model("convnext_atto", model_args={"in_chans": 1})(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)
