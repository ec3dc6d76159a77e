"""The compiled kernels as a method: sizes at the edges of vectors, threads, processes, and what torch sees of them."""

import multiprocessing
import os
import threading

import pytest
import torch
import torch.nn.functional as F
from cases import answers, assert_as_exact_as, needs_kernels, normal

from torchdcls import large_kernel_conv, large_kernel_conv2d
from torchdcls.ops.conv import native, select
from torchdcls.ops.conv.methods import named
from torchdcls.ops.conv.posing import pose

pytestmark = needs_kernels
CHANNELS = (1, 3, 15, 16, 17, 33)
SIZES = {
    "1-D": ((101,), (31,), 15),
    "long": ((5003,), (7,), 3),
    "prime": ((13, 11), (7, 5), (3, 2)),
    "larger than the map": ((7, 7), (23, 23), 11),
    "thin": ((41, 3), (37, 1), (18, 0)),
    "one tap": ((5, 4), (1, 1), 0),
    "3-D": ((5, 7, 6), (3, 5, 5), (1, 2, 2)),
}


@pytest.fixture(params=native.ALGORITHMS)
def algorithm(request, monkeypatch):
    """Each algorithm in turn, as if it were the faster one."""
    monkeypatch.setattr(native, "algorithm", lambda *_: request.param)


def leaves_of(channels, map, kernel, dtype=torch.float64, last=False, batch=2):
    input = normal(batch, channels, *map, seed=1).detach().to(dtype)
    if last:
        input = input.movedim(1, -1).contiguous().movedim(-1, 1)
    weight, bias = normal(channels, 1, *kernel, seed=2), normal(channels, seed=3)
    return {
        "input": input.requires_grad_(),
        **{n: t.detach().to(dtype).requires_grad_() for n, t in (("weight", weight), ("bias", bias))},
    }


def answered_by(method, leaves, padding):
    options = {"padding": padding, "groups": len(leaves["bias"]), "method": method}
    return answers(lambda: large_kernel_conv(**leaves, **options), leaves)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", SIZES)
def test_is_as_exact_as_torchs_in_float32(algorithm, size, channels, last):
    """At most twice the error of direct, for channels that fill vectors and for those that do not."""
    map, kernel, padding = SIZES[size]
    leaves = leaves_of(channels, map, kernel, torch.float32, last)
    truth = answered_by("direct", leaves_of(channels, map, kernel), padding)
    assert_as_exact_as(answered_by("native", leaves, padding), answered_by("direct", leaves, padding), truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", ["prime", "1-D"])
def test_half_precision_is_summed_in_float32(algorithm, size, dtype):
    map, kernel, padding = SIZES[size]
    leaves = leaves_of(5, map, kernel, dtype)
    truth = answered_by(
        "direct", {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}, padding
    )
    made = answered_by("native", leaves, padding)
    for name in ("output", "input", "weight"):
        assert made[name].dtype == dtype
        error = (made[name].double() - truth[name]).abs().max() / truth[name].abs().max()
        assert error <= torch.finfo(dtype).eps, name


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_results_do_not_depend_on_the_number_of_threads(algorithm, last):
    leaves, made = leaves_of(33, (23, 19), (9, 11), torch.float32, last, batch=3), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(answered_by("native", leaves, "same"))
    torch.set_num_threads(1)
    for name, one in made[0].items():
        assert torch.equal(one, made[1][name]) or name == "bias", name


@pytest.mark.parametrize("size", ["1-D", "long", "prime", "thin", "3-D"])
def test_samples_do_not_know_each_other(algorithm, size):
    """A large sample, or one that is not finite, leaves the other to the bit."""
    map, kernel, padding = SIZES[size]
    leaves = {name: leaf.detach() for name, leaf in leaves_of(3, map, kernel, torch.float32).items()}
    alone = large_kernel_conv(**{**leaves, "input": leaves["input"][1:]}, padding=padding, groups=3, method="native")
    for factor in (1e6, torch.nan):
        leaves["input"][0] *= factor
        beside = large_kernel_conv(**leaves, padding=padding, groups=3, method="native")
        assert torch.equal(beside[1:], alone)


def test_maps_of_no_cells():
    """Outputs of padding alone, and gradients of nothing."""
    input, weight = torch.zeros(1, 2, 0, requires_grad=True), torch.randn(2, 1, 3, requires_grad=True)
    output = large_kernel_conv(input, weight, padding=2, groups=2, method="native")
    assert torch.equal(output, torch.zeros(1, 2, 2))
    to_input, to_weight = torch.autograd.grad(output.sum(), (input, weight))
    assert to_input.shape == input.shape and torch.equal(to_weight, torch.zeros(2, 1, 3))


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        ("native_convolve", (torch.ones(1, 2, 5), torch.ones(2, 1, 3), None, [0], [1], [5])),
        ("native_transpose", (torch.ones(1, 2, 5), torch.ones(2, 1, 3), [0], [1], [5])),
        ("native_correlate", (torch.ones(1, 2, 5), torch.ones(1, 2, 5), [-1], [1], [3])),
    ],
)
def test_operators_refuse_strides_of_nothing(operator, arguments):
    with pytest.raises(ValueError, match="stride: expected at least 1 along each axis"):
        getattr(torch.ops.torchdcls, operator)(*arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once_with_its_bias(algorithm, dtype):
    leaves = {n: t.detach() for n, t in leaves_of(5, (13, 11), (7, 5), dtype).items()}
    leaves["bias"] = torch.full((5,), 4.0, dtype=dtype)
    output = large_kernel_conv(**leaves, padding=(3, 2), groups=5, method="native")
    truth = F.conv2d(*(leaf.double() for leaf in leaves.values()), padding=(3, 2), groups=5)
    assert ((output.double() - truth).abs() <= 0.51 * torch.finfo(dtype).eps * truth.abs() + 1e-6).all()


def test_an_output_has_the_memory_format_of_its_input():
    leaves = leaves_of(4, (6, 5), (3, 3), last=True)
    output = large_kernel_conv2d(**leaves, padding=1, groups=4, method="native")
    assert output.is_contiguous(memory_format=torch.channels_last)
    leaves = leaves_of(4, (6, 5), (3, 3))
    assert large_kernel_conv2d(**leaves, padding=1, groups=4, method="native").is_contiguous()


def test_several_python_threads_at_once():
    leaves = leaves_of(17, (23, 19), (9, 11), torch.float32)
    expected, made = answered_by("native", leaves, "same"), {}

    def run(number):
        made[number] = [
            answered_by("native", leaves_of(17, (23, 19), (9, 11), torch.float32), "same") for _ in range(10)
        ]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in made.values():
        for result in results:
            assert all(torch.equal(result[name], one) for name, one in expected.items())


def sum_of_a_call(_=None):
    """What a process of its own prints, in its own memory."""
    torch.set_num_threads(1)
    leaves = leaves_of(5, (12, 11), (5, 7), torch.float32)
    return large_kernel_conv2d(**leaves, padding="same", groups=5, method="native").double().sum().item()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes(start):
    if start == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    expected = sum_of_a_call()
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(sum_of_a_call, range(4)) == [expected] * 4


@pytest.mark.compiles
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_operators_are_what_they_say(last):
    leaves = {name: leaf.detach() for name, leaf in leaves_of(3, (6, 5), (3, 3), last=last).items()}
    gradient, sizes, operators = leaves["input"] + 1, ([1, 1], [1, 1]), torch.ops.torchdcls
    torch.library.opcheck(operators.native_convolve, (*leaves.values(), *sizes, [6, 5]))
    torch.library.opcheck(operators.native_convolve, (leaves["input"], leaves["weight"], None, *sizes, [6, 5]))
    torch.library.opcheck(operators.native_transpose, (gradient, leaves["weight"], *sizes, [6, 5]))
    torch.library.opcheck(operators.native_correlate, (leaves["input"], gradient, *sizes, [3, 3]))


@pytest.mark.compiles
def test_one_graph_for_maps_of_any_size():
    graphs = []

    def note(graph, _):
        graphs.append(graph)
        return graph.forward

    weight = normal(3, 1, 5, 15).detach()
    traced = torch.compile(large_kernel_conv2d, fullgraph=True, dynamic=True, backend=note)
    for batch, *map in ((2, 9, 20), (3, 12, 31), (5, 30, 17)):
        input = normal(batch, 3, *map).detach()
        made = traced(input, weight, padding=(2, 7), groups=3, method="native")
        torch.testing.assert_close(made, F.conv2d(input, weight, padding=(2, 7), groups=3))
    assert len(graphs) == 1


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)], ids=["inputs", "kernels", "both"])
def test_mapped_over(mapped):
    inputs, weights = normal(4, 2, 3, 7, 6).detach(), normal(4, 3, 1, 3, 5, seed=2).detach()
    tensors = [many if axis == 0 else many[0] for many, axis in zip((inputs, weights), mapped, strict=True)]

    def convolved(input, weight):
        return large_kernel_conv2d(input, weight, padding=(1, 2), groups=3, method="native")

    made = torch.func.vmap(convolved, in_dims=mapped)(*tensors)
    each = [tuple(t[n] if axis == 0 else t for t, axis in zip(tensors, mapped, strict=True)) for n in range(4)]
    torch.testing.assert_close(made, torch.stack([convolved(*pair) for pair in each]))


# The choice between the algorithms


def chosen(map, kernel, channels=96):
    input = torch.empty(4, channels, *map, device="meta")
    _, problem = pose(
        input, torch.empty(channels, 1, *kernel, device="meta"), None, 1, [taps // 2 for taps in kernel], channels
    )
    sizes = 4, channels, problem.map, problem.outputs, problem.kernel, problem.stride, tuple(problem.before)
    return {native.algorithm(map, sizes, False) for map in native.MAPS}


def test_small_kernels_are_convolved_directly_and_large_ones_by_spectra():
    assert chosen((56, 56), (3, 3)) == {"direct"}
    assert chosen((56, 56), (23, 23)) == {"spectra"}
    assert chosen((64_000,), (1001,)) == {"spectra"}
    assert chosen((1200, 1600), (1001, 1), 3) == {"spectra"}


def test_what_is_counted_is_what_is_there():
    """Products of the direct algorithm that meet the map; of channels that fill vectors."""
    sizes = 2, 16, (9, 8), (9, 8), (5, 3), (1, 1), (2, 1)
    counts = native._counts("convolve", sizes, False)
    rows = sum(0 <= cell + tap - 2 < 9 for cell in range(9) for tap in range(5))
    columns = sum(0 <= cell + tap - 1 < 8 for cell in range(8) for tap in range(3))
    assert counts["direct"] == 2 * 16 * rows * columns
    assert counts["spectra"] > 0
    strided = 2, 16, (9, 8), (5, 4), (5, 3), (2, 2), (2, 1)
    assert native._counts("convolve", strided, False)["spectra"] == float("inf")


def test_a_dtype_it_does_not_know():
    _, problem = pose(torch.empty(1, 2, 9), torch.empty(2, 1, 3), None, 1, 1, 2)
    odd = problem.__class__(**{**vars(problem), "dtype": torch.float8_e5m2})
    assert select.unsupported_reason(named("native"), odd) == "it does not support torch.float8_e5m2"
