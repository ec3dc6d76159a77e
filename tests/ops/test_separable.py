"""The kernel's own gradients, against autograd through the steps that make it."""

import pytest
import torch
from cases import answers, assert_equal_to_rounding, cauchy, normal

from torchdcls import Profile
from torchdcls.ops import kernel, separable
from torchdcls.profiles import PROFILES

EVERY_PROFILE = {
    **PROFILES,
    "own": Profile(cauchy, 0.3, 0.2, "cauchy"),
    "own with slope": Profile(cauchy, 0.3, 0.2, "cauchy", lambda u, profile: -2 * u * profile**2),
}
every_profile = pytest.mark.parametrize("profile", EVERY_PROFILE.values(), ids=EVERY_PROFILE)
every_size = pytest.mark.parametrize(
    "sizes", [(1,), (5,), (4, 4), (3, 6), (7, 2), (1, 3), (3, 2, 4), (5, 3, 2), (2, 5, 5), (1, 1, 1)], ids=str
)


def leaves_of(sizes, scales=True, shape=(2, 1, 3), dtype=torch.float64, seed=0):
    """Elements on the grid, off the kinks of the triangle, with sigmas of both signs and scales of 1/2 cell or more."""
    draw = torch.Generator().manual_seed(seed)
    position = torch.rand(len(sizes), *shape, generator=draw, dtype=torch.float64)
    cells = torch.tensor(sizes).view(-1, *(1,) * len(shape))
    spread = torch.rand(position.shape, generator=draw, dtype=torch.float64)
    leaves = {
        "weight": normal(*shape, dtype=dtype, seed=seed),
        "position": (position * cells).floor() - cells // 2 + 0.3 + 0.1 * position,
        "sigma": torch.where(spread < 0.5, -0.25 - 5 * spread, 0.25 + 5 * (spread - 0.5)),
    }
    if not scales:
        del leaves["sigma"]
    return {name: leaf.detach().to(dtype).requires_grad_() for name, leaf in leaves.items()}


def own(leaves, sizes, profile):
    return kernel._Kernel.apply(leaves["weight"], leaves["position"], leaves.get("sigma"), sizes, profile, False)


def steps(leaves, sizes, profile):
    return separable.separable_kernel(leaves["weight"], leaves["position"], leaves.get("sigma"), sizes, profile)


@every_profile
@every_size
@pytest.mark.parametrize("scales", [True, False], ids=["scales", "smallest scale"])
def test_gradients_are_autograds_through_the_steps(sizes, profile, scales):
    leaves = leaves_of(sizes, scales)
    expected = answers(lambda: steps(leaves, sizes, profile), leaves)
    assert_equal_to_rounding(answers(lambda: own(leaves, sizes, profile), leaves), expected)


@every_profile
@pytest.mark.parametrize("wanted", ["weight", "position", "sigma"])
def test_one_gradient_alone(profile, wanted):
    leaves = {name: leaf.requires_grad_(name == wanted) for name, leaf in leaves_of((3, 4)).items()}
    only = {wanted: leaves[wanted]}
    expected = answers(lambda: steps(leaves, (3, 4), profile), only)
    assert_equal_to_rounding(answers(lambda: own(leaves, (3, 4), profile), only), expected)


@every_profile
@pytest.mark.parametrize("shape", [(3,), (4, 2), (2, 1, 3, 2)], ids=str)
def test_any_axes_in_front_of_the_elements(profile, shape):
    leaves = leaves_of((3, 4), shape=shape)
    expected = answers(lambda: steps(leaves, (3, 4), profile), leaves)
    assert expected["output"].shape == (*shape[:-1], 3, 4)
    assert_equal_to_rounding(answers(lambda: own(leaves, (3, 4), profile), leaves), expected)


def test_gradients_do_not_go_through_autograd(monkeypatch):
    """Once: forward. Only a gradient that is differentiated again goes through the steps."""
    calls = []
    made = separable.separable_kernel
    monkeypatch.setattr(separable, "separable_kernel", lambda *args: calls.append(args) or made(*args))
    leaves = leaves_of((3, 4))
    output = own(leaves, (3, 4), PROFILES["gaussian"])
    torch.autograd.grad(output.sum(), leaves.values(), retain_graph=True)
    assert len(calls) == 1
    torch.autograd.grad(output.sum(), leaves.values(), create_graph=True)
    assert len(calls) == 2


@every_profile
def test_the_gradient_for_a_second_derivative_is_the_same(profile):
    leaves = leaves_of((3, 4, 2))
    output = own(leaves, (3, 4, 2), profile)
    cotangent = normal(*output.shape).detach()
    plain = torch.autograd.grad(output, leaves.values(), cotangent, retain_graph=True)
    tracked = torch.autograd.grad(output, leaves.values(), cotangent, create_graph=True)
    for one, other in zip(plain, tracked, strict=True):
        assert other.requires_grad
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


@every_profile
@pytest.mark.parametrize("sizes", [(4,), (2, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("scales", [True, False], ids=["scales", "smallest scale"])
def test_gradcheck_and_gradgradcheck(sizes, profile, scales):
    leaves = leaves_of(sizes, scales, (1, 2))

    def call(*tensors):
        return own(dict(zip(leaves, tensors, strict=True)), sizes, profile)

    assert torch.autograd.gradcheck(call, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(call, tuple(leaves.values()))


def test_a_kernel_made_between_forward_and_backward_does_not_matter():
    """What backward reads is the elements, not what forward made on its way."""
    leaves, other = leaves_of((3, 4)), leaves_of((3, 4), shape=(3, 2, 4))
    expected = answers(lambda: steps(leaves, (3, 4), PROFILES["gaussian"]), leaves)

    def interrupted():
        output = own(leaves, (3, 4), PROFILES["gaussian"])
        own(other, (3, 4), PROFILES["gaussian"]).sum().backward()
        return output

    assert_equal_to_rounding(answers(interrupted, leaves), expected)


# Slopes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", PROFILES)
def test_slopes_are_autograds_derivatives(name, dtype):
    """At the kinks, too."""
    profile = PROFILES[name]
    u = torch.linspace(-3, 3, 241, dtype=dtype).requires_grad_()
    value = profile.function(u)
    (expected,) = torch.autograd.grad(value.sum(), u)
    slope = profile.slope(u.detach(), value.detach())
    assert slope.dtype == dtype
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(slope, expected, rtol=4 * unit, atol=0)


@pytest.mark.parametrize("name", PROFILES)
def test_slopes_leave_their_arguments_alone(name):
    profile = PROFILES[name]
    u = torch.linspace(-3, 3, 25, dtype=torch.float64)
    value = profile.function(u)
    before = u.clone(), value.clone()
    profile.slope(u, value)
    assert torch.equal(u, before[0])
    assert torch.equal(value, before[1])


def test_a_function_of_ones_own_is_asked_every_time():
    """It may depend on more than its argument."""
    heat = [1.0]
    profile = Profile(lambda u: torch.exp(-u * u / heat[0]), 0.3, 0.2, "annealed")
    leaves = leaves_of((3, 4))
    before = own(leaves, (3, 4), profile)
    heat[0] = 2.0
    after = own(leaves, (3, 4), profile)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, steps(leaves, (3, 4), profile))


# Kernels of many elements


@every_profile
@every_size
@pytest.mark.parametrize("scales", [True, False], ids=["scales", "smallest scale"])
def test_kernels_made_in_parts(sizes, profile, scales, monkeypatch):
    """Five rows, in parts of two."""
    leaves = leaves_of(sizes, scales, shape=(5, 2, 3))
    expected = answers(lambda: steps(leaves, sizes, profile), leaves)
    monkeypatch.setattr(separable, "PART_CELLS", 2 * 2 * 3 * max(sizes))
    parts = separable._parts(leaves["weight"], leaves["position"], leaves.get("sigma"), sizes)
    assert [len(weight) for weight, _, _ in parts] == [2, 2, 1]
    assert_equal_to_rounding(answers(lambda: own(leaves, sizes, profile), leaves), expected)


def test_an_element_alone_is_one_part():
    assert len(separable._parts(torch.ones(10**7), torch.ones(2, 10**7), None, (1, 1))) == 1
    assert len(separable._parts(torch.ones(0, 3, 2), torch.ones(1, 0, 3, 2), None, (5,))) == 1


@pytest.mark.parametrize("sizes", [(5,), (4, 5), (2, 3, 4)], ids=str)
def test_no_kernels_have_gradients(sizes):
    leaves = leaves_of(sizes, shape=(0, 2, 3))
    made = answers(lambda: own(leaves, sizes, PROFILES["gaussian"]), leaves)
    assert made["output"].shape == (0, 2, *sizes) and made["position"].shape == (len(sizes), 0, 2, 3)
