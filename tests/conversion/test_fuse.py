"""Fused models compute what the model with DCLS layers did."""

import itertools
import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from computed import BY_HOOKS, PARAMETRIZED, Halved
from torch import nn
from torch.nn.utils import parametrizations, parametrize

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
from torchdcls.delays import AxonalDelays, DendriticDelays, RecurrentDelays, SynapticDelays, rounded_delays

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


# --- Rounding ---


def rounded_kernel(elements):
    """What elements make as one tap each: to the nearest cell, then to the nearest of the grid. By loops."""
    size, learned = elements.dilated_kernel_size, elements.learned_dims
    kernel = torch.zeros(*elements.weight.shape[:2], *size, dtype=torch.float64)
    moved = 0
    for at in itertools.product(*map(range, elements.weight.shape)):
        out, group, *dense, _ = at
        cell, off = list(dense), False
        for axis, dim in enumerate(learned):
            place = round(elements.position[(axis, *at)].item())
            least, most = -(size[dim] // 2), size[dim] - 1 - size[dim] // 2
            off |= not least <= place <= most
            cell.insert(dim, min(max(place, least), most) + size[dim] // 2)
        kernel[(out, group, *cell)] += elements.weight[at].item()
        moved += off
    return kernel, moved


def placed(convolution, size):
    """The weight of a fused layer in a kernel of the old size."""
    cut = [(whole - cells) // 2 for whole, cells in zip(size, convolution.kernel_size, strict=True)]
    return F.pad(convolution.weight, [cells for cells in reversed(cut) for _ in range(2)])


def test_an_element_off_the_grid_is_rounded_to_its_edge():
    position = torch.tensor([1.2, 4.7], dtype=torch.float64).reshape(1, 1, 1, 2)
    elements = Dcls1d(1, 1, 2, dilated_kernel_size=9, padding=4, dtype=torch.float64)
    elements.weight.data[:] = torch.tensor([1.0, 2.0])
    elements.position.data.copy_(position)  # as training leaves it: nothing clamps Gaussian positions
    model = nn.Sequential(elements)
    report = fuse(model, positions="round")
    expected = torch.tensor([0.0, 0, 0, 0, 0, 1, 0, 0, 2], dtype=torch.float64)
    torch.testing.assert_close(model[0].weight[0, 0], expected, rtol=1e-6, atol=0)
    assert report.fused[0].clamped == 1
    assert str(report).splitlines()[1].endswith(", 1 element off the grid moved to its edge")
    assert torch.equal(elements.position, position)


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Dcls1d, {"dilated_kernel_size": 6, "padding": 3}),
        (Dcls2d, {"dilated_kernel_size": (5, 8), "padding": (2, 4)}),
        (Dcls2d, {"dilated_kernel_size": (5, 4), "padding": 2, "learned_dims": (1,)}),
        (Dcls2d, {"dilated_kernel_size": (1, 7), "padding": "same"}),
        (Dcls3d, {"dilated_kernel_size": (3, 4, 5), "padding": 1, "learned_dims": (0, 2)}),
        (DclsTranspose1d, {"dilated_kernel_size": 6, "padding": 2, "stride": 2}),
        (DclsTranspose2d, {"dilated_kernel_size": (4, 7), "padding": 2, "learned_dims": (0,)}),
        (DclsTranspose3d, {"dilated_kernel_size": (2, 3, 4)}),
    ],
)
def test_no_element_is_lost_by_rounding(kind, options, interpolation):
    """Far off the grid, at its edges, on halves: each element is one tap, and those that were off are counted."""
    elements = kind(4, 4, 6, groups=2, interpolation=interpolation, dtype=torch.float64, **options)
    elements.position.data.normal_(std=4)
    elements.position.data[..., 0] = elements.position.data[..., 0].round() + 0.5
    elements.position.data[..., 1] = 1e6
    expected, moved = rounded_kernel(elements)
    model = nn.Sequential(elements)
    report = fuse(model, positions="round")
    torch.testing.assert_close(placed(model[0], elements.dilated_kernel_size), expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(model[0].weight.sum(), elements.weight.sum(), rtol=1e-6, atol=1e-12)
    assert 0 < report.fused[0].clamped == moved


def test_nothing_is_counted_where_nothing_is_moved():
    """Not with exact positions, which stay, and not where all are on the grid."""
    outside, inside = layer(), layer()
    outside.position.data.fill_(5.0)
    for elements, positions in ((outside, "exact"), (inside, "round")):
        report = fuse(nn.Sequential(elements), positions=positions)
        assert report.fused[0].clamped == 0
        assert "moved" not in str(report)


# --- Elements that are computed ---


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("positions", ["exact", "round"])
@pytest.mark.parametrize("computed", (PARAMETRIZED | BY_HOOKS).values(), ids=PARAMETRIZED | BY_HOOKS)
def test_computed_elements(computed, positions):
    """What a layer's forward computes with, after its parameters have changed."""
    elements = computed(layer()).eval()
    with torch.no_grad():
        for parameter in elements.parameters():
            parameter += 0.25 * torch.rand_like(parameter)
    model, images = nn.Sequential(elements), torch.randn(2, 4, 9, 9, dtype=torch.float64)
    fresh = deepcopy(elements.state_dict())
    report = fuse(model, positions=positions)
    expected = elements(images)  # and the layer is as it was
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in elements.state_dict().items())
    assert type(model[0]) is nn.Conv2d
    assert set(model[0].state_dict()) == {"weight", "bias"}
    if positions == "round":
        torch.testing.assert_close(placed(model[0], (7, 7)), rounded_kernel(elements)[0], rtol=1e-6, atol=1e-12)
    else:
        assert report.fused[0].difference == 0
        torch.testing.assert_close(placed(model[0], (7, 7)), elements.kernel())
        torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Dcls1d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d])
def test_computed_elements_of_every_kind(kind):
    model = nn.Sequential(parametrizations.weight_norm(kind(4, 4, 3, dilated_kernel_size=5, padding=2).double()))
    images = torch.randn(2, 4, *(7, 6, 8)[: kind.dims], dtype=torch.float64)
    expected = model(images)
    fuse(model)
    assert type(model[0]).__name__ == kind.__name__.replace("Dcls", "Conv")
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_what_is_computed_learns_if_its_source_does(name, learns):
    elements = layer().requires_grad_(learns)
    parametrize.register_parametrization(elements, name, Halved())
    model = nn.Sequential(elements)
    fuse(model)
    assert model[0].weight.requires_grad == model[0].bias.requires_grad == learns
    assert isinstance(getattr(model[0], name), nn.Parameter)


def test_a_step_of_an_iteration_is_taken_once():
    """In training spectral_norm goes a step on whenever its weight is asked for."""
    elements = parametrizations.spectral_norm(layer())
    twin, model = deepcopy(elements), nn.Sequential(elements)
    report = fuse(model, positions="round")
    expected = twin.weight
    assert torch.equal(elements.parametrizations.weight[0]._u, twin.parametrizations.weight[0]._u)
    torch.testing.assert_close(model[0].weight.sum(), expected.sum())
    assert report.fused[0].difference > 0


# --- Delays ---


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
@pytest.mark.parametrize("kind", [SynapticDelays, AxonalDelays, DendriticDelays])
def test_delays(kind, interpolation):
    """Silence before the input, a tail after it; the delays of a neuron are those of its synapses."""
    first = kind(3, 5, 6, kernel_count=2, tail=2, bias=True, interpolation=interpolation)
    model = nn.Sequential(first, nn.ReLU(), kind(5, 2, 4, interpolation=interpolation)).double().eval()
    input = torch.randn(2, 3, 11, dtype=torch.float64)
    expected = model(input)
    with rounded_delays(model):
        whole = model(input)
    rounded = deepcopy(model)
    fuse(model)
    fuse(rounded, positions="round")
    assert not any("torchdcls" in type(module).__module__ for module in [*model.modules(), *rounded.modules()])
    torch.testing.assert_close(model(input), expected)
    torch.testing.assert_close(model(input[0]), expected[0])
    torch.testing.assert_close(rounded(input), whole)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (SynapticDelays(3, 3, 6, time_first=True), "1 of SynapticDelays, which has time_first=True; torch's"),
        (RecurrentDelays(AxonalDelays(3, 3, 6), lambda current, state: (current, state)), "1 of RecurrentDelays"),
    ],
)
def test_delays_that_no_layer_of_torch_has(layer, said):
    model = nn.Sequential(AxonalDelays(3, 3, 6), layer)
    with pytest.raises(ValueError, match=f"^model: expected layers that torch's layers can replace, got {said}"):
        fuse(model)
    assert isinstance(model[0], AxonalDelays)
    with pytest.raises(ValueError, match=r"got a RecurrentDelays, which feeds|which cannot be replaced in place"):
        fuse(layer)


class OwnDelays(AxonalDelays):
    def _leave(self, delayed):
        return super()._leave(delayed).relu()


def test_delays_that_compute_something_else():
    with pytest.raises(ValueError, match="got 0 of OwnDelays, which has a _leave of its own"):
        fuse(nn.Sequential(OwnDelays(3, 3, 6)))


# --- Subclasses ---


class Named(Dcls2d):
    """Made and printed in another way."""

    def __init__(self):
        super().__init__(4, 4, 3, dilated_kernel_size=7, padding=3, groups=4, dtype=torch.float64)

    def extra_repr(self):
        return "named"

    def reset_parameters(self):
        super().reset_parameters()
        self.weight.data.mul_(2)


class OwnForward(Named):
    def forward(self, input):
        return super().forward(input).relu()


class OwnKernel(Named):
    def kernel(self):
        return super().kernel() * 2


class OfOwnKernel(OwnKernel):
    """It inherits what is not this package's."""


@pytest.mark.parametrize("computed", [lambda layer: layer, parametrizations.weight_norm], ids=["plain", "weight_norm"])
def test_a_subclass_that_computes_the_same(computed):
    model = nn.Sequential(computed(Named()))
    expected = model(images := torch.randn(1, 4, 9, 9, dtype=torch.float64))
    fuse(model)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("computed", [lambda layer: layer, parametrizations.weight_norm], ids=["plain", "weight_norm"])
@pytest.mark.parametrize(("kind", "own"), [(OwnForward, "forward"), (OwnKernel, "kernel"), (OfOwnKernel, "kernel")])
def test_a_subclass_that_computes_something_else_is_named(kind, own, computed):
    model = nn.Sequential(layer(), nn.Sequential(computed(kind())))
    message = rf"^model: expected DCLS layers that .*, got 1\.0 of {kind.__name__}, which has a {own} of its own"
    with pytest.raises(ValueError, match=message):
        fuse(model)
    assert isinstance(model[0], Dcls2d)


def test_a_forward_put_in_the_place_of_a_layers():
    model = nn.Sequential(layer())
    model[0].forward = lambda input: input
    with pytest.raises(ValueError, match="got 0 of Dcls2d, which has a forward of its own"):
        fuse(model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_positions_that_cannot_be_rounded(value):
    model = nn.Sequential(Dcls1d(1, 1, 2, dilated_kernel_size=9))
    with torch.no_grad():
        model[0].position[..., 0] = value
    with pytest.raises(ValueError, match="position: expected finite positions in 0 to round"):
        fuse(model, positions="round")
    assert isinstance(model[0], Dcls1d)
