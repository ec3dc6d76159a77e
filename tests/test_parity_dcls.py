"""Parity with the PyPI package `DCLS` 0.1.1, its axis order translated: kernels, layers and every gradient.

Sizes are square and odd, where `DCLS` is right. Positions are on the grid.
"""

import logging

import pytest
import torch
from cases import answers, assert_equal_to_rounding, largest, make_elements, normal
from DCLS.construct import modules as theirs

import torchdcls
from torchdcls import construct_kernel

THEIR_NAMES = {"bilinear": "v1", "triangle": "max", "gaussian": "gauss"}
# Position axis d here is axis ORDER[d] there: they count from the last axis, v0 of three axes (depth, width, height).
REVERSED = {1: (0,), 2: (1, 0), 3: (2, 1, 0)}
V0_ORDER = {1: (0,), 2: (0, 1), 3: (0, 2, 1)}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def on_the_grid(spread, size, learned=None, margin=0.0):
    """Elements whose positions are on the grid, `margin` cells from its edges; half of them spread by a sigma."""
    elements = make_elements(spread, size, learned, channels=(3, 2), count=4)
    edge = torch.tensor([(size[axis] - 1) / 2 - margin for axis in elements.learned])
    edge = edge.view(-1, *(1,) * elements.weight.dim())
    leaves = {"position": elements.position.detach().clamp(-edge, edge).requires_grad_()}
    return elements.with_leaves(**leaves)


def their_kernel(make, elements, version, order, groups=1):
    """Their construction module's kernel of our elements, with our leaves."""
    outside, inside = elements.weight.shape[:2]
    module = make(outside, inside * groups, groups, elements.weight.shape[-1], version)

    def call():
        position = elements.position[list(order)]
        sigma = None if elements.sigma is None else elements.sigma[list(order)]
        return module(elements.weight, position, sigma)

    return answers(call, elements.leaves())


def constructor(dims, size):
    module = (theirs.ConstructKernel1d, theirs.ConstructKernel2d, theirs.ConstructKernel3d)[dims - 1]
    return lambda outside, inside, groups, count, version: module(outside, inside, groups, count, size, version)


def assert_equal_up_to_the_normaliser(actual, expected, spread, elements):
    """To rounding where the normalised profiles are the same.

    Their triangle falls from `scale` to 0 and ours from 1 to 0; the scale cancels in the normalised profile but for the
    1e-7 that is added to the mass, and makes that 1e-7 times the product of scales. Masses on the grid are at least 1.
    """
    if spread != "triangle":
        assert_equal_to_rounding(actual, expected)
        return
    scales = (1 + elements.sigma.detach().abs()).prod(0).max().item()
    # The answer's own share of the 1e-7, and for gradients those of the normaliser and of its derivative.
    bound = 3e-7 * scales * max(map(largest, expected.values()))
    for name, wanted in expected.items():
        assert largest(actual[name] - wanted) <= bound, name


@pytest.mark.parametrize("size", [(3,), (7,), (3, 3), (5, 5), (3, 3, 3), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("spread", THEIR_NAMES)
def test_kernel_and_every_gradient(spread, size):
    elements = on_the_grid(spread, size)
    expected = their_kernel(constructor(len(size), size), elements, THEIR_NAMES[spread], REVERSED[len(size)])
    assert_equal_up_to_the_normaliser(answers(elements.kernel, elements.leaves()), expected, spread, elements)


@pytest.mark.parametrize("size", [(5,), (5, 5), (5, 5, 5)], ids=str)
def test_triangle_that_starts(size):
    """At sigma 0 the two triangles are the same function, and differ only in whether sigma can leave 0."""
    elements = on_the_grid("triangle", size)
    elements = elements.with_leaves(sigma=torch.zeros_like(elements.position).requires_grad_())
    expected = their_kernel(constructor(len(size), size), elements, "max", REVERSED[len(size)])
    actual = answers(elements.kernel, elements.leaves())
    assert largest(expected.pop("sigma")) == 0
    assert largest(actual.pop("sigma")) > 0
    assert_equal_to_rounding(actual, expected)


@pytest.mark.parametrize("size", [(7,), (5, 5), (5, 5, 5)], ids=str)
def test_v0_is_bilinear_without_the_normaliser(size):
    """Where all of an element is on the grid its mass is 1, and the normaliser divides by 1 + 1e-7."""
    elements = on_the_grid("bilinear", size, margin=0.01)
    expected = their_kernel(constructor(len(size), size), elements, "v0", V0_ORDER[len(size)])
    actual = answers(lambda: elements.kernel() * (1 + 1e-7), elements.leaves())
    assert_equal_to_rounding(actual, expected)


@pytest.mark.parametrize("spread", THEIR_NAMES)
def test_dcls3_1d_is_learned_dims_of_the_last_axis(spread):
    elements = on_the_grid(spread, (2, 3, 5), (2,))

    def make(outside, inside, groups, count, version):
        return theirs.ConstructKernel3_1d(outside, inside, groups, count, (2, 3), (5,), version)

    expected = their_kernel(make, elements, THEIR_NAMES[spread], (0,))
    assert_equal_up_to_the_normaliser(answers(elements.kernel, elements.leaves()), expected, spread, elements)


@pytest.mark.parametrize("spread", THEIR_NAMES)
@pytest.mark.parametrize("flat_dim", [0, 1])
def test_dcls2d_k1d_is_learned_dims_with_a_flat_axis(spread, flat_dim):
    """A 2-D kernel of height or width 1."""
    learned = 1 - flat_dim
    size = (1, 5) if learned == 1 else (5, 1)
    flat = make_elements(spread, size, (learned,), channels=(4, 1), count=3)
    elements = flat.with_leaves(position=flat.position.detach().clamp(-2, 2).requires_grad_())
    # Their flat_dim names the axis that is not flat.
    layer = theirs.Dcls2dK1d(
        4, 4, 3, padding=2, dilated_kernel_size=5, groups=4, version=THEIR_NAMES[spread], flat_dim=learned
    )
    squeezed = {name: leaf.squeeze(-2).reshape(*leaf.shape[:-2], 3) for name, leaf in elements.leaves().items()}
    kernel = layer.DCK(squeezed["weight"], squeezed["position"], squeezed.get("sigma"))
    assert kernel.numel() == 4 * 5
    expected = {"output": kernel.reshape(4, 1, *size)}
    assert_equal_up_to_the_normaliser({"output": elements.kernel()}, expected, spread, elements)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("spread", THEIR_NAMES)
def test_layers_take_the_same_positional_arguments(spread, dims):
    """Changing the import is enough, and the name of the interpolation."""
    arguments = (4, 6, 3, 2, 2, 5, 2, True, "circular")
    ours = getattr(torchdcls, f"Dcls{dims}d")(*arguments, spread).double()
    other = getattr(theirs, f"Dcls{dims}d")(*arguments, THEIR_NAMES[spread]).double()
    order = list(REVERSED[dims])
    with torch.no_grad():
        other.weight.copy_(ours.weight)
        other.bias.copy_(ours.bias)
        other.P.copy_(ours.position[order])
        if ours.sigma is not None:
            other.SIG.copy_(ours.sigma[order])
    input = normal(2, 4, *(7,) * dims).detach()
    assert_equal_to_rounding({"output": ours(input)}, {"output": other(input)})


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_their_state_dict_has_our_shapes(dims):
    """`P` is `position` and `SIG` is `sigma`, axis for axis."""
    ours = getattr(torchdcls, f"Dcls{dims}d")(4, 6, 3, dilated_kernel_size=5, groups=2).state_dict()
    other = getattr(theirs, f"Dcls{dims}d")(4, 6, 3, dilated_kernel_size=5, groups=2).state_dict()
    renamed = {"weight": "weight", "position": "P", "sigma": "SIG", "bias": "bias"}
    assert {renamed[name]: tensor.shape for name, tensor in ours.items()} == {k: v.shape for k, v in other.items()}


def test_where_they_are_wrong():
    """On a non-square grid an element in the middle is not in the middle of theirs; it is in ours."""
    weight, position = torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1)
    middle = construct_kernel(weight, position, None, (5, 11), "bilinear")[0, 0]
    their_middle = constructor(2, (5, 11))(1, 1, 1, 1, "v1")(weight, position, None)[0, 0]
    assert middle.nonzero().tolist() == [[2, 5]]
    assert their_middle.nonzero().tolist() != [[2, 5]]


@pytest.mark.parametrize(("dims", "axis"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize(("version", "order"), [("v0", V0_ORDER), ("v1", REVERSED)])
def test_axis_orders_by_one_element(dims, axis, version, order):
    """An element one cell along axis d of ours is theirs with the axes in the order that these tests assume."""
    position = torch.zeros(dims, 1, 1, 1)
    position[axis] = 1
    cell = [3 if other == axis else 2 for other in range(dims)]
    module = constructor(dims, (5,) * dims)(1, 1, 1, 1, version)
    kernel = module(torch.ones(1, 1, 1), position[list(order[dims])], None)
    assert kernel[0, 0].nonzero().tolist() == [cell]
