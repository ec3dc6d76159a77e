"""Kernels made by Triton: the same tests on a GPU, or on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1)."""

import math

import pytest
import torch
from cases import answers, assert_as_exact_as

from tests.ops.test_separable import leaves_of, own, steps
from torchdcls import Dcls1d, Dcls2d
from torchdcls.ops import kernel
from torchdcls.ops.gpu import interpreted
from torchdcls.profiles import PROFILES

pytest.importorskip("triton")
if not (torch.cuda.is_available() or interpreted()):
    pytest.skip("neither a GPU nor Triton's interpreter (TRITON_INTERPRET=1)", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@pytest.fixture
def launched(monkeypatch):
    """Kernels that were made by Triton; on a CPU too, where nobody would choose it."""
    found = []

    def chosen(weight, sizes, profile):
        found.append(sizes)
        return True

    monkeypatch.setattr(kernel, "can_construct", chosen)
    monkeypatch.setattr(kernel, "can_fuse", lambda *elements: False)
    return found


def on(device, leaves, dtype=torch.float32):
    return {name: leaf.detach().to(device, dtype).requires_grad_() for name, leaf in leaves.items()}


def by_triton_and_by_steps(draws, sizes, profile):
    """Answers by Triton, by the steps and in float64, of all draws: of one, which comes out worse is chance."""
    found = [[], [], []]
    for exact in draws:
        plain, leaves = on("cpu", exact), on(DEVICE, exact)
        found[0].append(answers(lambda leaves=leaves: own(leaves, sizes, profile), leaves))
        found[1].append(answers(lambda plain=plain: steps(plain, sizes, profile), plain))
        found[2].append(answers(lambda exact=exact: steps(exact, sizes, profile), exact))
    return [{name: torch.stack([answer[name].cpu() for answer in several]) for name in several[0]} for several in found]


@every_profile
@pytest.mark.parametrize("sizes", [(5,), (17,), (33,), (4, 4), (3, 6), (17, 2), (1, 23), (20, 33)], ids=str)
@pytest.mark.parametrize("scales", [True, False], ids=["scales", "smallest scale"])
def test_kernels_and_gradients_are_those_of_the_steps(sizes, profile, scales, launched):
    draws = [leaves_of(sizes, scales, shape=(3, 1, 5), seed=seed) for seed in range(6)]
    assert_as_exact_as(*by_triton_and_by_steps(draws, sizes, profile))
    assert launched == [sizes, sizes] * len(draws)  # forward and backward


@every_profile
@pytest.mark.parametrize("sizes", [(1,), (1, 1)], ids=str)
def test_one_cell(sizes, profile, launched):
    """A place then matters by rounding alone, to which no share of it is exact."""
    exact = leaves_of(sizes)
    expected = answers(lambda: steps(exact, sizes, profile), exact)
    leaves = on(DEVICE, exact)
    for name, value in answers(lambda: own(leaves, sizes, profile), leaves).items():
        torch.testing.assert_close(value.cpu().double(), expected[name], rtol=1e-6, atol=1e-5)


@every_profile
@pytest.mark.parametrize("count", [1, 16, 26, 70])
def test_counts_and_axes_in_front(count, profile, launched):
    draws = [leaves_of((7, 5), shape=(2, 2, 3, count), seed=seed) for seed in range(6)]
    got, plain, exact = by_triton_and_by_steps(draws, (7, 5), profile)
    assert got["output"].shape[1:] == (2, 2, 3, 7, 5) and launched
    assert_as_exact_as(got, plain, exact)


@pytest.mark.parametrize("layer", [Dcls1d, Dcls2d])
@pytest.mark.parametrize("interpolation", PROFILES)
def test_layers_train_alike(layer, interpolation, launched, monkeypatch):
    """A layer's own parameters, sigma's sign among them; a scale that is infinite or a weight that is NaN shows."""
    made = layer(4, 4, 5, padding="same", dilated_kernel_size=9, groups=4, interpolation=interpolation).to(DEVICE)
    leaves = dict(made.named_parameters())
    del leaves["bias"]
    got = answers(made.kernel, leaves)
    assert launched
    monkeypatch.undo()
    made.double()
    exact = answers(made.kernel, {name: dict(made.named_parameters())[name] for name in leaves})
    for name, wanted in exact.items():
        torch.testing.assert_close(got[name].double(), wanted, rtol=1e-4, atol=1e-5)


@every_profile
@pytest.mark.parametrize("sizes", [(5,), (5, 4)], ids=str)
@pytest.mark.parametrize(
    ("name", "value"),
    [("sigma", math.inf), ("sigma", -math.inf), ("sigma", 3e38), ("position", 3e38), ("position", -3e38)],
)
def test_special_values_have_the_gradients_of_the_steps(name, value, sizes, profile, launched):
    """An infinite scale, and positions of which the distance over the scale would overflow."""
    exact = leaves_of(sizes)
    exact[name].data[..., 1] = value
    expected = answers(lambda: steps(exact, sizes, profile), exact)
    leaves = on(DEVICE, exact)
    for key, got in answers(lambda: own(leaves, sizes, profile), leaves).items():
        torch.testing.assert_close(got.cpu().double(), expected[key], rtol=1e-4, atol=1e-5)


@every_profile
def test_views_of_the_opposite_sign(launched, profile):
    leaves = on(DEVICE, leaves_of((4, 5)))
    views = {name: torch._neg_view(-leaf.detach()).requires_grad_() for name, leaf in leaves.items()}
    expected, found = own(leaves, (4, 5), profile), own(views, (4, 5), profile)
    assert torch.equal(found, expected)
    gradient = torch.randn_like(found)
    expected = torch.autograd.grad(expected, list(leaves.values()), gradient)
    found = torch.autograd.grad(found, list(views.values()), torch._neg_view(-gradient))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_what_is_not_a_number_stays_so(launched):
    leaves = on(DEVICE, leaves_of((5, 5)))
    for name in leaves:
        broken = {key: leaf.detach().clone() for key, leaf in leaves.items()}
        broken[name][..., 0, 0, 0] = float("nan")
        for profile in PROFILES.values():
            kernel = own(broken, (5, 5), profile)
            assert kernel[0].isnan().all() and not kernel[1].isnan().any(), name


def test_gradients_of_gradients_go_through_the_steps(launched):
    leaves = on(DEVICE, leaves_of((4, 5)))
    kernel = own(leaves, (4, 5), PROFILES["gaussian"])
    (slope,) = torch.autograd.grad(kernel.square().sum(), leaves["position"], create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), leaves["position"])
    exact = leaves_of((4, 5))
    (slope,) = torch.autograd.grad(
        steps(exact, (4, 5), PROFILES["gaussian"]).square().sum(), exact["position"], create_graph=True
    )
    (wanted,) = torch.autograd.grad(slope.sum(), exact["position"])
    torch.testing.assert_close(second.cpu().double(), wanted, rtol=1e-3, atol=1e-3)


def test_no_kernels_and_the_same_bits(launched):
    leaves = on(DEVICE, leaves_of((6, 7), shape=(0, 1, 3)))
    assert answers(lambda: own(leaves, (6, 7), PROFILES["triangle"]), leaves)["output"].shape == (0, 1, 6, 7)
    leaves = on(DEVICE, leaves_of((6, 7), shape=(4, 1, 9)))
    one, other = (answers(lambda: own(leaves, (6, 7), PROFILES["gaussian"]), leaves) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
