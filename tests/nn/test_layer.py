"""What every layer has: settings that can be assigned, states that know what they are of, arguments with hints."""

import copy
import inspect
import io

import pytest
import torch
from cases import SPREADS, cauchy, normal
from torch import nn
from torch.optim.swa_utils import AveragedModel

from torchdcls import (
    Dcls1d,
    Dcls2d,
    Dcls3d,
    DclsTranspose1d,
    DclsTranspose2d,
    DclsTranspose3d,
    Profile,
    construct_kernel,
)

LAYERS = {1: Dcls1d, 2: Dcls2d, 3: Dcls3d}
TRANSPOSED = {1: DclsTranspose1d, 2: DclsTranspose2d, 3: DclsTranspose3d}
every_dimension = pytest.mark.parametrize("dims", LAYERS)

# Settings given to a layer that is made


SETTABLE = {
    "stride": 2,
    "padding": 1,
    "padding_mode": "circular",
    "method": "fft",
    "interpolation": "triangle",
    "dilated_kernel_size": 7,
    "position_init": ("uniform", 2.0),
    "kernel_count": 3,
    "groups": 2,
    "learned_dims": None,
}


@every_dimension
@pytest.mark.parametrize("name", SETTABLE)
def test_a_setting_assigned_later_is_as_one_given(dims, name):
    """The layer prints and computes as one that was made with it."""
    given = {"kernel_count": 3, "padding": 3, "dilated_kernel_size": 5, "groups": 2, "interpolation": "gaussian"}
    layer = LAYERS[dims](4, 4, **given, dtype=torch.float64)
    other = LAYERS[dims](4, 4, **{**given, name: SETTABLE[name]}, dtype=torch.float64)
    other.load_state_dict(dict(layer.state_dict()))  # without what tells one layer from another
    setattr(layer, name, SETTABLE[name])
    assert repr(layer) == repr(other)
    assert getattr(layer, name) == getattr(other, name)
    input = normal(2, 4, *(7, 6, 5)[:dims])
    assert torch.equal(layer(input), other(input))


def test_a_profile_assigned_later_is_as_one_given():
    layer = Dcls2d(2, 2, 3, dilated_kernel_size=5)
    layer.interpolation = Profile(cauchy, 0.3, 0.2, "cauchy")
    assert "interpolation=cauchy" in repr(layer)
    elements = layer.weight, layer.position, layer.sigma
    assert torch.equal(layer.kernel(), construct_kernel(*elements, 5, SPREADS["own"].interpolation))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "interpolation",
            "bilinear",
            r"interpolation: expected one with sigma, as 'gaussian', .* got 'bilinear'",
        ),
        ("interpolation", "max", r"interpolation: .* got 'max' \(DCLS's 'max' is 'triangle' here\)"),
        ("version", "max", r"version: expected interpolation='triangle', got version='max'"),
        ("version", None, r"version: expected interpolation, got version=None"),
        ("dilation", 2, r"dilation: expected no such argument: positions replace it.* got dilation=2"),
        ("kernel_size", 7, r"kernel_size: expected kernel_count.* dilated_kernel_size.* got kernel_size=7"),
        (
            "in_channels",
            8,
            r"in_channels: expected 4, for which the layer has its parameters, got 8; make",
        ),
        ("out_channels", 8, r"out_channels: expected 4, .* got 8"),
        ("groups", 4, r"groups: expected 2, .* got 4"),
        ("kernel_count", 4, r"kernel_count: expected 3, .* got 4"),
        ("kernel_count", 0, r"kernel_count: expected at least 1, got 0"),
        ("learned_dims", None, r"learned_dims: expected \(1,\), .* got \(0, 1\)"),
        (
            "dilated_kernel_size",
            7,
            r"dilated_kernel_size: expected \(5, 6\) along the axes other than \(1,\), .*",
        ),
        ("dilated_kernel_size", (5, 1), r"dilated_kernel_size: expected more than 1 along a learned axis"),
        ("dilated_kernel_size", 2.5, r"dilated_kernel_size: expected an integer .*got 2\.5"),
        ("stride", 0, r"stride: expected at least 1, got 0"),
        ("stride", 2, r"padding: expected numbers with stride \(2, 2\), as 'same' needs stride 1"),
        ("padding", -1, r"padding: expected at least 0, got -1"),
        ("padding", "full", r"padding: expected one of 'same', 'valid', got 'full'"),
        ("padding_mode", "wrap", r"padding_mode: expected one of .* got 'wrap'"),
        ("method", "winograd", r"method: expected one of 'auto', .* got 'winograd'"),
        ("position_init", 3, r"position_init: .* got 3"),
    ],
    ids=str,
)
def test_refuses_settings_of_a_layer_that_is_made(name, value, message):
    layer = Dcls2d(4, 4, 3, padding="same", dilated_kernel_size=(5, 6), groups=2, learned_dims=(1,))
    before = repr(layer)
    with pytest.raises(ValueError, match=message):
        setattr(layer, name, value)
    assert repr(layer) == before
    layer.dilated_kernel_size = (5, 9)  # the axis that has no parameters of its own
    assert layer.kernel().shape == (4, 2, 5, 9)


def test_sigma_does_not_come_later():
    layer = Dcls2d(2, 2, 3, dilated_kernel_size=5, interpolation="bilinear")
    with pytest.raises(ValueError, match=r"interpolation: expected one without sigma, as 'bilinear', .*'triangle'"):
        layer.interpolation = "triangle"


# State dicts of other layers


def other_layers():
    return nn.Sequential(
        nn.ReLU(),
        Dcls2d(2, 2, 3, dilated_kernel_size=7, interpolation="triangle"),
        Dcls2d(2, 2, 3, dilated_kernel_size=5, interpolation="gaussian"),
    )


def by_torch_save(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("through", [by_torch_save, copy.deepcopy, lambda state: state])
@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}], ids=str)
def test_the_state_of_another_layer_is_refused(through, options):
    """Shapes are the same and kernels are not: the message names the layer, what was saved, and what the layer is."""
    saved = nn.Sequential(nn.ReLU(), Dcls2d(2, 2, 3, dilated_kernel_size=5), Dcls2d(2, 2, 3, dilated_kernel_size=5))
    model = other_layers()
    before = model[1].weight.detach().clone()
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(through(saved.state_dict()), **options)
    assert (
        "1: expected the state of a layer as this one (7x7 triangle, axes (0, 1)), got one of another "
        "(5x5 gaussian, axes (0, 1)); make the layer with the arguments of the saved one"
    ) in str(error.value)
    assert "2: " not in str(error.value)
    assert torch.equal(model[1].weight, before)


def test_the_state_of_another_layer_is_refused_through_an_average():
    saved = AveragedModel(nn.Sequential(Dcls2d(2, 2, 3, dilated_kernel_size=5)))
    other = AveragedModel(nn.Sequential(Dcls2d(2, 2, 3, dilated_kernel_size=9)))
    state = by_torch_save(saved.state_dict())
    with pytest.raises(RuntimeError, match=r"module\.0: expected .* \(9x9 gaussian.* \(5x5 gaussian"):
        other.load_state_dict(state)
    same = AveragedModel(nn.Sequential(Dcls2d(2, 2, 3, dilated_kernel_size=5)))
    same.load_state_dict(state)
    assert torch.equal(same.module[0].position, saved.module[0].position)


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}], ids=str)
def test_states_that_do_not_say_what_they_are_of_are_taken(options):
    """Those from before it was said, and whatever holds tensors alone, such as safetensors."""
    saved, model = other_layers(), other_layers()
    state = dict(saved.state_dict())
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    model.load_state_dict(state, **options)
    assert torch.equal(model[1].position, saved[1].position)
    older = saved.state_dict()
    for metadata in older._metadata.values():
        metadata.pop("dcls kernel", None)
    model.load_state_dict(older, **options)


def test_the_state_of_a_layer_itself_names_its_kind():
    with pytest.raises(RuntimeError, match=r"Dcls1d: expected .*\(9 gaussian, axes \(0,\)\), .*\(5 gau"):
        Dcls1d(2, 2, 3, dilated_kernel_size=9).load_state_dict(Dcls1d(2, 2, 3, dilated_kernel_size=5).state_dict())


@pytest.mark.parametrize("layer", [*LAYERS.values(), *TRANSPOSED.values()])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilation": 1}, r"^dilation: expected no such argument: positions replace it, .* got dilation=1$"),
        ({"version": "max"}, r"^version: expected interpolation='triangle', got version='max'$"),
        ({"version": "v3"}, r"^version: expected interpolation, got version='v3'$"),
        ({"kernel_size": 7}, r"^kernel_size: expected kernel_count, the number of elements, .* got kernel_size=7$"),
        ({"strid": 7}, r"unexpected keyword argument 'strid'$"),
    ],
    ids=str,
)
def test_arguments_of_torch_and_of_dcls_have_a_hint(layer, arguments, message):
    """And the signature, which `help` shows, has none of them."""
    with pytest.raises(TypeError, match=message):
        layer(4, 4, 3, dilated_kernel_size=5, **arguments)
    assert list(inspect.signature(layer).parameters)[:4] == ["in_channels", "out_channels", "kernel_count", "stride"]
    assert not inspect.signature(layer).parameters.keys() & arguments.keys()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Dcls2d(32, 32, 7, 1, 3, groups=32),
        lambda: Dcls2d(32, 32, 7, 1, 3, 1, 32),  # torch's dilation and groups
        lambda: Dcls2d(4, 4, 2, dilated_kernel_size=(31, 1), learned_dims=(1,)),
        lambda: DclsTranspose2d(8, 4, 2, 2),
        lambda: Dcls1d(4, 4, 3),
        lambda: Dcls3d(4, 4, 3),
    ],
)
def test_more_than_one_element_has_somewhere_to_sit(call):
    with pytest.raises(ValueError, match=r"^dilated_kernel_size: expected more than 1 along a learned axis, got \(.*1"):
        call()


def test_sizes_of_one_that_mean_something():
    assert Dcls2d(4, 4, 1).kernel().shape == (4, 4, 1, 1)
    assert Dcls2d(4, 4, 3, dilated_kernel_size=(1, 9)).kernel().shape == (4, 4, 1, 9)
    assert Dcls2d(4, 4, 3, dilated_kernel_size=(1, 9), learned_dims=(1,)).kernel().shape == (4, 4, 1, 9)


@every_dimension
@pytest.mark.parametrize(
    "dtype",
    [torch.complex64, torch.complex128, torch.int64, torch.bool, torch.float8_e4m3fn, "float32"],
    ids=str,
)
def test_refuses_dtypes(dims, dtype):
    message = rf"^dtype: expected a floating-point dtype, got {dtype!r}; torch.float32, .* are supported$"
    for layer in (LAYERS[dims], TRANSPOSED[dims]):
        with pytest.raises(ValueError, match=message):
            layer(4, 4, 3, dilated_kernel_size=5, dtype=dtype)
