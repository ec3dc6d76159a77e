"""Fused models compute what the model with DCLS layers did."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from torchdcls import (
    Dcls1d,
    Dcls2d,
    Dcls3d,
    DclsTranspose1d,
    DclsTranspose2d,
    DclsTranspose3d,
    FuseReport,
    convert,
    fuse,
)

from .small import convnext

LAYERS = {1: Dcls1d, 2: Dcls2d, 3: Dcls3d}


def layer(dims=2, size=7, **options):
    """Four channels, double precision, elements all over the kernel."""
    options = {"groups": 4, "padding": 3, "position_init": ("uniform", 3.0), **options}
    return LAYERS[dims](4, 4, 3, dilated_kernel_size=size, dtype=torch.float64, **options)


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dims": 1},
        {"dims": 3, "size": (3, 5, 4), "padding": (1, 2, 0)},
        {"padding": "same", "size": 8},
        {"padding": "valid"},
        {"padding": 1, "stride": 2},
        {"padding_mode": "circular"},
        {"padding": "same", "padding_mode": "reflect"},
        {"groups": 1, "bias": False},
        {"size": (9, 5), "padding": (4, 2), "learned_dims": (0,)},
    ],
)
def test_the_output_is_the_same(interpolation, options):
    """Sizes, padding, modes, strides, dense axes."""
    model = nn.Sequential(layer(interpolation=interpolation, **options))
    dims = options.get("dims", 2)
    images = torch.randn(2, 4, *(9, 11, 10)[:dims], dtype=torch.float64)
    expected = model(images)
    report = fuse(model, example=images)
    assert type(model[0]) is (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)
    assert report.output_difference < 1e-12
    assert report.fused[0].difference == 0


@pytest.mark.parametrize("kind", [DclsTranspose1d, DclsTranspose2d, DclsTranspose3d])
@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_transposed_layers(kind, radius):
    """Cut where padding allows it, as it crops what borders would give."""
    options = {"dilated_kernel_size": 9, "padding": 2, "stride": 2, "output_padding": 1, "groups": 2}
    transposed = kind(4, 6, 3, position_init=("uniform", radius), interpolation="bilinear", **options).double()
    model = nn.Sequential(transposed)
    images = torch.randn(2, 4, *(7, 5, 6)[: kind.dims], dtype=torch.float64)
    expected = model(images)
    report = fuse(model)
    assert type(model[0]).__name__ == kind.__name__.replace("Dcls", "Conv")
    assert report.fused[0].new_kernel_size == ((5,) if radius == 1 else (9,)) * kind.dims
    torch.testing.assert_close(model(images), expected)


def test_empty_borders_are_cut():
    """Two cells above and below, and one at each side, where the farthest element is two cells to the left."""
    position = torch.tensor([[1.0, 0.0, -1.0], [-2.0, 0.0, 1.0]], dtype=torch.float64).reshape(2, 1, 1, 3)
    model = nn.Sequential(layer(interpolation="bilinear", position_init=position))
    images = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    expected = model(images)
    report = fuse(model)
    assert report.fused[0].new_kernel_size == model[0].kernel_size == (3, 5)
    assert model[0].padding == (1, 2)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("padding", "size"), [((1, 0), (5, 7)), ("valid", (7, 7)), ("same", (1, 1))])
def test_what_padding_does_not_reach_is_not_cut(padding, size):
    position = torch.zeros(2, 1, 1, 3, dtype=torch.float64)
    model = nn.Sequential(layer(interpolation="bilinear", position_init=position, padding=padding))
    expected = model(images := torch.randn(1, 4, 9, 9, dtype=torch.float64))
    assert fuse(model).fused[0].new_kernel_size == size
    torch.testing.assert_close(model(images), expected)


def test_a_kernel_of_zeros_keeps_a_cell():
    model = nn.Sequential(layer(interpolation="bilinear"))
    model[0].weight.data.zero_()
    assert fuse(model).fused[0].new_kernel_size == model[0].kernel_size == (1, 1)


def test_tolerance_cuts_faint_borders_and_says_by_how_much():
    model = nn.Sequential(layer(size=15, padding=7))
    images = torch.randn(1, 4, 20, 20, dtype=torch.float64)
    whole, cut = deepcopy(model), model
    assert fuse(whole, example=images).output_difference < 1e-12
    report = fuse(cut, tolerance=1e-3, example=images)
    assert report.fused[0].new_kernel_size < whole[0].kernel_size
    assert 0 < report.fused[0].difference < 1e-2
    assert 0 < report.output_difference < 1e-2


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_rounded_elements_are_one_tap_each(interpolation):
    model = nn.Sequential(layer(interpolation=interpolation))
    elements, images = model[0], torch.randn(1, 4, 9, 9, dtype=torch.float64)
    expected = torch.zeros(4, 1, 7, 7, dtype=torch.float64)
    for channel in range(4):
        for element in range(3):
            row, column = (int(torch.round(elements.position[axis, channel, 0, element])) + 3 for axis in (0, 1))
            expected[channel, 0, row, column] += elements.weight[channel, 0, element].item()
    before = model(images)
    report = fuse(model, positions="round", example=images)
    fused = torch.nn.functional.pad(model[0].weight, [(7 - model[0].kernel_size[axis]) // 2 for axis in (1, 1, 0, 0)])
    torch.testing.assert_close(fused, expected, rtol=1e-6, atol=1e-9)
    relative = (model(images) - before).norm() / before.norm()
    assert report.output_difference == pytest.approx(relative.item())


def test_a_model():
    """Layers of a stage share positions; nothing of DCLS is left, and the report names every layer."""
    model = convnext().double().eval()
    converted = convert(model, dilated_kernel_size=11, kernel_count=4)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        report = fuse(model, example=(images,))
        torch.testing.assert_close(model(images), expected)
    assert isinstance(report, FuseReport)
    assert [row.name for row in report.fused] == [row.name for row in converted.replaced]
    assert not any("position" in name for name in model.state_dict())
    assert str(report).splitlines()[0].startswith("8 layers fused, relative difference of the output: ")
    assert "stages.0.blocks.0.conv_dw  11x11 -> " in str(report)


def test_flags_bias_and_places_are_kept():
    shared = layer().to(torch.float32)
    shared.weight.requires_grad_(False)
    model = nn.Sequential(shared, nn.ReLU(), shared).eval()
    fuse(model)
    assert model[0] is model[2]
    assert model[0].bias is shared.bias
    assert model[0].weight.dtype == torch.float32
    assert (model[0].training, model[0].weight.requires_grad) == (False, False)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 3)), {}, "model: expected a model with DCLS layers, got Sequential"),
        (layer(), {}, "model: expected a module that contains DCLS layers, got a Dcls2d itself"),
        (nn.Sequential(layer()), {"positions": "nearest"}, "positions: expected one of"),
        (nn.Sequential(layer()), {"tolerance": 1.0}, "tolerance: expected a number from 0 to below 1, got 1.0"),
    ],
)
def test_what_cannot_be_fused(model, options, message):
    with pytest.raises(ValueError, match=message):
        fuse(model, **options)


def test_a_model_that_returns_no_tensor_is_left_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer()

        def forward(self, images):
            return self.layer(images), images

    model = Two()
    with pytest.raises(ValueError, match="example: expected a model that returns a tensor, got tuple"):
        fuse(model, example=torch.randn(1, 4, 8, 8, dtype=torch.float64))
    assert isinstance(model.layer, Dcls2d)
