"""Kernel construction, against the oracle and against its mathematics."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import (
    COMPACT,
    SPECIAL_VALUES,
    SPECIAL_WEIGHTS,
    SPREADS,
    answers,
    assert_as_exact_as,
    assert_equal_to_rounding,
    cauchy,
    grid,
    make_elements,
    normal,
    raised_cosine,
    special_fault,
    with_special,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from torchdcls import Profile, construct_kernel
from torchdcls.ops.kernel import clamp_position_

every_spread = pytest.mark.parametrize("spread", SPREADS)

SIZES = [
    *[(1,), (2,), (5,), (6,), (11,)],
    *[(1, 1), (3, 3), (4, 4), (5, 2), (2, 7), (1, 6), (6, 1)],
    *[(3, 3, 3), (2, 3, 4), (4, 3, 2), (1, 5, 2), (7, 1, 3), (1, 1, 1)],
    *[(3, 2, 3, 4), (2, 1, 2, 1, 3)],
]
LEARNED = [
    ((3, 4), (0,)),
    ((3, 4), (1,)),
    ((2, 3, 5), (0,)),
    ((3, 4, 5), (1,)),
    ((3, 2, 5), (2,)),
    ((3, 4, 2), (0, 1)),
    ((5, 3, 4), (0, 2)),
    ((2, 3, 4), (1, 2)),
]


def kernel_answers(elements):
    return answers(elements.kernel, elements.leaves())


def oracle_answers(elements):
    return answers(elements.oracle, elements.leaves())


# The oracle


@every_spread
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_and_every_gradient_are_the_oracles(spread, size):
    elements = make_elements(spread, size)
    assert_equal_to_rounding(kernel_answers(elements), oracle_answers(elements))


@every_spread
@pytest.mark.parametrize(("size", "learned"), LEARNED, ids=str)
def test_dense_axes_are_the_oracles(spread, size, learned):
    elements = make_elements(spread, size, learned)
    assert_equal_to_rounding(kernel_answers(elements), oracle_answers(elements))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    spread=st.sampled_from(list(SPREADS)),
    size=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    count=st.integers(1, 4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_shape_is_the_oracles(spread, size, channels, count, seed, data):
    learned = data.draw(st.sets(st.sampled_from(range(len(size))), min_size=1))
    elements = make_elements(spread, size, sorted(learned), channels, count, seed=seed)
    assert_equal_to_rounding(kernel_answers(elements), oracle_answers(elements))


@every_spread
@pytest.mark.parametrize("size", [(23,), (17, 23), (5, 7, 6)], ids=str)
def test_float32_is_as_exact_as_the_plain_computation(spread, size):
    elements = make_elements(spread, size, count=5, dtype=torch.float32)
    truth = oracle_answers(elements.to(torch.float64))
    assert_as_exact_as(kernel_answers(elements), oracle_answers(elements), truth)


@every_spread
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_elements_far_off_the_grid_vanish_without_nan(spread, dims):
    """The 1e-7 of the normaliser: an element without mass on the grid is divided by it, not by 0."""
    elements = make_elements(spread, (4, 3, 2)[:dims])
    elements = elements.with_leaves(position=(elements.position * 0 + 1e3).detach().requires_grad_())
    assert_equal_to_rounding(kernel_answers(elements), oracle_answers(elements))
    if spread in ("bilinear", "triangle", "gaussian"):
        assert elements.kernel().count_nonzero() == 0


@every_spread
def test_the_normaliser_counts_what_falls_off_the_grid(spread):
    """Past the edge the mass shrinks towards the 1e-7, and the kernel shows how large that is."""
    elements = make_elements(spread, (3, 4))
    for distance in (0.9, 0.9999, 0.9999999):
        moved = elements.position.detach() * 0 + torch.tensor([1 + distance, 1 + distance])[:, None, None, None]
        edge = elements.with_leaves(position=moved.requires_grad_())
        torch.testing.assert_close(edge.kernel(), edge.oracle(), rtol=1e-7, atol=0)


@every_spread
def test_strides_of_the_arguments_do_not_matter(spread):
    elements = make_elements(spread, (4, 5), channels=(3, 2))
    scattered = {
        name: leaf.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for name, leaf in elements.leaves().items()
    }
    assert not any(leaf.is_contiguous() for leaf in scattered.values())
    scattered = elements.with_leaves(**scattered)
    assert_equal_to_rounding(kernel_answers(scattered), oracle_answers(elements))


@every_spread
@pytest.mark.parametrize("name", ["weight", "position", "sigma", "gradient"])
def test_views_of_the_opposite_sign(spread, name):
    """Such as the imaginary part of a conjugate: numbers that the memory holds with their signs changed."""
    elements = make_elements(spread, (3, 4))
    kernel, leaves = elements.kernel(), elements.leaves()
    plain = {**leaves, "gradient": normal(*kernel.shape)}
    if name in plain:
        shown = plain[name].detach()
        view = torch._neg_view(-shown)
        assert view.is_neg() and view.is_contiguous() and torch.equal(view, shown)
        changed = {**plain, name: view.requires_grad_()}
        made = elements.with_leaves(**{key: changed[key] for key in leaves}).kernel()
        expected = torch.autograd.grad(kernel, list(leaves.values()), plain["gradient"])
        found = torch.autograd.grad(made, [changed[key] for key in leaves], changed["gradient"])
        assert_equal_to_rounding(
            {"output": made, **dict(zip(leaves, found, strict=True))},
            {"output": kernel, **dict(zip(leaves, expected, strict=True))},
        )


@every_spread
@pytest.mark.parametrize("name", ["weight", "position", "sigma", "gradient"])
def test_zeros_without_memory(spread, name):
    elements = make_elements(spread, (3, 4))
    plain = {**elements.leaves(), "gradient": normal(*elements.kernel().shape)}
    if name in plain:
        shape = plain[name].shape
        made = []
        for zeros in (torch._efficientzerotensor(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)):
            given = {**plain, name: zeros.requires_grad_()}
            leaves = {key: given[key] for key in elements.leaves()}
            kernel = elements.with_leaves(**leaves).kernel()
            gradients = torch.autograd.grad(kernel, list(leaves.values()), given["gradient"])
            made.append({"output": kernel, **dict(zip(leaves, gradients, strict=True))})
        assert_equal_to_rounding(*made)


@pytest.mark.parametrize(("size", "learned"), [((4,), None), ((3, 5), None), ((3, 4, 5), (0, 2))], ids=str)
def test_the_kernel_is_contiguous(size, learned):
    assert make_elements("gaussian", size, learned).kernel().is_contiguous()


def test_one_size_serves_all_axes():
    elements = make_elements("gaussian", (4, 4, 4), (0, 2))
    kernel = construct_kernel(elements.weight, elements.position, elements.sigma, 4, "gaussian", learned_dims=[2, 0])
    assert torch.equal(kernel, elements.kernel())


# Derivatives


@every_spread
@pytest.mark.parametrize(("size", "learned"), [((4,), (0,)), ((2, 3), (0, 1)), ((2, 3, 2), (0, 1, 2)), ((3, 2), (1,))])
def test_gradcheck_and_gradgradcheck(spread, size, learned):
    elements = make_elements(spread, size, learned, channels=(1, 2), count=2)
    leaves = elements.leaves()

    def call(*tensors):
        return elements.with_leaves(**dict(zip(leaves, tensors, strict=True))).kernel()

    assert torch.autograd.gradcheck(call, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(call, tuple(leaves.values()))


@every_spread
def test_functional_transforms(spread):
    """grad, vmap of grad, forward mode and reverse mode agree with plain autograd."""
    elements = make_elements(spread, (3, 4))
    leaves = elements.leaves()
    detached = {name: leaf.detach() for name, leaf in leaves.items()}
    cotangent = normal(*elements.kernel().shape, seed=7).detach()

    def loss(leaves, cotangent):
        return (elements.with_leaves(**leaves).kernel() * cotangent).sum()

    expected = dict(zip(leaves, torch.autograd.grad(loss(leaves, cotangent), leaves.values()), strict=True))
    unit = torch.finfo(torch.float64).eps * 100
    torch.testing.assert_close(torch.func.grad(loss)(detached, cotangent), expected, rtol=unit, atol=unit)
    batched = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, torch.stack([cotangent, -cotangent]))
    twice = {name: torch.stack([value, -value]) for name, value in expected.items()}
    torch.testing.assert_close(batched, twice, rtol=unit, atol=unit)
    tangents = {name: normal(*leaf.shape, seed=9).detach() for name, leaf in leaves.items()}
    _, forward = torch.func.jvp(lambda leaves: loss(leaves, cotangent), (detached,), (tangents,))
    torch.testing.assert_close(
        forward, sum((expected[name] * tangents[name]).sum() for name in leaves), rtol=unit, atol=0
    )


@every_spread
@pytest.mark.parametrize("size", [(4,), (3, 4), (2, 3, 2), (2, 2, 2, 2)], ids=str)
def test_many_gradients_at_once(spread, size):
    """As `is_grads_batched=True` and torch.autograd.functional compute them, and torch.func.vmap."""
    elements = make_elements(spread, size)
    kernel, leaves = elements.kernel(), list(elements.leaves().values())

    def backward(gradient, **options):
        return torch.autograd.grad(kernel, leaves, gradient, retain_graph=True, **options)

    gradients = normal(3, *kernel.shape).detach()
    expected = list(map(torch.stack, zip(*map(backward, gradients), strict=True)))
    for again in (False, True):
        many = backward(gradients, is_grads_batched=True, create_graph=again)
        mapped = torch.func.vmap(lambda one, again=again: backward(one, create_graph=again))(gradients)
        for one, other, wanted in zip(many, mapped, expected, strict=True):
            assert one.requires_grad is again
            torch.testing.assert_close(one.detach(), wanted, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(other.detach(), wanted, rtol=1e-11, atol=1e-11)


def test_a_hessian_at_once():
    elements = make_elements("gaussian", (3, 4), channels=(1, 1), count=2)
    leaves = elements.leaves()

    def loss(*tensors):
        return elements.with_leaves(**dict(zip(leaves, tensors, strict=True))).kernel().square().sum()

    tensors = tuple(leaf.detach() for leaf in leaves.values())
    at_once, expected = (torch.autograd.functional.hessian(loss, tensors, vectorize=way) for way in (True, False))
    torch.testing.assert_close(at_once, expected, rtol=1e-11, atol=1e-11)


def test_sigma_of_the_triangle_leaves_its_start_at_zero():
    """One step of gradient descent changes sigma, and with it the kernel."""
    elements = make_elements("triangle", (5, 5))
    elements = elements.with_leaves(sigma=torch.zeros_like(elements.position).requires_grad_())
    before = elements.kernel()
    before.square().sum().backward()
    assert (elements.sigma.grad != 0).all()
    torch.optim.SGD([elements.sigma], lr=0.1).step()
    assert (elements.sigma != 0).all()
    assert not torch.allclose(elements.kernel(), before, rtol=1e-3)


# Mathematics


@every_spread
@pytest.mark.parametrize("size", [(7,), (6, 5), (3, 4, 5)], ids=str)
def test_sums_to_the_sum_of_weights(spread, size):
    """Up to the 1e-7 of the normaliser: the mass of these elements, all on the grid, is above a tenth."""
    elements = make_elements(spread, size)
    edge = torch.tensor([cells - 1 - cells // 2 for cells in size]).view(-1, 1, 1, 1)
    elements = elements.with_leaves(position=torch.minimum(elements.position, edge))
    kernel, weights = elements.kernel().flatten(2).sum(-1), elements.weight.sum(-1)
    assert (kernel - weights).abs().max() <= 1e-6 * elements.weight.abs().sum(-1).max()


@pytest.mark.parametrize("spread", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("axis", [0, 1])
def test_shifting_positions_by_a_cell_shifts_the_kernel(spread, axis):
    """For elements of which next to nothing reaches the edges."""
    elements = make_elements(spread, (17, 18), count=4)
    elements = elements.with_leaves(position=elements.position.detach() % 1)
    moved = elements.position.clone()
    moved[axis] += 1
    shifted = elements.with_leaves(position=moved).kernel()
    assert_equal_to_rounding({"output": shifted}, {"output": elements.kernel().roll(1, dims=2 + axis)})


@every_spread
def test_the_order_of_elements_does_not_matter(spread):
    elements = make_elements(spread, (4, 5), count=6)
    permuted = elements.with_leaves(**{name: leaf[..., [3, 1, 5, 0, 4, 2]] for name, leaf in elements.leaves().items()})
    assert_equal_to_rounding({"output": permuted.kernel()}, {"output": elements.kernel()})


@every_spread
def test_linear_in_the_weights(spread):
    elements = make_elements(spread, (4, 5))
    other = normal(*elements.weight.shape)
    mixed = elements.with_leaves(weight=3 * elements.weight - 2 * other).kernel()
    parts = 3 * elements.kernel() - 2 * elements.with_leaves(weight=other).kernel()
    assert_equal_to_rounding({"output": mixed}, {"output": parts})


@every_spread
def test_mirrored_positions_mirror_the_kernel(spread):
    """On a grid of odd size, which lies evenly around its origin."""
    elements = make_elements(spread, (5, 7))
    mirrored = elements.with_leaves(position=-elements.position).kernel()
    assert_equal_to_rounding({"output": mirrored}, {"output": elements.kernel().flip(2, 3)})


@every_spread
def test_swapped_axes_transpose_the_kernel(spread):
    elements = make_elements(spread, (4, 7))
    swapped = {name: leaf.flip(0) for name, leaf in elements.leaves().items() if name != "weight"}
    swapped = replace(elements, size=(7, 4)).with_leaves(**swapped).kernel()
    assert_equal_to_rounding({"output": swapped}, {"output": elements.kernel().transpose(2, 3)})


@every_spread
def test_the_sign_of_sigma_does_not_matter(spread):
    elements = make_elements(spread, (4, 5))
    if elements.sigma is not None:
        assert torch.equal(elements.with_leaves(sigma=-elements.sigma).kernel(), elements.kernel())


def test_position_axis_0_moves_along_rows():
    """In a non-square kernel of even height: (row, column) in torch's order from the origin (2, 3)."""
    weight = torch.ones(1, 1, 1)
    for row, column in grid((4, 7)):
        position = torch.tensor([row, column], dtype=torch.float32).view(2, 1, 1, 1)
        kernel = construct_kernel(weight, position, None, (4, 7), "bilinear")[0, 0]
        assert kernel.nonzero().tolist() == [[2 + row, 3 + column]]


def test_triangle_without_sigma_is_bilinear():
    elements = make_elements("triangle", (4, 5))
    flat = construct_kernel(elements.weight, elements.position, torch.zeros_like(elements.position), (4, 5), "triangle")
    assert torch.equal(flat, construct_kernel(elements.weight, elements.position, None, (4, 5), "bilinear"))


def test_log_of_a_gaussian_element_is_a_parabola():
    """Its curvature is -1 / scale^2 and its top lies at the position: scale 0.27 + |sigma|, origin 8 of 17."""
    weight = torch.ones(1, 1, 1, dtype=torch.float64)
    position, sigma = torch.full((1, 1, 1, 1), 1.25).double(), torch.full((1, 1, 1, 1), -1.5).double()
    log = construct_kernel(weight, position, sigma, 17, "gaussian").flatten().log()
    curvature = log.diff(n=2)
    torch.testing.assert_close(curvature, torch.full_like(curvature, -1 / 1.77**2), rtol=1e-12, atol=0)
    # A parabola rises by half the sum of its two slopes: zero where the cells lie evenly around the top.
    slope = (log[9] - log[7]) / 2
    torch.testing.assert_close(slope, torch.tensor(1.25 / 1.77**2, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_bilinear_elements_on_cells_are_torchs_dilated_convolution(dims):
    """Nine, or three, or 27 elements three cells apart are the taps of a kernel of size 3 with dilation 3."""
    taps = normal(2, 2, *(3,) * dims).detach()
    position = 3 * torch.tensor(grid((3,) * dims), dtype=torch.float64).T.view(dims, 1, 1, -1).expand(-1, 2, 2, -1)
    kernel = construct_kernel(taps.flatten(2), position, None, (7,) * dims, "bilinear")
    dilated = torch.zeros_like(kernel)
    dilated[(..., *(slice(None, None, 3),) * dims)] = taps
    torch.testing.assert_close(kernel * (1 + 1e-7), dilated, rtol=1e-15, atol=0)
    input = normal(1, 2, *(8,) * dims).detach()
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    output = {"output": convolve(input, kernel * (1 + 1e-7))}
    assert_equal_to_rounding(output, {"output": convolve(input, taps, dilation=3)})


def test_a_profile_of_the_users_own_is_as_good_as_a_name():
    elements = make_elements("bilinear", (4, 5))
    own = Profile(lambda u: torch.relu(1 - u.abs()), smallest_scale=1.0, start=None)
    kernel = construct_kernel(elements.weight, elements.position, None, (4, 5), own)
    assert_equal_to_rounding({"output": kernel}, {"output": elements.kernel()})


# Precision


def cast(elements, weight_dtype, position_dtype=torch.float32):
    leaves = {name: leaf.detach().to(position_dtype) for name, leaf in elements.leaves().items()}
    return elements.with_leaves(**{**leaves, "weight": elements.weight.detach().to(weight_dtype)})


def assert_one_rounding_from(kernel, elements):
    """Computed in float32 and rounded once: half a unit of the dtype, and the float32 computation's own error."""
    truth = elements.to(torch.float64).oracle()
    half_unit = torch.finfo(kernel.dtype).eps / 2
    slack = 64 * torch.finfo(torch.float32).eps * truth.abs().max()
    tiny = torch.finfo(kernel.dtype).smallest_normal * half_unit
    assert ((kernel.double() - truth).abs() <= half_unit * truth.abs() + slack + tiny).all()


@every_spread
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_are_rounded_once(spread, dtype):
    elements = cast(make_elements(spread, (23, 22), count=5), dtype)
    kernel = elements.kernel()
    assert kernel.dtype == dtype
    assert_one_rounding_from(kernel, elements)


@every_spread
def test_autocast_does_not_reach_the_construction(spread):
    """A position in bfloat16 would be off by up to a sixteenth of a cell at size 23; the kernel is far better."""
    elements = cast(make_elements(spread, (23, 23), count=5), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kernel = elements.kernel()
    truth = elements.to(torch.float64).oracle()
    rounded = cast(elements, torch.float32, torch.bfloat16).to(torch.float64)
    rounded = rounded.with_leaves(weight=elements.weight.double())
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel, elements.kernel())
    assert (kernel - truth).abs().max() < 1e-3 * (rounded.oracle() - truth).abs().max()


def test_float64_positions_are_not_rounded_to_float32_weights():
    elements = make_elements("gaussian", (23,))
    weight = elements.weight.detach().float()
    kernel = construct_kernel(weight, elements.position, elements.sigma, 23)
    truth = elements.with_leaves(weight=weight.double()).oracle()
    assert kernel.dtype == torch.float32
    single = torch.finfo(torch.float32)
    assert ((kernel - truth).abs() <= single.eps * truth.abs() + single.smallest_normal).all()


# Special values


@pytest.mark.parametrize("position", [0.1, 0.3, 0.4, 0.48, 0.495, 0.499])
def test_the_gradient_of_a_single_cell_is_what_the_normaliser_leaves(position):
    """Of one cell in its support an element has all: with epsilon 1e-7, f / (f + epsilon), whose slope nearly cancels.

    In float64 it is the formula by hand, epsilon f' / (f + epsilon)^2 times the slope of u. In float32 the two numbers
    that cancel, both f' / f, are rounded, and the relative error is f / epsilon rounding units: no fault of the
    profile, nor of the way in which gradients are made.
    """
    u = -position / 0.5
    value, slope = 0.5 * (1 + math.cos(math.pi * u)), -0.5 * math.pi * math.sin(math.pi * u)
    expected = {"position": -1e-7 * slope / 0.5 / (value + 1e-7) ** 2}
    expected["sigma"] = expected["position"] * u
    of_float32 = 4 * torch.finfo(torch.float32).eps * abs(slope) / 0.5 / value * max(1, 1e-7 / value**2)
    for dtype in (torch.float64, torch.float32):
        leaves = [torch.full((1, 1, 1, 1), number, dtype=dtype, requires_grad=True) for number in (position, 0.2)]
        kernel = construct_kernel(torch.ones(1, 1, 1, dtype=dtype), *leaves, 1, Profile(raised_cosine, 0.3, 0.2))
        for name, got in zip(expected, torch.autograd.grad(kernel.sum(), leaves), strict=True):
            tolerance = {"rel": 1e-8} if dtype == torch.float64 else {"abs": of_float32}
            assert got.item() == pytest.approx(expected[name], **tolerance)


@pytest.mark.parametrize(("size", "learned"), [((2, 2, 2), (0, 1, 2)), ((6, 3, 1), (2,)), ((3, 4), (0, 1))], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_profile_of_compact_support_is_as_exact_as_the_plain_computation(size, learned, seed):
    """Elements at the edge of their support among them, where cells come and go and little is left of a difference."""
    elements = make_elements("own", size, learned, channels=(8, 1), count=60, seed=seed).to(torch.float32)
    elements = replace(elements, spread=COMPACT)
    exact = oracle_answers(elements.to(torch.float64))
    assert_as_exact_as(kernel_answers(elements), oracle_answers(elements), exact)


@pytest.mark.parametrize("spread", [*SPREADS, "compact"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("what", ["weight", "position", "sigma", "both"])
def test_special_values_have_the_gradients_of_the_formula(spread, dims, what):
    """In float32, of one element among ordinary ones: where float64 has a finite number, it is that number."""
    elements = make_elements("own" if spread == "compact" else spread, (3, 2, 2)[:dims], channels=(1, 1))
    elements = replace(elements, spread={**SPREADS, "compact": COMPACT}[spread]).to(torch.float32)
    if what in ("weight", "position") or elements.sigma is not None:
        for name, value in (SPECIAL_WEIGHTS if what == "weight" else SPECIAL_VALUES).items():
            special = with_special(elements, ("position", "sigma") if what == "both" else (what,), value)
            assert special_fault(special)[0] is None, name


# Memory


class LargestStorage(TorchDispatchMode):
    """Notes the most elements that one operation's result holds in memory."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize(
    ("size", "learned", "count"),
    [
        ((23, 23), (0, 1), 26),
        ((17, 23), (0, 1), 34),
        ((9, 9, 9), (0, 1, 2), 20),
        ((3, 15, 5), (0, 1, 2), 26),
        ((5, 11, 11), (1, 2), 12),
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", ["bilinear", "gaussian"])
def test_no_tensor_of_kernel_size_times_kernel_count(spread, size, learned, count):
    """Forward and backward: nothing is larger than the kernel, the parameters, the factors of one axis, or the
    product of all axes' factors but the largest axis's."""
    elements = make_elements(spread, size, learned, channels=(4, 1), count=count, dtype=torch.float32)
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with LargestStorage() as largest:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            kernel = elements.kernel()
        kernel.square().sum().backward()

    learned_size = sorted(size[axis] for axis in learned)
    factors = elements.weight.numel() * max(learned_size[-1], math.prod(learned_size[:-1]))
    bound = max(kernel.numel(), elements.position.numel(), factors)
    assert bound < kernel.numel() * count / 2
    assert largest.numel <= bound
    # The kernel for its square, and the elements with one over their scale: factors are made again.
    assert sum(saved.values()) <= 4 * (kernel.numel() + elements.weight.numel() + 3 * elements.position.numel())


# Clamping


def test_clamping_reaches_every_cell_and_none_beyond():
    """Along an axis of size s the grid is [-(s // 2), s - 1 - s // 2], odd and even."""
    position = torch.linspace(-9, 9, 37).expand(3, 37).clone()
    result = clamp_position_(position, (5, 4, 1))
    assert result is position
    assert [(row.min().item(), row.max().item()) for row in position] == [(-2, 2), (-2, 1), (0, 0)]
    inside = torch.linspace(-9, 9, 37).abs() <= 1
    assert torch.equal(position[:2, inside], torch.linspace(-9, 9, 37)[inside].expand(2, -1))


def test_clamping_leaves_no_trace_in_autograd():
    position = torch.full((1, 3), 9.0, requires_grad=True)
    assert clamp_position_(position, [3]).is_leaf
    assert position.grad_fn is None


# Bad input

GOOD = {
    "weight": torch.zeros(2, 3, 4),
    "position": torch.zeros(2, 2, 3, 4),
    "sigma": torch.zeros(2, 2, 3, 4),
    "size": (5, 7),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 0}, r"size: expected at least 1, got 0"),
        ({"size": (5, 0)}, r"size\[1\]: expected at least 1, got 0"),
        ({"size": -3}, r"size: expected at least 1, got -3"),
        ({"size": math.nan}, r"size: expected an integer of at least 1, got nan"),
        ({"size": (math.nan, 5)}, r"size\[0\]: expected an integer of at least 1, got nan"),
        ({"size": 2.5}, r"size: expected an integer .*got 2\.5"),
        ({"size": True}, r"size: expected an integer .*got True"),
        ({"size": (5, True)}, r"size\[1\]: expected an integer .*got True"),
        ({"size": "57"}, r"size: expected an integer .*got '57'"),
        ({"size": None}, r"size: expected an integer .*got None"),
        ({"size": ()}, r"size: expected .*got \(\)"),
        ({"weight": torch.zeros(2, 3)}, r"weight: expected shape \(out_channels.*kernel_count\), got \(2, 3\)"),
        ({"weight": torch.zeros(4)}, r"weight: expected shape .*got \(4,\)"),
        ({"weight": torch.zeros(2, 3, 5, 4)}, r"weight: expected shape .*got \(2, 3, 5, 4\)"),
        ({"weight": torch.zeros(2, 3, 5)}, r"position: expected shape .* = \(2, 2, 3, 5\).* got \(2, 2, 3, 4\)"),
        ({"position": torch.zeros(3, 2, 3, 4)}, r"position: expected shape .* = \(2, 2, 3, 4\).* got \(3, 2, 3, 4\)"),
        ({"position": torch.tensor(0.0)}, r"position: expected shape .* = \(2, 2, 3, 4\).* got \(\)"),
        ({"sigma": torch.zeros(1, 2, 3, 4)}, r"sigma: expected the shape of position, \(2, .* got \(1, 2, 3, 4\)"),
        ({"sigma": None}, r"sigma: expected a tensor of shape \(2, 2, 3, 4\) for gaussian .*got None"),
        ({"interpolation": "bilinear"}, r"sigma: expected None, as bilinear interpolation has none, got a tensor"),
        ({"interpolation": "gauss"}, r"interpolation: .*got 'gauss' \(DCLS's 'gauss' is 'gaussian' here\)"),
        ({"interpolation": "cubic"}, r"interpolation: expected 'bilinear', .* got 'cubic'$"),
        ({"interpolation": cauchy}, r"interpolation: expected .*torchdcls.Profile, got <function cauchy"),
        ({"weight": torch.ones(1, 1, 4, dtype=torch.long)}, r"weight: expected a floating-point tensor, got .*int64"),
        ({"learned_dims": (0, 2)}, r"learned_dims: .* different spatial axes out of \(0, 1\).* got \(0, 2\)"),
        ({"learned_dims": ()}, r"learned_dims: expected a tuple of different spatial axes .*got \(\)"),
        ({"learned_dims": (1,)}, r"weight: expected shape \(out_channels, in_channels/groups, 5, kernel_count\)"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],  # the same in every process
)
def test_refuses(changed, message):
    construct_kernel(**GOOD)
    with pytest.raises(ValueError, match=message):
        construct_kernel(**{**GOOD, **changed})
