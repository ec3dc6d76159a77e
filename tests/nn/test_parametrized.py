"""What layers do whose elements are computed."""

import copy

import pytest
import torch
from computed import BY_HOOKS, PARAMETRIZED, Bounded, Halved, Shifted, by_hand
from torch import nn

from torchdcls import Dcls1d, Dcls2d, DclsTranspose2d, construct_kernel


def make_layer(kind=Dcls2d, **options):
    options = {"dilated_kernel_size": 7, "padding": 3, "groups": 4, "position_init": ("uniform", 3.0), **options}
    return kind(4, 4, 5, **options)


every_parametrization = pytest.mark.parametrize("computed", PARAMETRIZED.values(), ids=PARAMETRIZED)


@every_parametrization
def test_copies_and_states(computed):
    """A copy computes the same and learns by itself; a state goes into another layer of its kind."""
    layer, other, images = computed(make_layer()).eval(), computed(make_layer()).eval(), torch.randn(2, 4, 9, 9)
    expected = layer(images)
    twin = copy.deepcopy(layer)
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        for _ in range(2):  # the second time with the kernel that was kept
            torch.testing.assert_close(twin(images), expected)
            torch.testing.assert_close(other(images), expected)
        for parameter in twin.parameters():
            parameter += 0.125
        assert not torch.allclose(twin(images), expected)
        torch.testing.assert_close(layer(images), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("computed", (PARAMETRIZED | BY_HOOKS).values(), ids=PARAMETRIZED | BY_HOOKS)
def test_positions_keep_their_precision(computed, dtype):
    """All that position and sigma are computed from does; what weight and bias are does not."""
    model = nn.Sequential(computed(make_layer()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in model.to(dtype).state_dict().items():
        if "position" in name or "sigma" in name:
            assert torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype, name
        elif tensor.is_floating_point():
            assert tensor.dtype == dtype, name
    if computed is not PARAMETRIZED["orthogonal"]:  # which torch computes in float32 and float64 alone
        assert model(torch.randn(1, 4, 9, 9, dtype=dtype)).dtype == dtype
    model.double()
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float64}


def test_gradients_of_positions_keep_their_precision():
    layer = by_hand("position", Halved)(make_layer())
    layer(torch.randn(1, 4, 9, 9)).sum().backward()
    source = layer.parametrizations.position.original
    before = source.grad.clone()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.parametrizations.position.original.grad, before)
    assert layer.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "options", "low", "high"),
    [(Dcls1d, {}, -3, 3), (Dcls2d, {}, -3, 3), (DclsTranspose2d, {"dilated_kernel_size": 6}, -3, 2)],
)
def test_clamping_goes_through_the_inverse(kind, options, low, high):
    """The source is what computes clamped positions; and as it was where nothing is off the grid."""
    layer = by_hand("position", Halved)(make_layer(kind, **options))
    source = layer.parametrizations.position.original
    with torch.no_grad():
        source.normal_(std=12)
    expected = (source.detach() / 2).clamp(low, high)
    layer.clamp_position_()
    torch.testing.assert_close(layer.position, expected)
    torch.testing.assert_close(source, expected * 2)
    assert layer.parametrizations.position.original is source and source.is_leaf and source.requires_grad


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "computed", [by_hand("position", Shifted), BY_HOOKS["old weight_norm of position"], BY_HOOKS["pruned position"]]
)
def test_what_cannot_be_clamped(computed):
    """A sentence where positions are off the grid; nothing is to be done where they are not."""
    layer = computed(make_layer(position_init=("uniform", 1.0)))
    layer.clamp_position_()
    outside = computed(make_layer())
    with torch.no_grad():
        for source in outside.position_sources():
            source *= 10
    outside(torch.randn(1, 4, 9, 9))
    with pytest.raises(ValueError, match=r"^position: expected a parameter, or parametrizations with a right_inverse"):
        outside.clamp_position_()


def test_a_parametrization_that_keeps_to_the_grid_needs_no_clamping():
    layer = by_hand("position", Bounded)(make_layer())
    source = layer.parametrizations.position.original
    with torch.no_grad():
        source.normal_(std=30)
    before = source.detach().clone()
    layer.clamp_position_()
    assert torch.equal(source, before)


def test_what_a_layer_computes_is_that_of_its_elements():
    """Two parametrizations one after the other, by hand."""
    layer = by_hand("position", Halved)(by_hand("position", Bounded)(make_layer()))
    source = layer.parametrizations.position.original
    position = 3 * torch.tanh(source / 3) / 2
    expected = construct_kernel(layer.weight, position, layer.sigma, 7)
    torch.testing.assert_close(layer.kernel(), expected)
    layer.kernel().square().sum().backward()
    (gradient,) = torch.autograd.grad(expected.square().sum(), source)
    torch.testing.assert_close(source.grad, gradient)
