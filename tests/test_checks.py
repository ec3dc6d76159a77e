"""Every refusal names the argument, what was expected and what came."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import torchdcls
from torchdcls import _checks
from torchdcls.delays import SynapseTable
from torchdcls.deployment import export, load
from torchdcls.inspection import inspect_model, receptive_field


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3)])
def test_integer_takes_whole_numbers(value):
    assert _checks.integer("size", value, 1) == 3
    assert type(_checks.integer("size", value, 1)) is int


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf])
def test_integer_refuses_other_numbers(value):
    with pytest.raises(ValueError, match=r"^size: expected .*at least 1, got ") as error:
        _checks.integer("size", value, 1)
    assert str(error.value).endswith(repr(value))
    assert not isinstance(error.value, TypeError)


@pytest.mark.parametrize("value", [True, np.True_, "3", None, [3], 2j])
def test_integer_refuses_other_types(value):
    with pytest.raises(TypeError, match=r"^size: expected an integer of at least 1, got ") as error:
        _checks.integer("size", value, 1)
    assert str(error.value).endswith(repr(value))


def test_integers_are_one_for_all_or_one_an_axis():
    assert _checks.integers("stride", 2, 3, 1) == (2, 2, 2)
    assert _checks.integers("stride", [1, 2], 2, 1) == (1, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1, 2, 3), r"stride: expected one integer or 2 of them, one per axis, got \(1, 2, 3\)"),
        ((), r"stride: .* got \(\)"),
        ((1, 0), r"stride\[1\]: expected at least 1, got 0"),
        ((math.nan, 1), r"stride\[0\]: expected an integer of at least 1, got nan"),
    ],
)
def test_integers_refuse(value, message):
    with pytest.raises(ValueError, match=message):
        _checks.integers("stride", value, 2, 1)


def test_integers_refuse_text():
    with pytest.raises(TypeError, match=r"stride: expected an integer of at least 1, got 'ab'"):
        _checks.integers("stride", "ab", 2, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 4, 1), "in_channels: expected at least 1, got 0"),
        ((4, -4, 1), "out_channels: expected at least 1, got -4"),
        ((4, 4, 0), "groups: expected at least 1, got 0"),
        ((3, 4, 2), "in_channels: expected a multiple of groups=2, got 3"),
        ((4, 3, 2), "out_channels: expected a multiple of groups=2, got 3"),
    ],
)
def test_channels_refuse(given, message):
    with pytest.raises(ValueError, match=message):
        _checks.channels(given[2], in_channels=given[0], out_channels=given[1])


def test_axes_are_ascending():
    assert _checks.axes(None, 3) == (0, 1, 2)
    assert _checks.axes([2, 0], 3) == (0, 2)


@pytest.mark.parametrize("given", [(), (0, 0), (2,), (-1,), (0.5,), (math.nan,)])
def test_axes_refuse(given):
    with pytest.raises(ValueError, match="learned_dims: expected"):
        _checks.axes(given, 2)


@pytest.mark.parametrize("given", [(True,), "x", 0])
def test_axes_refuse_other_types(given):
    with pytest.raises(TypeError, match="learned_dims: expected"):
        _checks.axes(given, 2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gauss", "gaussian"), ("max", "triangle"), ("v0", "bilinear"), ("v1", "bilinear")],
)
def test_names_of_the_older_package_get_a_hint(name, hint):
    with pytest.raises(ValueError, match=rf"interpolation: .*got '{name}' \(DCLS's '{name}' is '{hint}' here\)"):
        _checks.profile(name)


@pytest.mark.parametrize(
    ("name", "error_type"),
    [("Gaussian", ValueError), ("", ValueError), (None, TypeError), (3, TypeError), (["gaussian"], TypeError)],
)
def test_unknown_interpolations_are_refused_without_a_hint(name, error_type):
    with pytest.raises(error_type, match=r"interpolation: expected 'bilinear', 'triangle', 'gaussian'") as error:
        _checks.profile(name)
    assert str(error.value).endswith(f"got {name!r}")


_SIZES = {"dilated_kernel_size": 5, "kernel_count": 3}
_MODEL_TAKERS = {
    "convert": lambda model: torchdcls.convert(model, **_SIZES),
    "fuse": torchdcls.fuse,
    "param_groups": lambda model: torchdcls.param_groups(model, 1e-3, 0.05),
    "clamp_positions_": torchdcls.clamp_positions_,
    "repulsion_loss": torchdcls.repulsion_loss,
    "parameter_count": torchdcls.conversion.parameter_count,
    "inspect_model": lambda model: inspect_model(model, torch.zeros(1, 3, 8, 8)),
    "receptive_field": lambda model: receptive_field(model, torch.zeros(1, 3, 8, 8)),
    "export": lambda model: export(model, "model.onnx", to="onnx", example=torch.zeros(1, 3, 8, 8)),
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("resnet50", "got 'resnet50'; make the model first, for example by timm.create_model"),
        ([nn.ReLU()], "got list; put the modules into a torch.nn.ModuleList"),
        (np.zeros(3), "got numpy.ndarray"),
        (nn.ReLU, "got type"),
        (None, "got None"),
    ],
)
@pytest.mark.parametrize("function", _MODEL_TAKERS)
def test_what_takes_a_model_says_that_it_got_none(function, value, message):
    with pytest.raises(TypeError, match=r"^model: ") as error:
        _MODEL_TAKERS[function](value)
    assert str(error.value) == f"model: expected a torch.nn.Module, {message}"


_ELEMENTS = (torch.ones(4, 1, 3), torch.zeros(2, 4, 1, 3), torch.ones(2, 4, 1, 3))
_WEIGHT = torch.ones(4, 4, 3)
_TENSOR_TAKERS = {
    "construct_kernel": ("weight", lambda x: torchdcls.construct_kernel(x, *_ELEMENTS[1:], 5)),
    "construct_kernel, sigma": ("sigma", lambda x: torchdcls.construct_kernel(*_ELEMENTS[:2], x, 5)),
    "dcls_conv2d": ("input", lambda x: torchdcls.dcls_conv2d(x, *_ELEMENTS, dilated_kernel_size=5, groups=4)),
    "dcls_conv_transpose2d": (
        "input",
        lambda x: torchdcls.dcls_conv_transpose2d(x, *_ELEMENTS, dilated_kernel_size=5, groups=4),
    ),
    "large_kernel_conv2d": ("input", lambda x: torchdcls.large_kernel_conv2d(x, torch.ones(4, 1, 3, 3), groups=4)),
    "large_kernel_conv2d, weight": ("weight", lambda x: torchdcls.large_kernel_conv2d(torch.ones(1, 4, 8, 8), x)),
    "large_kernel_conv1d, bias": ("bias", lambda x: torchdcls.large_kernel_conv1d(torch.ones(1, 4, 8), _WEIGHT, x)),
    "large_kernel_conv_transpose1d": ("input", lambda x: torchdcls.large_kernel_conv_transpose1d(x, _WEIGHT)),
    "Dcls2d": ("input", torchdcls.Dcls2d(4, 4, 3, dilated_kernel_size=5)),
    "Dcls2d, circular": ("input", torchdcls.Dcls2d(4, 4, 3, padding=2, dilated_kernel_size=5, padding_mode="circular")),
    "DclsTranspose1d": ("input", torchdcls.DclsTranspose1d(4, 4, 3, dilated_kernel_size=5)),
    "receptive_field": ("inputs", lambda x: receptive_field(nn.ReLU(), x)),
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((1, 4, 8, 8), np.float32), "got numpy.ndarray; torch.from_numpy makes a tensor of it"),
        ([[1.0]], "got list"),
        ("image.png", "got 'image.png'"),
    ],
)
@pytest.mark.parametrize("function", _TENSOR_TAKERS)
def test_what_takes_a_tensor_says_that_it_got_none(function, value, message):
    name, call = _TENSOR_TAKERS[function]
    with pytest.raises(TypeError, match=f"^{name}: ") as error:
        call(value)
    assert str(error.value) == f"{name}: expected a torch.Tensor, {message}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torchdcls.to_official(nn.ReLU()), r"state_dict: expected model.state_dict\(\), got .*ReLU"),
        (lambda: torchdcls.load_official(["a"]), "path_or_url: expected a file or an address, got list"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, dtype="float32"), "dtype: expected a floating-point dtype, got 'float32'"),
        (lambda: torchdcls.param_groups(nn.ReLU(), "1e-3", 0.05), "lr: expected a number, got '1e-3'"),
        (lambda: torchdcls.fuse(nn.ReLU(), tolerance=None), "tolerance: expected a number, got None"),
        (lambda: torchdcls.convert(nn.ReLU(), weight_std=[1], **_SIZES), "weight_std: expected a number, got list"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, position_init=0.5), "position_init: expected .*, got 0.5"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, bias=None), "bias: expected True or False, got None"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, device=[0]), r"device: expected a torch.device or the name .*, got \[0\]"),
        (
            lambda: torchdcls.Dcls1d(1, 1, 1, sigma_init=torch.ones(2)),
            "sigma_init: expected a number, got torch.Tensor",
        ),
        (lambda: torchdcls.Dcls1d(1, 1, 1, stride=b"1"), "stride: expected an integer of at least 1, got b'1'"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, padding={0: 1}), "padding: expected an integer of at least 0, got {0: 1}"),
        (lambda: torchdcls.Dcls1d(1, 1, 1, learned_dims=b"0"), "learned_dims: expected a tuple .*, got b'0'"),
        (lambda: torchdcls.DclsTranspose1d(1, 1, 1, padding_mode=0), "padding_mode: expected one of 'zeros', got 0"),
        (
            lambda: torchdcls.convert(nn.ReLU(), where="conv", **_SIZES),
            r"where: expected a function of \(name, module\)",
        ),
        (lambda: load(3), "path: expected the name of a file, got 3"),
        (lambda: export(nn.ReLU(), None, to="safetensors"), "path: expected the name of a file, got None"),
        (lambda: SynapseTable.load(["a.csv"]), "path: expected the name of a file, got list"),
        (
            lambda: inspect_model(nn.ReLU(), torch.ones(1), dilated_kernel_size=None),
            "dilated_kernel_size: expected a size or a list of them, got None",
        ),
        (
            lambda: inspect_model(nn.ReLU(), torch.ones(1), interpolation=3),
            "interpolation: expected 'bilinear', .*, got 3",
        ),
        (lambda: torchdcls.explain_method(3, (4, 1, 3, 3)), "input_shape: expected the sizes of all axes, .*, got 3"),
        (
            lambda: torchdcls.explain_method((1, 4, 9), (4, 4, 3), dtype="half"),
            "dtype: expected a torch.dtype, got 'half'",
        ),
        (
            lambda: torchdcls.explain_method((1, 4, 9), (4, 4, 3), device=1.5),
            "device: expected a torch.device .*, got 1.5",
        ),
        (
            lambda: torchdcls.explain_method((1, 4, 9), (4, 4, 3), padding="same", transposed=True),
            "padding: expected an",
        ),
        (lambda: torchdcls.explain_method((1, 4, 9), (4, 4, 3), training="yes"), "training: expected True or False"),
        (lambda: torchdcls.Profile("relu", 1.0, None), "function: expected a function, got 'relu'"),
        (lambda: torchdcls.Profile(torch.relu, "1", None), "smallest_scale: expected a number, got '1'"),
        (lambda: torchdcls.Profile(torch.relu, 1.0, True), "start: expected a number, got True"),
        (lambda: torchdcls.Profile(torch.relu, 1.0, None, name=3), "name: expected text, got 3"),
        (lambda: torchdcls.Profile(torch.relu, 1.0, None, slope=0.5), "slope: expected a function, got 0.5"),
        (
            lambda: torchdcls.Profile(torch.relu, 1.0, None, device_form=1),
            "device_form: expected 'triangle', .*, got 1",
        ),
    ],
)
def test_other_arguments_of_another_type(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: receptive_field(nn.ReLU()), "inputs: expected the model's arguments"),
    ],
)
def test_no_first_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("convnex", ["convnext", "test_convnext", "convnext_tiny"], "did you mean 'convnext'?"),
        (
            "convnex",
            ["resnet50", "convnext_tiny_in22k", "convnext_tiny", "convnext_base", "test_convnext"],
            "did you mean 'convnext_tiny', 'convnext_base' or 'convnext_tiny_in22k'?",
        ),
        ("--seed", ["--methods", "--seeds", "--help"], "did you mean '--seeds'?"),
        ("--quik", ["--quick", "--model"], "did you mean '--quick'?"),
        ("Gausian", ["bilinear", "triangle", "gaussian"], "did you mean 'gaussian'?"),
        ("--learning_rate", ["--lr", "--label-smoothing"], "did you mean '--lr'?"),
        ("foo", ["train", "eval", "info"], "no name is similar"),
        ("", ["train"], "no name is similar"),
        ("x", [], "no name is similar"),
    ],
)
def test_the_nearest_words(word, known, hint):
    assert _checks.nearest(word, known) == hint


@pytest.mark.parametrize(
    ("value", "end", "error_type"),
    [
        ("onxx", "got 'onxx'; did you mean 'onnx'?", ValueError),
        ("xyz", "got 'xyz'", ValueError),
        (None, "got None", TypeError),
    ],
)
def test_a_choice_that_is_nearly_right(value, end, error_type):
    with pytest.raises(error_type, match=r"^to: expected one of") as error:
        _checks.one_of("to", value, ("onnx", "pt2"))
    assert str(error.value) == f"to: expected one of 'onnx', 'pt2', {end}"
