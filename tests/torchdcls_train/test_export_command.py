"""`torchdcls export`: a checkpoint of a run becomes each of the files, and wrong words end with one sentence."""

import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from rich.console import Console
from safetensors import safe_open

from tests.torchdcls_train import made_runs as runs
from torchdcls.cli import main
from torchdcls.deployment import load
from torchdcls.nn import DclsLayer
from torchdcls_train.evaluate import evaluate, load_model
from torchdcls_train.export import export_checkpoint
from torchdcls_train.runs.checkpoint import load_checkpoint
from torchdcls_train.runs.trained_model import PARTS, better_part
from torchdcls_train.settings import EvalConfig, ExportConfig


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = runs.make_images(folder / "images", train=8, validation=2)
    words = runs.command(data, folder / "out", epochs=1, warmup_epochs=0, repulsion_from=None, auto_augment="null")
    assert main(words) == 0
    return folder / "out" / "checkpoints" / "last.safetensors"


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint in a folder of the test's own."""
    copy = tmp_path / "last.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    return copy


def expected(checkpoint: Path, given: torch.Tensor, weights: Any) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = load_model(checkpoint, weights)(given)
    assert scores.std() > 1e-3  # or nothing would be shown
    return scores


def test_functions_take_the_path_as_a_string(copied: Path) -> None:
    out = copied.with_name("a.safetensors")
    assert evaluate(str(copied), EvalConfig(workers=0), Console(quiet=True)).images == 4
    export_checkpoint(str(copied), ExportConfig(to="safetensors", out=out), Console(quiet=True))
    found, stored = load_model(str(copied)).state_dict(), load(str(out)).state_dict()
    assert list(found) == list(stored)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in found.items())


def test_onnx(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(copied), "--to", "onnx"]) == 0
    printed = capsys.readouterr()
    path = copied.with_name("last.onnx")
    assert printed.out.startswith(f"{path}: ONNX, opset 20, ")
    assert "input (batch, 3, height, width)" in printed.out
    part = better_part(load_checkpoint(copied).about["scores"])
    assert f"{PARTS[part]}: top-1 " in printed.out
    assert printed.err == ""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 32, 32), (3, 3, 64, 48)):
        given = torch.randn(shape)
        (scores,) = session.run(None, {"input": given.numpy()})
        torch.testing.assert_close(torch.from_numpy(scores), expected(copied, given, part), rtol=1e-4, atol=1e-6)
    about = json.loads(session.get_modelmeta().custom_metadata_map["torchdcls"])["about"]
    assert about["classes"] == ["bright", "dark"]
    assert (about["image_size"], about["weights"], len(about["mean"])) == (32, part, 3)


def test_pt2(copied: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt2"
    words = ["--weights", "model", "--image-size", "64", "--out", str(path)]
    assert main(["export", str(copied), "--to", "pt2", *words]) == 0
    extra = {"torchdcls.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    for shape in ((1, 3, 64, 64), (3, 3, 64, 96)):
        given = torch.randn(shape)
        torch.testing.assert_close(module(given), expected(copied, given, "model"), rtol=1e-4, atol=1e-6)
    about = json.loads(extra["torchdcls.json"])["about"]
    assert (about["image_size"], about["weights"]) == (64, "model")


def test_safetensors(copied: Path) -> None:
    before = copied.read_bytes()
    assert main(["export", str(copied), "--to", "safetensors", "--weights", "ema"]) == 0
    path = copied.with_name("last-model.safetensors")
    model, stored = load(path), load_model(copied, "ema")
    assert any(isinstance(module, DclsLayer) for module in model.modules())
    theirs = stored.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())
    assert copied.read_bytes() == before
    # Nothing in it says where the run was.
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["about"]
    assert "bright" in text
    assert "/" not in text


@pytest.mark.parametrize(
    ("word", "shape"), [("false", ["batch", 3, 32, 32]), ("true", ["batch", 3, "height", "width"])]
)
def test_dynamic_size(copied: Path, word: str, shape: list[int | str]) -> None:
    assert main(["export", str(copied), "--to", "onnx", "--dynamic-size", word, "--positions", "round"]) == 0
    session = onnxruntime.InferenceSession(str(copied.with_name("last.onnx")), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == shape


def test_a_file_that_is_there(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied.with_name("last-model.safetensors")
    path.write_bytes(b"old")
    words = ["export", str(copied), "--to", "safetensors"]
    assert main(words) == 2
    assert "--out: expected a new file" in capsys.readouterr().err
    assert path.read_bytes() == b"old"
    assert main([*words, "--overwrite"]) == 0
    load(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--to: expected one of 'onnx', 'pt2', 'safetensors', got None"),
        (["--to", "onx"], "--to: expected one of 'onnx', 'pt2', 'safetensors', got 'onx'"),
        (["--to", "onnx", "--opset", "17"], "--opset: expected 18 to 25, got 17"),
        (["--to", "pt2", "--opset", "20"], "--opset: expected none, as 'pt2' has no opsets"),
        (["--to", "onnx", "--fused", "false"], "--fused: expected True, as ONNX has no DCLS layers"),
        (["--to", "safetensors", "--positions", "round"], "--positions: expected 'keep' where DCLS layers are kept"),
        (["--to", "onnx", "--image-size", "0"], "--image-size: expected at least 1, got 0"),
        (["--to", "onnx", "--image-size", "1"], "--image-size: expected an input that the model takes, got"),
        (["--to", "onnx", "--out", "{tmp}/model.pt2"], "--out: expected a name that ends in .onnx"),
        (["--to", "onnx", "--out", "{tmp}/none/model.onnx"], "--out: expected a file in a folder that exists"),
        (
            ["--to", "safetensors", "--out", "{tmp}/last.safetensors", "--overwrite"],
            "--out: expected another file than",
        ),
        (["--to", "onnx", "--images", "3"], "--images: expected an option; did you mean '--image-size'?"),
    ],
)
def test_wrong_words_of_an_export_end_with_one_sentence(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = copied.read_bytes()
    assert main(["export", str(copied), *(word.format(tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"torchdcls export: {message}")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]
    assert copied.read_bytes() == before


def test_weights_that_are_not_there(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = copied.with_name("best.safetensors")
    assert main(["export", str(best), "--to", "onnx"]) == 2
    assert capsys.readouterr().err.startswith("torchdcls export: checkpoint: expected a file, got")
    copied.write_bytes(copied.read_bytes()[:-10])
    assert main(["export", str(copied), "--to", "onnx"]) == 2
    assert "it is cut short, broken, or no safetensors file" in capsys.readouterr().err


def test_missing_packages_of_an_export(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(copied), "--to", "onnx"]) == 2
    error = capsys.readouterr().err
    assert "the packages of the export extra (onnxruntime is missing): pip install " in error
    assert error.count("\n") == 1
