"""Convolution with a large kernel by every method, against the oracle and against torch."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from calls import LARGE_KERNEL_CONVOLUTIONS, Call, every_method
from cases import (
    CONVOLUTIONS,
    CPU_METHODS,
    answers,
    assert_as_exact_as,
    needs_kernels,
    normal,
    oracle_convolution,
    padding_pairs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from torchdcls import large_kernel_conv2d
from torchdcls.ops.conv import posing, select
from torchdcls.ops.conv.fft import good_size
from torchdcls.ops.conv.problem import Problem

CHANNELS = {
    "depthwise": (3, 3, 3),
    "multiplier": (2, 4, 2),
    "grouped": (4, 6, 2),
    "dense": (2, 3, 1),
    "one": (1, 1, 1),
}
SIZES = [
    Call((7,), (5,), 2),
    Call((9,), (4,), "same"),
    Call((13,), (13,), "valid"),
    Call((3,), (7,), 3),
    Call((1,), (5,), "same"),
    Call((9,), (5,), ((4, 0),)),
    Call((3,), (7,), ((6, 2),)),
    Call((5, 8), (4, 3), ((1, 2), (0, 2))),
    Call((8,), (3,), 4),
    Call((11,), (4,), 3, 3),
    Call((7, 7), (3, 3), 1),
    Call((5, 8), (4, 3), "same"),
    Call((8, 5), (2, 6), "same"),
    Call((3, 3), (7, 7), 3),
    Call((1, 1), (5, 5), "same"),
    Call((1, 6), (4, 2), (3, 0)),
    Call((5, 4), (5, 4), "valid"),
    Call((6, 5), (1, 1)),
    Call((4, 6), (9, 2), "same"),
    Call((5, 4), (3, 3), (2, 0)),
    Call((4, 4), (3, 3), 4),
    Call((9, 8), (5, 4), (2, 1), (2, 3)),
    Call((2, 3), (7, 5), 5, (3, 2)),
    Call((1, 4), (2, 3), 3, (6, 1)),
    Call((13, 12), (15, 16), "same"),
    Call((3, 4, 2), (3, 2, 3), "same"),
    Call((2, 2, 2), (5, 3, 1), "same"),
    Call((1, 1, 1), (3, 3, 3), 1),
    Call((5, 3, 4), (2, 3, 1), (1, 0, 0), (2, 1, 3)),
]
every_size = pytest.mark.parametrize("call", SIZES, ids=lambda call: f"{call.map}-{call.kernel}-{call.padding}")


def with_channels(call, channels):
    return Call(call.map, call.kernel, call.padding, call.stride, channels, call.batch)


# The oracle


@every_method
@pytest.mark.parametrize("channels", CHANNELS)
@every_size
def test_output_and_every_gradient_are_the_oracles(call, channels, method):
    with_channels(call, CHANNELS[channels]).check(method)


@st.composite
def calls(draw):
    """Any small convolution whose map, padded, is not smaller than its kernel."""
    dims = draw(st.integers(1, 3))
    each = st.lists(st.integers(1, (12, 7, 4)[dims - 1]), min_size=dims, max_size=dims)
    kernel, stride = draw(each), (1,) * dims
    if draw(st.booleans()):
        padding = "same"
    else:
        padding = tuple(draw(st.lists(st.integers(0, 6), min_size=dims, max_size=dims)))
        stride = tuple(draw(st.one_of(st.just([1] * dims), st.lists(st.integers(1, 7), min_size=dims, max_size=dims))))
    pads = padding_pairs(padding, kernel)
    map = tuple(max(cells, taps - sum(pair)) for cells, taps, pair in zip(draw(each), kernel, pads, strict=True))
    groups, inside, outside = (draw(st.integers(1, 2)) for _ in range(3))
    channels = (groups * inside, groups * outside, groups)
    return Call(map, tuple(kernel), padding, stride, channels, (draw(st.integers(1, 2)),))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(call=calls())
def test_any_sizes_are_torchs_by_every_method(call):
    leaves = call.leaves()
    expected = call.torch(leaves)
    for method in CPU_METHODS:
        call.check(method, leaves, expected)


@every_method
@pytest.mark.parametrize(
    "call",
    [
        Call((16, 16), (23, 23), "same", channels=(4, 4, 4)),
        Call((30, 28), (17, 16), "same", channels=(4, 4, 4)),
        Call((9, 10), (7, 5), 3, channels=(4, 6, 2)),
        Call((200,), (31,), 15, channels=(3, 3, 1)),
    ],
    ids=str,
)
def test_float32_is_as_exact_as_torchs(call, method):
    if call.refused(method):
        return
    leaves = call.leaves(torch.float32)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    assert_as_exact_as(call.run(leaves, method), call.torch(leaves), truth)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [(4,), (2, 6), (5, 4), (2, 3, 4)], ids=str)
@every_method
def test_same_padding_of_even_kernels_is_torchs(kernel, method):
    """The odd cell goes after the map."""
    call = Call((9, 8, 7)[: len(kernel)], kernel, "same", channels=(2, 2, 1))
    leaves = call.leaves()
    expected = answers(lambda: CONVOLUTIONS[len(kernel)](*leaves.values(), padding="same"), leaves)
    call.check(method, leaves, expected)


# Layouts and batches


def channels_last(tensor):
    return tensor.to(memory_format=torch.channels_last)


def every_second(tensor):
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def transposed(tensor):
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


@every_method
@pytest.mark.parametrize("layout", [channels_last, every_second, transposed])
@pytest.mark.parametrize("argument", ["input", "weight"])
@pytest.mark.parametrize(
    "call",
    [
        Call((7, 6), (3, 5), "same", channels=(4, 4, 4)),
        Call((13, 12), (15, 14), "same", channels=(3, 3, 3)),
        Call((5, 6), (4, 3), 2, channels=(4, 4, 2)),
    ],
    ids=str,
)
def test_layout_does_not_matter(call, argument, layout, method):
    leaves = call.leaves()
    scattered = {**leaves, argument: layout(leaves[argument].detach()).requires_grad_()}
    assert not scattered[argument].is_contiguous() or leaves[argument].shape[1] == 1
    call.check(method, scattered)


@every_method
def test_expanded_inputs(method):
    """A stride of 0: one image, seen as a batch."""
    call = Call((6, 5), (3, 4), "same")
    leaves = call.leaves()
    leaves["input"] = normal(1, 2, 6, 5).detach().expand(3, -1, -1, -1)
    leaves["input"].requires_grad_()
    expected = answers(lambda: oracle_convolution(**leaves, **call.options()), leaves)
    call.check(method, leaves, expected)


@every_method
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [Call((9,), (5,), 2), Call((4, 6), (5, 4), "same"), Call((2, 3, 4), (3, 3, 2), 1)])
def test_without_batch(size, channels, method):
    Call(size.map, size.kernel, size.padding, 1, CHANNELS[channels], batch=()).check(method)


@pytest.mark.parametrize("method", ["direct", "auto"])
@pytest.mark.parametrize("size", [Call((9,), (5,), 2), Call((13, 12), (15, 15), "same"), Call((2, 3, 4), (3, 3, 2), 1)])
def test_an_empty_batch(size, method):
    Call(size.map, size.kernel, size.padding, batch=(0,)).check(method)


def test_no_input_channels():
    """Torch gives the bias."""
    tensors = torch.zeros(2, 0, 8, 8), torch.zeros(4, 0, 3, 3), torch.ones(4)
    torch.testing.assert_close(large_kernel_conv2d(*tensors), F.conv2d(*tensors))


@every_method
@pytest.mark.parametrize("size", [Call((5,), (3,), 1), Call((13, 12), (15, 15), "same"), Call((3, 3), (7, 7), 3)])
def test_without_bias(size, method):
    leaves = size.leaves()
    del leaves["bias"]
    expected = answers(lambda: oracle_convolution(**leaves, **size.options()), leaves)
    size.check(method, leaves, expected)


@every_method
@pytest.mark.parametrize("kernel", [(5, 5), (15, 15)], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_output_has_the_inputs_memory_format(memory_format, kernel, method):
    """As with torch's convolutions: the next layer finds what it would have found."""
    input = normal(2, 3, 16, 16).detach().to(memory_format=memory_format)
    output = large_kernel_conv2d(input, normal(3, 1, *kernel).detach(), padding="same", groups=3, method=method)
    assert output.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("method", CPU_METHODS)
@pytest.mark.parametrize(
    "slice",
    [
        lambda maps: maps[:, 2:5],
        lambda maps: maps.to(memory_format=torch.channels_last)[:, 2:5],
        lambda maps: maps.to(memory_format=torch.channels_last)[:, :3, ::2],
        lambda maps: maps.to(memory_format=torch.channels_last)[:, :3, :, 1:],
        lambda maps: maps[:, :3].movedim(-1, -2),
        lambda maps: maps[:, :3].expand(4, -1, -1, -1),
    ],
)
def test_the_memory_format_of_slices_is_torchs(slice, method):
    input, weight = slice(normal(1, 8, 16, 18).detach()), normal(3, 1, 5, 5).detach()
    plain = F.conv2d(input, weight, None, 1, 2, 1, 3)
    output = large_kernel_conv2d(input, weight, None, 1, 2, 3, method=method)
    assert output.stride() == plain.stride()


# Derivatives


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method != "auto"])
@pytest.mark.parametrize(
    "call",
    [
        Call((4,), (3,), "same", batch=(1,)),
        Call((2, 2), (2, 3), "same", channels=(2, 2, 1), batch=(1,)),
        Call((2, 2), (5, 4), "same", channels=(1, 1, 1), batch=(1,)),
        Call((2, 2, 1), (2, 2, 3), 1, channels=(1, 2, 1), batch=(1,)),
    ],
    ids=str,
)
def test_gradcheck_and_gradgradcheck(call, method):
    if call.refused(method):
        return
    convolve, leaves = LARGE_KERNEL_CONVOLUTIONS[len(call.kernel)], call.leaves()

    def run(*tensors):
        return convolve(*tensors, **call.options(), method=method)

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(run, tuple(leaves.values()), fast_mode=True)


# What is done


class Operations(TorchDispatchMode):
    """Notes the operations that run, and the kernel sizes that reach torch's convolution."""

    def __init__(self):
        super().__init__()
        self.names, self.kernels = set(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        if func.overloadpacket is torch.ops.aten.convolution:
            self.kernels.append(tuple(args[1].shape[2:]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("map", "kernel", "padding", "stride", "reached"),
    [
        ((7, 7), (23, 23), "same", 1, (13, 13)),
        ((7, 7), (23, 23), 11, 1, (13, 13)),
        ((1, 1), (5, 6), "same", 1, (1, 1)),
        ((3, 30), (8, 5), "same", 1, (5, 5)),
        ((12, 12), (23, 23), 11, 1, (23, 23)),
        ((11, 11), (23, 23), 11, 1, (21, 21)),
        ((4, 4), (9, 9), 4, 3, (7, 7)),
    ],
    ids=str,
)
def test_taps_that_only_see_padding_are_dropped(map, kernel, padding, stride, reached):
    """A map of m cells under "same" padding sees 2 m - 1 taps of a kernel."""
    call = Call(map, kernel, padding, stride)
    with torch.no_grad(), Operations() as operations:
        large_kernel_conv2d(**call.leaves(), **call.options(), method="direct")
    assert operations.kernels == [reached]
    call.check("direct")


def test_a_named_method_is_the_one_that_runs():
    call = Call((6, 6), (3, 3), 1)
    for method, transforms in (("direct", False), ("fft", True)):
        with torch.no_grad(), Operations() as operations:
            large_kernel_conv2d(**call.leaves(), **call.options(), method=method)
        assert ("bmm" in operations.names) == transforms
        assert ("convolution" in operations.names) != transforms


@pytest.mark.parametrize(
    ("call", "transforms"),
    [
        (Call((56, 56), (101, 101), "same", channels=(32, 32, 1)), True),
        (Call((56, 56), (3, 3), "same"), False),
        (Call((56, 56), (31, 31), 15, 2), False),
        (Call((56, 56), (31, 31), "same", batch=(0,), channels=(32, 32, 1)), False),
        (Call((56, 56), (31, 31), 40), False),
    ],
    ids=str,
)
def test_auto_takes_the_transform_where_it_pays_and_can_run(call, transforms):
    leaves = call.leaves(torch.float32)
    output = large_kernel_conv2d(**leaves, **call.options())
    with Operations() as operations:
        output.sum().backward()
    assert ("bmm" in operations.names) == transforms


LARGE = Problem(2, 4, 4, 4, (56, 56), (31, 31), (1, 1), ((15, 15),) * 2, "cpu", torch.float32)


def test_auto_and_a_named_method_ask_the_same_question():
    """Whatever `choose` takes has no reason against it."""
    for changed in (LARGE, replace(LARGE, kernel=(9, 9), padding=((20, 20),) * 2)):
        plan = select.choose(changed, "convolve", True, True)
        for method in plan.methods():
            assert select.unsupported_reason(method, changed) is None


def test_good_sizes_are_the_smallest_products_of_small_primes():
    smooth = sorted(2**a * 3**b * 5**c * 7**d for a in range(12) for b in range(8) for c in range(6) for d in range(5))
    for length in range(1, 2000):
        assert good_size(length) == next(size for size in smooth if size >= length)


# Precision


@every_method
@pytest.mark.parametrize("call", [Call((16, 16), (15, 15), "same"), Call((9,), (4,), "same", channels=(2, 4, 1))])
def test_autocast_gives_torchs_dtype_and_is_as_exact(call, method):
    if call.refused(method):
        return
    leaves = call.leaves(torch.float32)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, actual = call.torch(leaves), call.run(leaves, method)
    assert plain["output"].dtype == torch.bfloat16
    assert_as_exact_as({"output": actual["output"]}, plain, {"output": truth["output"]})


@every_method
def test_autocast_leaves_double_alone(method):
    call = Call((16, 16), (15, 15), "same")
    leaves = call.leaves(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, plain = call.run(leaves, method)["output"], call.torch(leaves)["output"]
    assert actual.dtype == plain.dtype == torch.float64
    torch.testing.assert_close(actual, plain)


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_as_exact_as_torchs(method, dtype):
    call = Call((16, 14), (15, 15), "same")
    leaves = call.leaves(dtype)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    assert_as_exact_as(call.run(leaves, method), call.torch(leaves), truth)


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method not in ("auto", "direct")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_kept_for_backward_is_no_wider_than_what_came(method, dtype):
    kept = []
    leaves = Call((16, 14), (15, 15), "same").leaves(dtype)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        large_kernel_conv2d(**leaves, padding="same", groups=2, method=method)
    assert {tensor.dtype for tensor in kept} == {dtype}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_of_small_maps_is_rounded_once(dtype):
    """Answer by answer: half a unit for the answer's rounding and a quarter for the cotangent's, none for sums."""
    call = Call((7, 7), (13, 13), "same", channels=(64, 64, 64), batch=(64,))
    leaves = call.leaves(dtype)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    actual = call.run(leaves, "native")
    for name in ("output", "input", "weight"):
        error = (actual[name].double() - truth[name]).abs().max() / truth[name].abs().max()
        assert error <= 0.75 * torch.finfo(dtype).eps, name


# Bad input


def good_call(dims=2, **changed):
    size = {1: (8,), 2: (8, 6), 3: (4, 5, 3)}[dims]
    call = {"input": torch.zeros(2, 4, *size), "weight": torch.zeros(4, 1, *(3,) * dims), "groups": 4, **changed}
    return LARGE_KERNEL_CONVOLUTIONS[dims](**call)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": torch.zeros(2, 3, 8, 6), "groups": 1}, r"input: expected 1 channels, got shape \(2, 3, 8, 6\)"),
        ({"input": torch.zeros(2, 8, 8, 6)}, r"input: expected 4 channels, got shape \(2, 8, 8, 6\)"),
        ({"input": torch.zeros(2, 3, 8, 6)}, r"input: expected 4 channels, got shape \(2, 3, 8, 6\)"),
        ({"input": torch.zeros(8, 6)}, r"input: expected 4 axes \(batch, .* got shape \(8, 6\)"),
        ({"input": torch.zeros(1, 2, 4, 8, 6)}, r"input: expected 4 axes .* got shape \(1, 2, 4, 8, 6\)"),
        ({"input": torch.zeros(2, 4, 2, 6)}, r"input: expected a map of at least 3 along axis 0, .*\(2, 4, 2, 6\)"),
        ({"input": torch.zeros(2, 4, 6, 0), "padding": 1}, r"input: expected a map of at least 1 along axis 1"),
        ({"weight": torch.zeros(4, 1, 3)}, r"weight: expected 4 axes, got shape \(4, 1, 3\)"),
        (
            {"weight": torch.zeros(6, 1, 3, 3)},
            r"weight: expected a multiple of groups=4 output channels, got \(6, 1, 3, 3\)",
        ),
        ({"weight": torch.zeros(4, 1, 3, 3, device="meta")}, r"weight: expected the device of input, cpu, got meta"),
        ({"bias": torch.zeros(3)}, r"bias: expected shape \(4,\), got \(3,\)"),
        ({"bias": torch.zeros(4, 1)}, r"bias: expected shape \(4,\), got \(4, 1\)"),
        ({"groups": 0}, r"groups: expected at least 1, got 0"),
        ({"groups": True}, r"groups: expected an integer of at least 1, got True"),
        ({"stride": 0}, r"stride: expected at least 1, got 0"),
        ({"stride": (1, 2, 1)}, r"stride: expected one integer or 2 of them, .* got \(1, 2, 1\)"),
        ({"stride": math.nan}, r"stride: expected an integer .*got nan"),
        ({"padding": -1}, r"padding: expected at least 0, got -1"),
        ({"padding": (1, -2)}, r"padding\[1\]: expected at least 0, got -2"),
        ({"padding": "full"}, r"padding: expected one of 'same', 'valid', got 'full'"),
        ({"padding": (1,)}, r"padding: expected one integer or 2 of them, .* got \(1,\)"),
        ({"padding": ((1, 0),)}, r"padding: expected a pair for each of 2 axes, got \(\(1, 0\),\)"),
        ({"padding": ((1, 0), 2)}, r"padding: expected a pair for each of 2 axes, got \(\(1, 0\), 2\)"),
        ({"padding": ((1, 0), (2, -1))}, r"padding\[1\]\[1\]: expected at least 0"),
        ({"padding": "same", "stride": 2}, r"padding: expected numbers with stride \(2, 2\), as 'same' needs"),
        ({"method": "magic"}, r"method: expected one of 'auto', 'direct', 'native'.*, got 'magic'"),
        ({"method": None}, r"method: expected one of .*got None"),
        ({"method": "fft", "stride": 2}, r"method: 'fft' cannot run this call: .*stride \(2, 2\)"),
        (
            {"method": "native", "groups": 1, "weight": torch.zeros(4, 4, 3, 3)},
            r"method: 'native' cannot run this call: .* channels are 4 and 4 in 1 groups",
        ),
        (
            {"method": "fft", "padding": 3},
            r"method: 'fft' cannot run this call: padding .* not smaller than the kernel \(3, 3\)",
        ),
        (
            {"method": "fft", "input": torch.zeros(0, 4, 8, 6)},
            r"method: 'fft' cannot run this call: the batch is empty",
        ),
        (
            {"method": "fft", "input": torch.zeros(2, 4, 8, 6).long(), "weight": torch.zeros(4, 1, 3, 3).long()},
            r"method: 'fft' cannot run this call: it needs real floating-point",
        ),
    ],
)
def test_refuses(changed, message):
    good_call()
    with pytest.raises(ValueError, match=message):
        good_call(**changed)


@every_method
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_refuses_mixed_dtypes(name, autocast, method):
    """Autocast makes one dtype of several, but leaves doubles alone."""
    tensors = {"weight": torch.zeros(4, 1, 3, 3), "bias": torch.zeros(4)}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for dtype in (torch.float64, torch.int64):
            with pytest.raises(ValueError, match=rf"{name}: expected the dtype of input, torch.float32, got {dtype}"):
                good_call(**tensors | {name: tensors[name].to(dtype)}, method=method)
        half = tensors | {name: tensors[name].bfloat16()}
        if autocast:
            assert good_call(**half, method=method).dtype == torch.bfloat16
        else:
            with pytest.raises(ValueError, match=f"{name}: expected the dtype of input, torch.float32, got"):
                good_call(**half, method=method)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("axes", [2, 3, 4, 5, 6])
def test_each_name_takes_kernels_of_its_own_dimension(dims, axes):
    good_call(dims)
    if axes != dims + 2:
        with pytest.raises(ValueError, match=rf"weight: expected {dims + 2} axes, got shape"):
            good_call(dims, weight=torch.zeros(4, 1, *(3,) * (axes - 2)))


def test_auto_falls_to_direct_where_the_transform_cannot_run():
    call = Call((20, 20), (17, 17), 8, 2)
    with pytest.raises(ValueError, match="stride"):
        call.run(call.leaves(), "fft")
    call.check("auto")


# Checks


def test_the_same_call_is_checked_once():
    call = Call((9, 8), (5, 4), 2, channels=(2, 2, 2))
    leaves = call.leaves()
    large_kernel_conv2d(**leaves, **call.options())
    before = posing._known_posed.cache_info()
    for stride in (1, (1, 1), [1, 1]):
        large_kernel_conv2d(**leaves, padding=[2, 2], stride=stride, groups=2)
    after = posing._known_posed.cache_info()
    assert after.misses - before.misses == 2  # one pair of numbers is known by now
    assert after.hits - before.hits == 1


def test_what_is_refused_stays_refused():
    """True equals 1, and a call with 1 was taken."""
    dense = {"groups": 1, "weight": torch.zeros(4, 4, 3, 3)}
    good_call(**dense)
    for _ in range(2):
        with pytest.raises(ValueError, match="groups: expected an integer of at least 1, got True"):
            good_call(**{**dense, "groups": True})
