"""Files compute what the model does, in onnxruntime and after torch.export.load; what cannot be written is refused."""

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import torchdcls.models
from torchdcls import Dcls1d, Dcls2d, Dcls3d, DclsTranspose2d, fuse
from torchdcls.delays import AxonalDelays, SynapticDelays
from torchdcls.deployment import Configuration, ExportError, ExportReport, agreement, export, onnx_file
from torchdcls.deployment import export as export_function

export_module = sys.modules[export_function.__module__]

CONFIGURATION = Configuration(classes=("cat", "dog"), mean=(0.5,), std=(0.25,), image_size=16)


def small(dims: int) -> nn.Module:
    """A classifier with two DCLS layers; in training mode, as a model is after training."""
    layer: Any = {1: Dcls1d, 2: Dcls2d, 3: Dcls3d}[dims]
    pool: Any = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims]
    norm: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    return nn.Sequential(
        layer(2, 6, 4, stride=2, padding=3, dilated_kernel_size=7, position_init=("uniform", 3.0)),
        norm(6),
        nn.GELU(),
        layer(6, 6, 3, padding="same", dilated_kernel_size=5, groups=6, interpolation="bilinear"),
        pool(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def example(dims: int) -> Tensor:
    return torch.randn(2, 2, *(16, 12, 10)[:dims])


class OnnxFile:
    """A file in onnxruntime, apart from what the package does."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, given: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"input": given.numpy()})[0])


def opened(path: Path) -> Callable[[Tensor], Tensor]:
    return OnnxFile(path) if path.suffix == ".onnx" else torch.export.load(path).module()


def assert_computes(path: Path, model: nn.Module, *shapes: tuple[int, ...]) -> None:
    run, training = opened(path), model.training
    model.eval()
    for shape in shapes:
        given = torch.randn(shape)
        with torch.no_grad():
            wanted = model(given)
            assert wanted.std() > 1e-3  # or nothing would be shown
            torch.testing.assert_close(run(given), wanted, rtol=1e-4, atol=1e-6)
    model.train(training)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_any_batch_and_size(tmp_path: Path, dims: int, to: Any) -> None:
    model, given = small(dims), example(dims)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / f"model.{to}"
    report = export(model, path, to=to, example=given)
    names = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}[dims]
    assert report.input == ("batch", 2, *names)
    assert [check.shape[0] for check in report.checks] == [1, 3, 3, 1]
    assert len({check.shape[2:] for check in report.checks}) == 3
    assert all(check.difference <= check.tolerance < 1e-3 for check in report.checks)
    assert report.fused is not None
    assert len(report.fused.fused) == 2
    sizes = tuple(given.shape[2:])
    other = tuple(size + 7 for size in sizes)
    assert_computes(path, model, (1, 2, *sizes), (3, 2, *sizes), (1, 2, *other), (3, 2, *other), (5, 2, *other))
    assert report.files == ((path, path.stat().st_size),)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    # The model is the caller's.
    assert model.training
    assert type(model[0]).__name__ == f"Dcls{dims}d"  # type: ignore[index]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_file_is_plain_onnx(tmp_path: Path) -> None:
    export(small(2), tmp_path / "model.onnx", to="onnx", example=example(2), opset=18)
    written = onnx.load(tmp_path / "model.onnx")
    assert [(opset.domain, opset.version) for opset in written.opset_import] == [("", 18)]
    assert sum(node.op_type == "Conv" for node in written.graph.node) == 2
    assert [entry.name for entry in written.graph.input] == ["input"]
    assert [entry.name for entry in written.graph.output] == ["output"]
    (size, *_) = written.graph.output[0].type.tensor_type.shape.dim
    assert size.dim_param == "batch"


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_model_of_the_papers(tmp_path: Path, to: Any) -> None:
    model = timm.create_model("convnext_tiny_dcls_gaussian", depths=(1, 1, 2, 1), dims=(8, 8, 16, 16), num_classes=3)
    path = tmp_path / f"model.{to}"
    report = export(model, path, to=to, example=torch.randn(1, 3, 64, 64))
    assert report.input == ("batch", 3, "height", "width")
    assert_computes(path, model, (1, 3, 64, 64), (3, 3, 64, 64), (1, 3, 96, 70), (3, 3, 96, 70))
    if to == "pt2":
        assert report.notes == ("sizes from 64x64 up",)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_the_configuration_is_in_the_file(tmp_path: Path, to: Any) -> None:
    path = tmp_path / f"model.{to}"
    export(small(1), path, to=to, example=example(1), configuration=CONFIGURATION)
    if to == "onnx":
        text = OnnxFile(path).session.get_modelmeta().custom_metadata_map["torchdcls"]
    else:
        extra = {"torchdcls.json": ""}
        torch.export.load(path, extra_files=extra)
        text = extra["torchdcls.json"]
    about = json.loads(text)["about"]
    assert (about["classes"], about["mean"], about["std"]) == (["cat", "dog"], [0.5], [0.25])
    assert about["image_size"] == 16
    assert about["versions"]["torchdcls"] == torchdcls.__version__


class Positions(nn.Module):
    """A model with a parameter for each place of a map of 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Dcls2d(2, 4, 3, padding="same", dilated_kernel_size=5)
        self.embedding = nn.Parameter(torch.randn(1, 4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) + self.embedding).mean((2, 3))


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_model_of_one_size(tmp_path: Path, to: Any) -> None:
    model, given, path = Positions(), torch.randn(1, 2, 16, 16), tmp_path / f"model.{to}"
    with pytest.raises(ExportError, match=r"^dynamic_size: expected a model .* itself takes no other size, such"):
        export(model, path, to=to, example=given, dynamic_size=True)
    assert list(tmp_path.iterdir()) == []
    report = export(model, path, to=to, example=given)
    assert report.input == ("batch", 2, 16, 16)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("the size is fixed at 16x16: the model itself takes no other size, such as 32x32")
    assert [check.shape for check in report.checks] == [(1, 2, 16, 16), (3, 2, 16, 16)]
    assert_computes(path, model, (1, 2, 16, 16), (3, 2, 16, 16))


class SizeAsNumber(nn.Module):
    """A model that takes any size, which torch.export cannot leave free."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * torch.tensor(float(int(x.shape[2])))


def test_a_model_that_torch_export_ties_to_a_size(tmp_path: Path) -> None:
    report = export(SizeAsNumber(), tmp_path / "model.onnx", to="onnx", example=example(2))
    assert report.input == ("batch", 2, 16, 12)
    assert report.notes[0].startswith("the size is fixed at 16x12: ")
    assert report.fused is None
    assert_computes(tmp_path / "model.onnx", SizeAsNumber(), (1, 2, 16, 12), (4, 2, 16, 12))


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_delays(tmp_path: Path, to: Any) -> None:
    model = nn.Sequential(SynapticDelays(2, 4, 6, kernel_count=2), nn.ReLU(), AxonalDelays(4, 3, 5, tail=2))
    report = export(model, tmp_path / f"model.{to}", to=to, example=example(1))
    assert report.input == ("batch", 2, "length")
    assert_computes(tmp_path / f"model.{to}", model, (1, 2, 16), (3, 2, 4))


def test_sizes_that_torch_export_would_not_end_on(tmp_path: Path) -> None:
    """Five strides with padding by remainders, as in tf_efficientnet_lite0, take torch 10 minutes."""
    sizes = [Conv2dSame(2, 2, 3, stride=2) for _ in range(5)]
    model = nn.Sequential(*sizes, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    report = export(model, tmp_path / "model.onnx", to="onnx", example=example(2))
    assert report.input == ("batch", 2, 16, 12)
    (note,) = report.notes
    assert note.startswith("the size is fixed at 16x12: torch.export would take too long, as the sizes after a Conv2dS")
    assert_computes(tmp_path / "model.onnx", model, (1, 2, 16, 12), (4, 2, 16, 12))
    # Two are not many.
    assert export(model[:2], tmp_path / "two.onnx", to="onnx", example=example(2)).notes == ()


class Decoder(nn.Module):
    """A model that takes any size, of which torch's ONNX exporter cannot write the size of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.up = DclsTranspose2d(4, 2, 3, dilated_kernel_size=5, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x), output_size=x.shape)


def weights_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has torch write weights of any size as those of large models, which it puts into a second file."""
    save = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", lambda program, path: save(program, path, external_data=True))


def test_what_fails_for_free_sizes_alone_is_written_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_beside(monkeypatch)  # the first attempt leaves more than one file
    path, model = tmp_path / "model.onnx", Decoder()
    report = export(model, path, to="onnx", example=example(2))
    assert report.input == ("batch", 2, 16, 12)
    (note,) = report.notes
    assert note.startswith("the size is fixed at 16x12: torch's ONNX exporter cannot write it (TypeError: ")
    assert [check.shape for check in report.checks] == [(1, 2, 16, 12), (3, 2, 16, 12)]
    assert_computes(path, model, (1, 2, 16, 12), (3, 2, 16, 12))
    with pytest.raises(ExportError, match=r"^dynamic_size: expected a model .*, but torch's ONNX exporter cannot"):
        export(model, path, to="onnx", example=example(2), dynamic_size=True, overwrite=True)
    # A program of torch.export keeps its sizes free.
    assert export(model, tmp_path / "model.pt2", to="pt2", example=example(2)).input[2:] == ("height", "width")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_that_fails_for_free_sizes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any) -> None:
    """The file can be written, but computes something else for another size."""
    original = export_module.Reference.check

    def check(self: Any, run: Any, what: str, sizes: Any = None) -> Any:
        if "file" in what and len(sizes) > 1:
            raise ExportError("model: expected outputs within 1 of the model's, got 2 from a file")
        return original(self, run, what, sizes)

    monkeypatch.setattr(export_module.Reference, "check", check)
    path, model = tmp_path / f"model.{to}", nn.Sequential(nn.Conv2d(2, 3, 3))
    report = export(model, path, to=to, example=example(2))
    assert report.notes == ("the size is fixed at 16x12: expected outputs within 1 of the model's, got 2 from a file",)
    assert_computes(path, model, (1, 2, 16, 12), (3, 2, 16, 12))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


class BatchAsNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * float(int(x.shape[0]))


def test_a_model_that_is_tied_to_a_batch_size(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^model: expected one that torch.export follows for any batch size, but"):
        export(BatchAsNumber(), tmp_path / "model.pt2", to="pt2", example=example(1))
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_one_batch_size(tmp_path: Path) -> None:
    class OfTwo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(2, -1)

    with pytest.raises(
        ExportError, match=r"^model: expected one that takes any batch size, got RuntimeError: .* for 1$"
    ):
        export(OfTwo(), tmp_path / "model.pt2", to="pt2", example=torch.randn(2, 3, 5))


def test_a_fixed_size_that_was_asked_for(tmp_path: Path) -> None:
    report = export(small(2), tmp_path / "model.onnx", to="onnx", example=example(2), dynamic_size=False)
    assert report.input == ("batch", 2, 16, 12)
    assert report.notes == ()
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        opened(tmp_path / "model.onnx")(torch.randn(1, 2, 16, 16))


def test_a_layer_itself_and_one_without_sizes(tmp_path: Path) -> None:
    layer = DclsTranspose2d(2, 3, 4, stride=2, padding=2, dilated_kernel_size=5)
    export(layer, tmp_path / "layer.onnx", to="onnx", example=example(2))
    assert_computes(tmp_path / "layer.onnx", layer, (3, 2, 9, 11))
    linear = nn.Linear(4, 2)
    report = export(linear, tmp_path / "linear.pt2", to="pt2", example=torch.randn(1, 4))
    assert report.input == ("batch", 4)
    assert_computes(tmp_path / "linear.pt2", linear, (1, 4), (7, 4))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Dcls1d(2, 2, 3, padding="same", dilated_kernel_size=5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"maps": [self.layer(x)], "score": x.mean((1, 2))}


def test_several_outputs(tmp_path: Path) -> None:
    export(Two(), tmp_path / "model.onnx", to="onnx", example=example(1))
    assert len(OnnxFile(tmp_path / "model.onnx").session.get_outputs()) == 2


def test_dcls_layers_in_a_program(tmp_path: Path) -> None:
    model = small(2)
    report = export(model, tmp_path / "model.pt2", to="pt2", example=example(2), fused=False)
    assert report.fused is None
    assert "0.position" in torch.export.load(tmp_path / "model.pt2").state_dict
    assert_computes(tmp_path / "model.pt2", model, (1, 2, 16, 12), (3, 2, 20, 21))


def test_rounded_positions(tmp_path: Path) -> None:
    model, given = small(2).eval(), example(2)
    report = export(model, tmp_path / "model.onnx", to="onnx", example=given, positions="round")
    assert report.fused is not None
    assert report.fused.output_difference is not None
    assert report.fused.output_difference > 1e-4
    assert "changed the output by" in str(report)
    assert "off the grid" not in str(report)
    fuse(model, positions="round")
    assert_computes(tmp_path / "model.onnx", model, (3, 2, 16, 12))


def test_rounded_positions_off_the_grid(tmp_path: Path) -> None:
    """They go to its edge, where training leaves them beyond it; the report counts them."""
    layer = Dcls2d(1, 1, 2, dilated_kernel_size=(1, 9), padding=(0, 4), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0]))
        layer.position.copy_(torch.tensor([[0.0, 0.0], [1.2, 4.7]]).reshape(2, 1, 1, 2))
    given = torch.zeros(2, 1, 3, 21)
    given[:, :, :, 10] = 1
    report = export(nn.Sequential(layer), tmp_path / "model.onnx", to="onnx", example=given, positions="round")
    assert "1 element off the grid moved to its edge" in str(report)
    output = torch.from_numpy(OnnxFile(tmp_path / "model.onnx").session.run(None, {"input": given.numpy()})[0])
    expected = torch.zeros(2, 1, 3, 21)
    expected[..., 9], expected[..., 6] = 1, 2
    torch.testing.assert_close(output, expected)


def test_computed_elements(tmp_path: Path) -> None:
    """What torch's parametrizations compute is in the file."""
    model = small(2)
    parametrizations.weight_norm(model[0])
    export(model, tmp_path / "model.onnx", to="onnx", example=example(2))
    assert_computes(tmp_path / "model.onnx", model, (1, 2, 16, 12), (3, 2, 20, 21))


def test_weights_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large models have them: both files are moved together."""
    weights_beside(monkeypatch)
    model = nn.Sequential(Dcls2d(2, 32, 3, padding="same", dilated_kernel_size=9), nn.Conv2d(32, 32, 7))
    folder = tmp_path / "written"
    folder.mkdir()
    report = export(model, folder / "model.onnx", to="onnx", example=example(2))
    assert {path.name for path, _ in report.files} == {"model.onnx", "model.onnx.data"}
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert "beside it: model.onnx.data" in str(report)
    folder.rename(tmp_path / "moved")
    assert_computes(tmp_path / "moved" / "model.onnx", model, (1, 2, 16, 12))


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_that_computes_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any) -> None:
    path = tmp_path / f"model.{to}"
    path.write_bytes(b"old")
    owner, name = (onnx_file, "write_onnx") if to == "onnx" else (export_module, "write_program")
    write = getattr(owner, name)

    def write_another(program: Any, *rest: Any, **more: Any) -> None:
        weight = next(iter(program.state_dict.values())).view(-1)
        weight[0] += 0.01
        try:
            write(program, *rest, **more)
        finally:  # with free sizes or one, the model is the same
            weight[0] -= 0.01

    monkeypatch.setattr(owner, name, write_another)
    with pytest.raises(ExportError, match=r"^model: expected outputs within .* of the model's for an input of shape"):
        export(small(2), path, to=to, example=example(2), overwrite=True)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_nothing_is_left_of_an_interrupted_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_file, "run_onnx", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(small(1), tmp_path / "model.onnx", to="onnx", example=example(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [["onnx"], ["onnxruntime", "onnxscript"]])
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"^an ONNX file needs .*\[export\]\"$") as raised:
        export(small(1), tmp_path / "model.onnx", to="onnx", example=example(1))
    assert f"({', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing)" in str(raised.value)
    export(small(1), tmp_path / "model.pt2", to="pt2", example=example(1))  # needs none of them


def test_an_opset_to_which_nothing_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """onnxscript gives up with a warning, and leaves operators of one version under the number of another."""
    monkeypatch.setattr(onnx_file, "OPSETS", range(18, 28))
    with pytest.raises(ExportError, match=r"^opset: 27 cannot be written for this model"):
        export(small(2), tmp_path / "model.onnx", to="onnx", example=example(2), opset=27)
    assert list(tmp_path.iterdir()) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_every_opset(tmp_path: Path) -> None:
    for opset in onnx_file.OPSETS:
        path = tmp_path / f"{opset}.onnx"
        report = export(small(1), path, to="onnx", example=example(1), opset=opset)
        assert report.opset == opset
        assert [entry.version for entry in onnx.load(path).opset_import] == [opset]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 17}, "opset: expected 18 to 25, got 17; 20 is the default"),
        ({"opset": 26}, "opset: expected 18 to 25, got 26"),
        ({"opset": 18.0}, "opset: expected 18 to 25, got 18.0"),
        ({"opset": 20, "to": "pt2"}, "opset: expected none, as 'pt2' has no opsets, got 20"),
        ({"to": "tflite"}, "to: expected one of 'onnx', 'pt2', 'safetensors', got 'tflite'"),
        ({"positions": "exact"}, "positions: expected one of 'keep', 'round', got 'exact'"),
        ({"fused": False}, "fused: expected True, as ONNX has no DCLS layers"),
        ({"fused": False, "to": "pt2", "positions": "round"}, "positions: expected 'keep' where DCLS layers are kept"),
        ({"to": "safetensors", "positions": "round"}, "positions: expected 'keep' where DCLS layers are kept"),
        ({"dynamic_size": "yes"}, "dynamic_size: expected 'auto', True or False, got 'yes'"),
        ({"example": None}, "example: expected an input of the model for 'onnx', got None"),
        ({"example": [1.0]}, "example: expected a torch.Tensor, got list"),
        ({"example": torch.zeros(2, 2, 16, 12, dtype=torch.long)}, "example: expected a floating-point tensor"),
        ({"example": torch.zeros(2, 2, 0, 12)}, "example: expected a floating-point tensor"),
        ({"example": torch.zeros(2, 2, 1, 1, 1, 1)}, "with up to three sizes, got torch.float32 of shape (2, 2, 1, 1"),
        ({"example": torch.zeros(2, 3, 16, 12)}, "example: expected an input that the model takes, got torch.float32"),
        ({"example": torch.zeros(2, 3, 16, 12), "positions": "round"}, "example: expected an input that the model"),
        ({"example": torch.zeros(2, 2, 16, 12).double()}, "example: expected an input that the model takes, got"),
        ({"example": torch.zeros(2, 2, 16, 12).bfloat16()}, "example: expected float32, float16 or float64 for ONNX"),
        ({"configuration": Configuration(arguments={"a": object()})}, "configuration: expected texts, numbers"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arguments = {"to": "onnx", "example": example(2), **changes}
    with pytest.raises(ValueError) as raised:
        export(small(2), tmp_path / f"model.{arguments['to']}", **arguments)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"example": [1.0]},
        {"dynamic_size": 1.5},
        {"opset": "20"},
        {"fused": "no"},
        {"overwrite": 1},
        {"to": 3},
        {"positions": 1},
        {"configuration": {"a": 1}},
    ],
)
def test_wrong_types(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(changes))}: expected"):
        export(small(2), tmp_path / "model.onnx", **{"to": "onnx", "example": example(2), **changes})


def test_wrong_paths(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ValueError) as raised:
            export(small(1), path, to="onnx", example=example(1))
        return str(raised.value)

    assert "path: expected a name that ends in .onnx" in refused(tmp_path / "model.pt2")
    assert "path: expected a file in a folder that exists" in refused(tmp_path / "none" / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "which is a folder" in refused(tmp_path / "folder.onnx")
    (tmp_path / "old.onnx").write_bytes(b"old")
    assert "which exists; give another, or overwrite it" in refused(tmp_path / "old.onnx")
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_a_model_that_branches_on_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"^model: torch.export cannot trace it"):
        export(Branch(), tmp_path / "model.onnx", to="onnx", example=example(1))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_model_whose_outputs_are_not_finite(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    nn.init.constant_(model.bias, float("nan"))
    with pytest.raises(ExportError, match=r"^model: expected outputs that are finite"):
        export(model, tmp_path / "model.pt2", to="pt2", example=torch.randn(1, 4))


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[str] = []
    logger = logging.root.manager.disable
    model, given = small(2), example(2)
    state = torch.get_rng_state()
    export(model, tmp_path / "model.onnx", to="onnx", example=given, opset=25, progress=steps.append)
    assert capfd.readouterr() == ("", "")
    assert len(steps) == 3
    assert logging.root.manager.disable == logger
    assert torch.equal(torch.get_rng_state(), state)


def test_the_report(tmp_path: Path) -> None:
    report = export(small(2), tmp_path / "model.onnx", to="onnx", example=example(2))
    assert isinstance(report, ExportReport)
    first, second, third, *checks = str(report).splitlines()
    assert first.startswith(f"{tmp_path / 'model.onnx'}: ONNX, opset 20, ")
    assert first.endswith(" kB")
    assert second == "  input (batch, 2, height, width)"
    assert third == "  2 DCLS layers fused into plain convolutions"
    assert checks[0].startswith("  1x2x16x12: largest difference from the model ")
    assert len(checks) == 4


def test_warnings_of_the_exporters_are_not_shown(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    class Warns(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                warnings.warn("from within torch.export", stacklevel=1)
            return super().forward(x)

    export(Warns(4, 2), tmp_path / "model.pt2", to="pt2", example=torch.randn(1, 4))
    assert [str(warning.message) for warning in recwarn] == []


class TestAgreement:
    """Tolerances come from the model."""

    def reference(self, model: nn.Module) -> agreement.Reference:
        reference = agreement.Reference(model.requires_grad_(False))
        reference.add(torch.linspace(-1, 1, 12).view(3, 4))
        return reference

    def test_rounding_is_allowed_and_more_is_not(self) -> None:
        model = nn.Linear(4, 2)
        reference = self.reference(model)
        (check,) = reference.check(lambda given: [model(given) * (1 + 1e-6)], "it")
        assert 0 < check.difference < check.tolerance < 1e-4
        with pytest.raises(ExportError, match="expected outputs within"):
            reference.check(lambda given: [model(given) * (1 + 1e-4)], "it")

    def test_outputs_are_tensors(self) -> None:
        one, other = torch.ones(1), torch.ones(2)
        found = agreement.outputs({"maps": [one], "scores": (other,)})
        assert found[0] is one and found[1] is other and len(found) == 2
        for value, kind in (("text", "str"), ([], "list"), ({"maps": [one, 3]}, "int")):
            with pytest.raises(ValueError, match=f"^model: expected one that returns tensors, got {kind}$"):
                agreement.outputs(value)

    def test_other_shapes_and_failures(self) -> None:
        model = nn.Linear(4, 2)
        reference = self.reference(model)
        with pytest.raises(ExportError, match=r"got \[\(3, 1\)\] from it"):
            reference.check(lambda given: [model(given)[:, :1]], "it")
        with pytest.raises(ExportError, match=r"got \[\(3, 2\), \(3, 2\)\] from it"):
            reference.check(lambda given: [model(given)] * 2, "it")
        with pytest.raises(ExportError, match=r"it fails for an input of shape \(3, 4\) \(ZeroDivisionError"):
            reference.check(lambda given: [given / (1 // 0)], "it")

    def test_a_model_that_cannot_be_computed_in_float64(self) -> None:
        class Single(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x.float())

        model = Single(4, 2)
        reference = self.reference(model)
        (check,) = reference.check(lambda given: [model(given)], "it")
        assert 0 < check.tolerance < 1e-2
        with pytest.raises(ExportError):
            reference.check(lambda given: [model(given) * 1.01], "it")


class Keeping(nn.Conv1d):
    """Keeps what it computed."""

    def forward(self, given: Tensor) -> Tensor:
        self.last = super().forward(given)
        return self.last


def kept() -> nn.Module:
    layer = Keeping(2, 3, 1)
    layer(example(1))
    return layer


@pytest.mark.parametrize("to", ["onnx", "pt2", "safetensors"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.utils.weight_norm(Dcls1d(2, 3, 2, dilated_kernel_size=5)),
            "weight (torch.nn.utils.weight_norm); use torch.nn.utils.parametrizations.weight_norm, or call "
            "torch.nn.utils.remove_weight_norm first",
        ),
        (
            lambda: prune.l1_unstructured(nn.Conv1d(2, 3, 1), "weight", 0.5),
            "weight (torch.nn.utils.prune); call torch.nn.utils.prune.remove first",
        ),
        (kept, "last; detach it, or keep it out of the module"),
    ],
    ids=["weight_norm", "prune", "kept"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_model_that_torch_cannot_copy(tmp_path: Path, to: Any, make: Callable[[], nn.Module], message: str) -> None:
    layer = make()
    for model, name in ((nn.Sequential(layer), "'0'"), (layer, f"a {type(layer).__name__}")):
        with pytest.raises(ExportError) as refused:
            export(model, tmp_path / f"model.{to}", to=to, example=example(1))
        assert str(refused.value) == f"model: expected one that can be copied, got {name} with a computed {message}"
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_copied_for_another_reason(tmp_path: Path) -> None:
    model = small(1)
    model.stream = sys.stdout.buffer  # type: ignore[assignment]
    with pytest.raises(ExportError, match=r"^model: expected one that copy.deepcopy can copy, got TypeError: cannot"):
        export(model, tmp_path / "model.pt2", to="pt2", example=example(1))
