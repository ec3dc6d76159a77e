"""Where positions, weights and sigmas start."""

import math
import warnings

import pytest
import torch

from torchdcls import Dcls1d, Dcls2d, Dcls3d, DclsTranspose2d
from torchdcls.nn.init import check_position_init, position_start_


def test_normal_positions_have_the_width_that_was_asked_for():
    """The paper's 0.5 unless told otherwise; 40,000 draws know their width to 1 %."""
    for width, given in ((0.5, {}), (2.0, {"position_init": ("normal", 2.0)})):
        position = Dcls1d(100, 100, 4, dilated_kernel_size=99, **given).position.detach()
        assert position.mean().abs() < 0.02 * width
        assert abs(position.std() / width - 1) < 0.02
        assert (position.abs() > 2 * width).any()


def test_uniform_positions_fill_their_radius():
    position = Dcls2d(64, 64, 5, dilated_kernel_size=(15, 14), position_init=("uniform", 3)).position.detach()
    assert position.abs().max() <= 3
    for axis in (0, 1):
        counts = position[axis].histc(bins=6, min=-3, max=3)
        assert (counts / counts.mean() - 1).abs().max() < 0.1


def test_a_width_of_zero_puts_every_element_in_the_middle():
    for name in ("normal", "uniform"):
        assert Dcls1d(2, 2, 3, dilated_kernel_size=9, position_init=(name, 0)).position.count_nonzero() == 0


def test_positions_given_as_a_tensor():
    given = torch.rand(2, 4, 1, 3, dtype=torch.float64) - 0.5
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4, position_init=given)
    assert torch.equal(layer.position, given.float())
    with torch.no_grad():
        layer.position += 1
    assert (given.abs() <= 0.5).all()


def test_positions_given_as_a_tensor_broadcast():
    """One element a tap: three along the row, for all channels."""
    given = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]).view(2, 1, 1, 3)
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4, position_init=given)
    assert torch.equal(layer.position, given.expand(2, 4, 1, 3))


def test_positions_given_as_a_tensor_are_clamped_too():
    layer = Dcls1d(1, 1, 2, dilated_kernel_size=4, position_init=torch.tensor([-9.0, 9.0]))
    assert layer.position.flatten().tolist() == [-2, 1]


@pytest.mark.parametrize("size", [1, 2, 5, 8, (3, 8), (1, 7)], ids=str)
def test_positions_start_on_the_grid_up_to_its_edges(size):
    """Along an axis of size s the grid is [-(s // 2), s - 1 - s // 2]."""
    count = 1 if size == 1 else 8  # more than one have nowhere to go
    layer = Dcls2d(16, 16, count, dilated_kernel_size=size, position_init=("uniform", 100.0))
    for axis, cells in enumerate(layer.dilated_kernel_size):
        position = layer.position[axis]
        assert (position.min().item(), position.max().item()) == (-(cells // 2), cells - 1 - cells // 2)


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: Dcls1d(40, 60, 5, dilated_kernel_size=9), 40 * 5),
        (lambda: Dcls2d(40, 60, 5, dilated_kernel_size=9, groups=4), 10 * 5),
        (lambda: Dcls3d(8, 60, 5, dilated_kernel_size=(3, 4, 5), learned_dims=(2,)), 8 * 3 * 4 * 5),
    ],
)
def test_weight_and_bias_start_as_torchs(make, fan_in):
    """Uniform within 1 / sqrt(fan-in), elements being the taps; sigma at the profile's start."""
    layer, bound = make(), 1 / math.sqrt(fan_in)
    for parameter in (layer.weight, layer.bias):
        assert 0.9 * bound < parameter.abs().max() <= bound
    assert abs(layer.weight.std() / (bound / math.sqrt(3)) - 1) < 0.05
    assert (layer.sigma == 0.23).all()


def test_every_parameter_is_written():
    """Memory is NaN until it is written; without `reset_parameters` a layer is NaN all over, and with it nowhere."""

    class Unwritten(Dcls2d):
        def reset_parameters(self):
            pass

    arguments = {"in_channels": 2, "out_channels": 2, "kernel_count": 3, "dilated_kernel_size": 5}
    assert all(parameter.isnan().all() for parameter in Unwritten(**arguments).parameters())
    assert not any(parameter.isnan().any() for parameter in Dcls2d(**arguments).parameters())


def test_reset_parameters_draws_anew():
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=7)
    torch.manual_seed(3)
    layer.reset_parameters()
    first = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(9)
    torch.manual_seed(3)
    layer.reset_parameters()
    assert all(torch.equal(tensor, first[name]) for name, tensor in layer.state_dict().items())


def test_starting_leaves_no_trace_in_autograd():
    position = torch.zeros(2, 3, requires_grad=True)
    for start in (("normal", 1.0), ("uniform", 1.0), torch.ones(3, requires_grad=True)):
        assert position_start_(position, start) is position
        assert position.is_leaf


@pytest.mark.parametrize(
    "given",
    [
        "normal",
        None,
        0.5,
        ("normal",),
        ("normal", 0.5, 1),
        ("beta", 0.5),
        ("normal", -0.5),
        ("normal", math.nan),
        ("uniform", math.inf),
        ("uniform", "3"),
    ],
    ids=str,
)
def test_refuses(given):
    for call in (check_position_init, lambda start: Dcls1d(1, 1, 1, position_init=start)):
        with pytest.raises(ValueError, match=r"position_init: expected \('normal', standard deviation\)") as error:
            call(given)
        assert str(error.value).endswith(f"got {given!r}")


def test_warns_of_a_radius_beyond_the_kernel():
    """Of axes of several sizes the largest counts; half the size reaches both edges."""
    message = r"position_init: expected a radius of at most half the kernel size, 8.5 cells, got 20; positions beyond"
    with pytest.warns(UserWarning, match=message):
        Dcls2d(1, 1, 2, dilated_kernel_size=(17, 5), position_init=("uniform", 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Dcls2d(1, 1, 2, dilated_kernel_size=(17, 5), position_init=("uniform", 8.5))
        Dcls2d(1, 1, 2, dilated_kernel_size=5, position_init=("normal", 20))


def test_refuses_a_tensor_that_does_not_broadcast():
    with pytest.raises(ValueError, match=r"position_init: expected .* broadcasts to \(1, 2, 2, 3\), got shape \(4,\)"):
        Dcls1d(2, 2, 3, dilated_kernel_size=5, position_init=torch.zeros(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_positions_that_are_no_numbers(value):
    with pytest.raises(ValueError, match="position_init: expected finite positions"):
        check_position_init(torch.tensor([0.0, value]))


@pytest.mark.parametrize("make", [Dcls1d, Dcls2d, Dcls3d, DclsTranspose2d])
def test_sigmas_start_where_they_are_asked_to(make):
    layer = make(2, 2, 3, dilated_kernel_size=5, sigma_init=2.5)
    assert (layer.sigma == 2.5).all() and layer.sigma.shape == layer.position.shape
    layer.sigma_init = 0
    layer.reset_parameters()
    assert layer.sigma.count_nonzero() == 0
    assert (make(2, 2, 3, dilated_kernel_size=5).sigma == 0.23).all()


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_sigmas_cannot_start_below_0(value):
    with pytest.raises(ValueError, match=r"^sigma_init: expected a finite number of at least 0, got"):
        Dcls1d(2, 2, 3, dilated_kernel_size=5, sigma_init=value)


def test_a_start_of_sigmas_needs_sigmas():
    with pytest.raises(ValueError, match=r"^sigma_init: expected None, as bilinear interpolation has no sigma"):
        Dcls1d(2, 2, 3, dilated_kernel_size=5, interpolation="bilinear", sigma_init=1)
    with pytest.raises(TypeError, match=r"^sigma_init: expected a number, got 'wide'"):
        Dcls1d(2, 2, 3, dilated_kernel_size=5, sigma_init="wide")
