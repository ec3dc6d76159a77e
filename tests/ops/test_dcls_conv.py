"""Convolution with elements: the whole way from weight, position and sigma to the output, against the oracle."""

import itertools
import math
from functools import cache, partial

import pytest
import torch
from cases import (
    CPU_METHODS,
    SPREADS,
    answers,
    assert_as_exact_as,
    assert_equal_to_rounding,
    make_elements,
    normal,
    oracle_convolution,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from torchdcls import dcls_conv1d, dcls_conv2d, dcls_conv3d

DCLS_CONVOLUTIONS = {1: dcls_conv1d, 2: dcls_conv2d, 3: dcls_conv3d}
every_method = pytest.mark.parametrize("method", CPU_METHODS)
every_spread = pytest.mark.parametrize("spread", SPREADS)

# name: map, kernel size, learned axes, padding, stride, (in, out, groups)
CALLS = {
    "delays": ((9,), (6,), (0,), "same", 1, (2, 3, 1)),
    "1d-strided": ((11,), (5,), (0,), 2, 2, (2, 2, 2)),
    "depthwise": ((6, 5), (5, 5), (0, 1), 2, 1, (3, 3, 3)),
    "non-square": ((6, 7), (3, 6), (0, 1), "same", 1, (4, 4, 2)),
    "multiplier": ((4, 5), (2, 4), (0, 1), (1, 2), 1, (2, 4, 2)),
    "small-map": ((2, 1), (7, 5), (0, 1), "same", 1, (2, 2, 1)),
    "2d-strided": ((7, 6), (5, 3), (0, 1), (2, 1), (2, 3), (2, 2, 2)),
    "rows-dense": ((5, 6), (3, 5), (1,), "same", 1, (2, 2, 2)),
    "3d": ((3, 4, 3), (3, 2, 3), (0, 1, 2), 1, 1, (2, 2, 2)),
    "3d-dense": ((3, 4, 5), (2, 3, 4), (0, 2), "same", 1, (2, 2, 1)),
}


def make_call(spread, name, dtype=torch.float64, seed=0):
    """The leaves of a call, and the call by the package and by the oracle."""
    map, size, learned, padding, stride, (inside, outside, groups) = CALLS[name]
    elements = make_elements(spread, size, learned, (outside, inside // groups), dtype=dtype, seed=seed)
    input, bias = normal(2, inside, *map, seed=seed + 3, dtype=dtype), normal(outside, seed=seed + 4, dtype=dtype)

    def package(elements, input, bias, method):
        return DCLS_CONVOLUTIONS[len(size)](
            input,
            elements.weight,
            elements.position,
            elements.sigma,
            bias,
            stride,
            padding,
            size,
            groups,
            elements.spread.interpolation,
            learned_dims=learned,
            method=method,
        )

    def oracle(elements, input, bias):
        return oracle_convolution(input, elements.oracle(), bias, stride, padding, groups)

    return elements, {**elements.leaves(), "input": input, "bias": bias}, package, oracle


@cache  # the methods of one call share it
def expected(spread, name):
    """The oracle's answers."""
    elements, leaves, _, oracle = make_call(spread, name)
    return answers(lambda: oracle(elements, leaves["input"], leaves["bias"]), leaves)


def cannot_run(name, method):
    *_, stride, channels = CALLS[name]
    return (method == "fft" and stride != 1) or (method == "native" and len(set(channels)) > 1)


@every_method
@pytest.mark.parametrize("name", CALLS)
@every_spread
def test_output_and_every_gradient_are_the_oracles(spread, name, method):
    elements, leaves, package, _ = make_call(spread, name)
    input, bias = leaves["input"], leaves["bias"]
    if cannot_run(name, method):
        with pytest.raises(ValueError, match=rf"method: '{method}' cannot run this call: .*(stride|channels)"):
            package(elements, input, bias, method)
        return
    assert_equal_to_rounding(answers(lambda: package(elements, input, bias, method), leaves), expected(spread, name))


@pytest.mark.parametrize(
    ("name", "method"),
    [pair for pair in itertools.product(("depthwise", "non-square", "3d"), CPU_METHODS) if not cannot_run(*pair)],
)
def test_float32_is_as_exact_as_the_plain_computation(name, method):
    def by_package(seed):
        elements, leaves, package, _ = make_call("gaussian", name, torch.float32, seed)
        return answers(lambda: package(elements, leaves["input"], leaves["bias"], method), leaves)

    assert_as_exact_as(of_several_draws(by_package), *in_both_precisions(name))


def of_several_draws(call):
    """Of one draw, which computation comes out worse is chance."""
    draws = [call(seed) for seed in range(8)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


@cache
def in_both_precisions(name):
    """The plain computation's answers in float32, and those of the same numbers in float64."""

    def by_oracle(seed, dtype):
        elements, leaves, _, oracle = make_call("gaussian", name, torch.float32, seed)
        leaves = {key: leaf.detach().to(dtype).requires_grad_() for key, leaf in leaves.items()}
        elements = elements.with_leaves(**{key: leaves[key] for key in elements.leaves()})
        return answers(lambda: oracle(elements, leaves["input"], leaves["bias"]), leaves)

    return tuple(of_several_draws(partial(by_oracle, dtype=dtype)) for dtype in (torch.float32, torch.float64))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    spread=st.sampled_from(list(SPREADS)),
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=3),
    groups=st.integers(1, 2),
    method=st.sampled_from(CPU_METHODS),
    seed=st.integers(0, 99),
)
def test_any_sizes_are_the_oracles(spread, sizes, groups, method, seed):
    map, size = zip(*sizes, strict=True)
    elements = make_elements(spread, size, channels=(2, 1 if method == "native" else 2), seed=seed)
    groups = 2 if method == "native" else groups
    input = normal(1, elements.weight.shape[1] * groups, *map)
    leaves = {**elements.leaves(), "input": input}
    convolve = DCLS_CONVOLUTIONS[len(size)]
    options = {"padding": "same", "dilated_kernel_size": size, "groups": groups}

    def package():
        return convolve(
            input, *elements_of(elements), **options, interpolation=elements.spread.interpolation, method=method
        )

    expected = answers(lambda: oracle_convolution(input, elements.oracle(), padding="same", groups=groups), leaves)
    assert_equal_to_rounding(answers(package, leaves), expected)


def elements_of(elements):
    return elements.weight, elements.position, elements.sigma


@pytest.mark.parametrize("method", ["direct", "fft"])
@every_spread
def test_gradcheck_and_gradgradcheck(spread, method):
    """By random projections; the kernel's and the convolution's own tests check every entry."""
    elements = make_elements(spread, (3, 2), channels=(2, 1), count=2)
    leaves = {**elements.leaves(), "input": normal(1, 2, 2, 3), "bias": normal(2)}

    def call(*tensors):
        given = dict(zip(leaves, tensors, strict=True))
        input, bias = given.pop("input"), given.pop("bias")
        options = {"padding": "same", "dilated_kernel_size": (3, 2), "groups": 2, "method": method}
        made = elements_of(elements.with_leaves(**given))
        return dcls_conv2d(input, *made, bias, **options, interpolation=elements.spread.interpolation)

    assert torch.autograd.gradcheck(call, tuple(leaves.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, tuple(leaves.values()), fast_mode=True)


@pytest.mark.parametrize("batch", [(), (0,), (1,)], ids=str)
def test_without_batch_and_with_an_empty_one(batch):
    elements = make_elements("gaussian", (3, 4), channels=(2, 2))
    input = normal(*batch, 2, 5, 6)
    leaves = {**elements.leaves(), "input": input}
    expected = answers(lambda: oracle_convolution(input, elements.oracle(), padding="same"), leaves)
    actual = answers(
        lambda: dcls_conv2d(input, *elements_of(elements), padding="same", dilated_kernel_size=(3, 4)), leaves
    )
    assert_equal_to_rounding(actual, expected)


def test_learned_dims_come_in_any_order():
    elements = make_elements("gaussian", (3, 4, 2), (0, 2))
    input, made = normal(1, 2, 4, 5, 3), elements_of(elements)
    one, other = (dcls_conv3d(input, *made, dilated_kernel_size=(3, 4, 2), learned_dims=x) for x in ((0, 2), [2, 0]))
    assert torch.equal(one, other)


def good_call(dims=2, **changed):
    elements = {
        "weight": torch.zeros(4, 1, 3),
        "position": torch.zeros(dims, 4, 1, 3),
        "sigma": torch.zeros(dims, 4, 1, 3),
    }
    call = {"input": torch.zeros(2, 4, *(6,) * dims), **elements, "dilated_kernel_size": 5, "groups": 4, **changed}
    return DCLS_CONVOLUTIONS[dims](**call)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dilated_kernel_size": 0}, r"dilated_kernel_size: expected at least 1, got 0"),
        ({"dilated_kernel_size": math.nan}, r"dilated_kernel_size: expected an integer .*got nan"),
        ({"dilated_kernel_size": (5, 5, 5, 5)}, r"dilated_kernel_size: expected one integer or .* got \(5, 5, 5, 5\)"),
        ({"dilated_kernel_size": 7}, r"input: expected a map of at least 7 along axis 0"),
        ({"sigma": None}, r"sigma: expected a tensor of shape .* got None"),
        (
            {"position": torch.zeros(4, 4, 1, 3)},
            r"position: expected shape .* = \([123], 4, 1, 3\).*got \(4, 4, 1, 3\)",
        ),
        ({"interpolation": "max"}, r"interpolation: .*'max' is 'triangle' here"),
        ({"input": torch.zeros(4)}, r"input: expected [345] axes .* got shape \(4,\)"),
        ({"groups": 3}, r"expected a multiple of groups=3 output channels"),
        ({"bias": torch.zeros(5)}, r"bias: expected shape \(4,\), got \(5,\)"),
        ({"stride": 2, "padding": "same"}, r"padding: expected numbers with stride \(2,"),
        ({"padding": "reflect"}, r"padding: expected one of 'same', 'valid', got 'reflect'"),
        ({"method": "fft", "stride": 2}, r"method: 'fft' cannot run this call: .*stride"),
        ({"learned_dims": (3,)}, r"learned_dims: expected a tuple of different spatial axes .* got \(3,\)"),
    ],
)
def test_refuses(dims, changed, message):
    good_call(dims)
    with pytest.raises(ValueError, match=message):
        good_call(dims, **changed)
