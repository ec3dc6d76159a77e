"""Profiles are pure functions of a distance over a scale."""

import math
import pickle

import pytest
import torch
from cases import SPREADS, cauchy

from torchdcls import Profile
from torchdcls.profiles import INTERPOLATIONS, PROFILES, gaussian, triangle

U = torch.linspace(-3, 3, 241, dtype=torch.float64)


@pytest.mark.parametrize("function", [triangle, gaussian])
def test_is_one_at_the_element_even_and_falling(function):
    assert function(torch.zeros(1)).item() == 1
    assert torch.equal(function(U), function(-U))
    right = function(U[U >= 0])
    assert (right.diff() <= 0).all()
    assert (right >= 0).all()


def test_triangle_by_hand():
    """1 - |u| within one scale, 0 from there on."""
    assert triangle(torch.tensor([-1.0, -0.75, 0.0, 0.25, 1.0, 1.5])).tolist() == [0, 0.25, 1, 0.75, 0, 0]


def test_gaussian_by_hand():
    """The scale is the standard deviation."""
    expected = [math.exp(-u * u / 2) for u in U.tolist()]
    torch.testing.assert_close(gaussian(U), torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", ["bilinear", "triangle", "gaussian"])
def test_published_constants(name):
    profile, spread = PROFILES[name], SPREADS[name]
    assert (profile.name, profile.smallest_scale, profile.start) == (name, spread.smallest_scale, spread.start)
    torch.testing.assert_close(profile.function(U), spread.function(U), rtol=1e-15, atol=1e-16)


def test_every_profile_has_its_name_in_the_type():
    assert tuple(PROFILES) == INTERPOLATIONS


def test_device_forms_are_of_the_functions_that_device_code_computes():
    forms = {"triangle": triangle, "gaussian": gaussian}
    assert {profile.function for profile in PROFILES.values() if profile.device_form is not None} == set(forms.values())
    for profile in PROFILES.values():
        assert profile.device_form is None or profile.function is forms[profile.device_form]


def test_refuses_a_device_form_that_there_is_not():
    with pytest.raises(ValueError, match="device_form: expected 'triangle', 'gaussian' or None, got 'cauchy'"):
        Profile(cauchy, smallest_scale=0.3, start=None, device_form="cauchy")


def test_scale_is_the_smallest_scale_plus_the_size_of_sigma():
    profile = Profile(cauchy, smallest_scale=0.3, start=0.2)
    sigma = torch.tensor([-2.0, -0.5, 0.0, 0.5], dtype=torch.float64)
    assert torch.equal(profile.scale(sigma), 0.3 + sigma.abs())


def test_scale_has_slope_one_where_sigma_starts_at_zero():
    """`abs` has slope 0 there, which would keep a sigma of 0 at 0 for ever."""
    sigma = torch.tensor([-0.5, -0.0, 0.0, 0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(PROFILES["triangle"].scale(sigma).sum(), sigma)
    assert slope.tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_refuses_a_smallest_scale_that_is_not_positive(value):
    with pytest.raises(ValueError, match=rf"smallest_scale: expected a positive finite number, got {value}"):
        Profile(cauchy, smallest_scale=value, start=None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_a_start_that_is_not_finite(value):
    with pytest.raises(ValueError, match=rf"start: expected a finite number or None, got {value}"):
        Profile(cauchy, smallest_scale=1.0, start=value)


def test_profiles_are_values():
    """Frozen, comparable, and picklable with a module-level function."""
    profile = Profile(cauchy, 0.3, 0.2, "cauchy")
    assert pickle.loads(pickle.dumps(profile)) == profile
    with pytest.raises(AttributeError):
        profile.start = 1.0
