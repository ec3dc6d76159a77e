"""Every refusal names the argument, what was expected and what came."""

import math

import numpy as np
import pytest

from torchdcls import _checks


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3)])
def test_integer_takes_whole_numbers(value):
    assert _checks.integer("size", value, 1) == 3
    assert type(_checks.integer("size", value, 1)) is int


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf, True, np.True_, "3", None, [3], 2j])
def test_integer_refuses_the_rest(value):
    with pytest.raises(ValueError, match=r"^size: expected .*at least 1, got ") as error:
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
        ("ab", r"stride: expected an integer of at least 1, got 'ab'"),
    ],
)
def test_integers_refuse(value, message):
    with pytest.raises(ValueError, match=message):
        _checks.integers("stride", value, 2, 1)


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
        _checks.channels(*given)


def test_axes_are_ascending():
    assert _checks.axes(None, 3) == (0, 1, 2)
    assert _checks.axes([2, 0], 3) == (0, 2)


@pytest.mark.parametrize("given", [(), (0, 0), (2,), (-1,), (0.5,), (True,), (math.nan,), "x", 0])
def test_axes_refuse(given):
    with pytest.raises(ValueError, match="learned_dims: expected"):
        _checks.axes(given, 2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gauss", "gaussian"), ("max", "triangle"), ("v0", "bilinear"), ("v1", "bilinear")],
)
def test_names_of_the_older_package_get_a_hint(name, hint):
    with pytest.raises(ValueError, match=rf"interpolation: .*got '{name}' \(DCLS's '{name}' is '{hint}' here\)"):
        _checks.profile(name)


@pytest.mark.parametrize("name", ["Gaussian", "", None, 3, ["gaussian"]])
def test_unknown_interpolations_are_refused_without_a_hint(name):
    with pytest.raises(ValueError, match=r"interpolation: expected 'bilinear', 'triangle', 'gaussian'") as error:
        _checks.profile(name)
    assert str(error.value).endswith(f"got {name!r}")
