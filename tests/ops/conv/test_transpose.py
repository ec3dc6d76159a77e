"""Transposed convolution with a large kernel by every method, against torch's and as the adjoint of a convolution."""

import itertools
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from cases import CPU_METHODS, answers, assert_as_exact_as, assert_equal_to_rounding, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from torchdcls import (
    explain_method,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
    large_kernel_conv_transpose1d,
    large_kernel_conv_transpose2d,
    large_kernel_conv_transpose3d,
)
from torchdcls.ops.conv import select
from torchdcls.ops.conv.posing import pose
from torchdcls.ops.conv.select import Plan

TORCHS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
OURS = {1: large_kernel_conv_transpose1d, 2: large_kernel_conv_transpose2d, 3: large_kernel_conv_transpose3d}
PLAIN = {1: large_kernel_conv1d, 2: large_kernel_conv2d, 3: large_kernel_conv3d}
every_method = pytest.mark.parametrize("method", CPU_METHODS)


@dataclass(frozen=True)
class Call:
    """One call's sizes. Channels are (in, out, groups)."""

    map: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    beyond: int | tuple[int, ...] = 0
    channels: tuple[int, int, int] = (2, 2, 2)
    batch: tuple[int, ...] = (2,)

    def leaves(self, dtype=torch.float64):
        inside, outside, groups = self.channels
        return {
            "input": normal(*self.batch, inside, *self.map, seed=1, dtype=dtype),
            "weight": normal(inside, outside // groups, *self.kernel, seed=2, dtype=dtype),
            "bias": normal(outside, seed=3, dtype=dtype),
        }

    def options(self):
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.beyond,
            "groups": self.channels[2],
        }

    def run(self, leaves, method):
        return answers(lambda: OURS[len(self.kernel)](**leaves, **self.options(), method=method), leaves)

    def torch(self, leaves):
        return answers(lambda: TORCHS[len(self.kernel)](**leaves, **self.options()), leaves)

    def defeats(self, method):
        """Whether the method cannot run the call."""
        dims = len(self.kernel)
        stride = (self.stride,) * dims if isinstance(self.stride, int) else self.stride
        padding = (self.padding,) * dims if isinstance(self.padding, int) else self.padding
        far = any(cells >= taps for cells, taps in zip(padding, self.kernel, strict=True))
        if method == "native":
            return len(set(self.channels)) > 1
        return method == "fft" and (far or any(step > 1 for step in stride))

    def check(self, method, leaves=None):
        """The method gives torch's answers, or refuses what it cannot run."""
        leaves = leaves or self.leaves()
        if self.defeats(method):
            with pytest.raises(ValueError, match=rf"method: '{method}' cannot run this call"):
                self.run(leaves, method)
        else:
            assert_equal_to_rounding(self.run(leaves, method), self.torch(leaves))


CHANNELS = [(3, 3, 3), (4, 2, 2), (4, 6, 2), (3, 2, 1), (1, 1, 1)]
SIZES = [
    Call((7,), (5,), 1, 2),
    Call((6,), (4,), 2, 1),
    Call((1,), (9,), 1, 4),
    Call((9,), (2,), 1, 3),
    Call((5,), (3,), 4, 1, 3),
    Call((7, 6), (3, 3), 1, 1),
    Call((5, 8), (4, 3)),
    Call((3, 3), (7, 7), 1, 3),
    Call((2, 1), (13, 8), 1, (6, 3)),
    Call((4, 5), (5, 4), (2, 3), (2, 1), (1, 2)),
    Call((3, 4), (2, 3), 5, 0, (4, 1)),
    Call((9, 8), (3, 2), 1, (4, 3)),
    Call((13, 12), (15, 16), 1, (7, 8)),
    Call((3, 4, 2), (3, 2, 3), 1, (1, 0, 1)),
    Call((2, 3, 2), (4, 3, 5), (2, 1, 3), (1, 1, 2), (1, 0, 2)),
]


def with_channels(call, channels):
    return Call(call.map, call.kernel, call.stride, call.padding, call.beyond, channels, call.batch)


@every_method
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize("call", SIZES, ids=str)
def test_output_and_every_gradient_are_torchs(call, channels, method):
    with_channels(call, channels).check(method)


@st.composite
def calls(draw):
    """Any small transposed convolution whose output is not empty."""
    dims = draw(st.integers(1, 3))
    most = (12, 6, 3)[dims - 1]
    kernel, map, stride = (
        tuple(draw(st.lists(st.integers(1, top), min_size=dims, max_size=dims))) for top in (most, most, 4)
    )
    beyond = tuple(draw(st.integers(0, step - 1)) for step in stride)
    whole = [(n - 1) * step + taps + more for n, step, taps, more in zip(map, stride, kernel, beyond, strict=True)]
    padding = tuple(draw(st.integers(0, (size - 1) // 2)) for size in whole)
    groups, inside, outside = (draw(st.integers(1, 2)) for _ in range(3))
    return Call(map, kernel, stride, padding, beyond, (groups * inside, groups * outside, groups))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(call=calls())
def test_any_sizes_are_torchs_by_every_method(call):
    for method in CPU_METHODS:
        call.check(method)


@every_method
@pytest.mark.parametrize("call", [SIZES[0], SIZES[4], SIZES[9], SIZES[11], SIZES[14]], ids=str)
def test_it_is_the_adjoint_of_the_convolution(call, method):
    """<conv(x), y> = <x, transpose(y)>, with the same weight."""
    if call.defeats(method):
        return
    leaves, options, dims = call.leaves(), call.options(), len(call.kernel)
    back = OURS[dims](leaves["input"], leaves["weight"], **options, method=method)
    maps = normal(*back.shape, seed=5)
    options.pop("output_padding")
    forth = PLAIN[dims](maps, leaves["weight"], **options)
    assert (forth * leaves["input"]).sum().item() == pytest.approx((maps * back).sum().item(), rel=1e-12)


@pytest.mark.parametrize("plan", [Plan(*parts) for parts in itertools.product(CPU_METHODS[1:], repeat=3)], ids=str)
def test_parts_by_different_methods(plan, monkeypatch):
    """Output, gradients and the gradients of these, each by another method."""
    monkeypatch.setattr(select, "choose", lambda *_: plan)
    call = Call((6, 5), (3, 4), 1, (1, 2))
    assert_equal_to_rounding(call.run(call.leaves(), "auto"), call.torch(call.leaves()))
    small = Call((2, 2), (2, 3), 1, (0, 1), batch=(1,))
    leaves = small.leaves()
    run = lambda *tensors: OURS[2](*tensors, **small.options())  # noqa: E731
    assert torch.autograd.gradgradcheck(run, tuple(leaves.values()), fast_mode=True)


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method != "auto"])
@pytest.mark.parametrize(
    "call",
    [
        Call((3,), (3,), 1, 1, batch=(1,)),
        Call((2, 2), (3, 2), (2, 1), 1, (1, 0), batch=(1,)),
        Call((2, 2), (3, 2), 1, 1, channels=(2, 1, 1), batch=(1,)),
        Call((2, 1, 2), (2, 2, 1), batch=(1,)),
    ],
    ids=str,
)
def test_gradcheck_and_gradgradcheck(call, method):
    if call.defeats(method):
        return
    leaves = tuple(call.leaves().values())
    run = lambda *tensors: OURS[len(call.kernel)](*tensors, **call.options(), method=method)  # noqa: E731
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@every_method
@pytest.mark.parametrize("batch", [(), (1,), (0,)], ids=str)
def test_without_batch_and_with_an_empty_one(batch, method):
    call = Call((5, 4), (3, 4), 1, 1, batch=batch)
    if batch == (0,) and method not in ("auto", "direct"):
        with pytest.raises(ValueError, match=f"method: '{method}' cannot run this call: the batch is empty"):
            call.run(call.leaves(), method)
    else:
        call.check(method)


@every_method
@pytest.mark.parametrize("kernel", [(3, 5), (15, 15)], ids=str)
def test_channels_last_comes_out_as_it_came_in(kernel, method):
    call = Call((9, 8), kernel, 1, 1, channels=(4, 4, 4))
    leaves = call.leaves()
    last = leaves["input"].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    output = OURS[2](last, leaves["weight"], leaves["bias"], **call.options(), method=method)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert_equal_to_rounding(call.run({**leaves, "input": last}, method), call.torch(leaves))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("call", [Call((12, 10), (15, 14), 1, 7), Call((9,), (6,), 2, 2, 1, (4, 2, 2))], ids=str)
def test_lower_precision_is_as_exact_as_torchs(call, dtype, method):
    if call.defeats(method):
        return
    leaves = call.leaves(dtype)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    assert_as_exact_as(call.run(leaves, method), call.torch(leaves), truth)


@every_method
def test_autocast_gives_torchs_dtype_and_is_as_exact(method):
    call = Call((12, 10), (15, 14), 1, 7)
    leaves = call.leaves(torch.float32)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, actual = call.torch(leaves), call.run(leaves, method)
    assert actual["output"].dtype == torch.bfloat16
    assert_as_exact_as({"output": actual["output"]}, plain, {"output": truth["output"]})


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method not in ("auto", "direct")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_kept_for_backward_is_no_wider_than_what_came(method, dtype):
    kept = []
    leaves = Call((16, 14), (15, 15)).leaves(dtype)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        large_kernel_conv_transpose2d(**leaves, padding=7, groups=2, method=method)
    assert {tensor.dtype for tensor in kept} == {dtype}
    assert sum(tensor.numel() for tensor in kept) == leaves["input"].numel() + leaves["weight"].numel()


def test_taps_that_only_reach_what_is_cut_off_are_dropped():
    call = Call((7, 7), (23, 23), 1, 11)
    leaves = call.leaves()
    weight, problem = pose(**leaves, **call.options(), output="transpose")
    assert weight.shape[2:] == problem.kernel == (13, 13)


def test_the_plan_is_made_for_the_parts_that_are_asked_for():
    """The cheapest of all plans by the sum of its parts, where what is not asked for costs nothing."""
    leaves = Call((28, 28), (23, 23), 1, 11, channels=(96, 96, 96)).leaves(torch.float32)
    _, problem = pose(**leaves, stride=1, padding=11, groups=96, output="transpose")
    mixed = Plan("fft", "direct", "direct")
    pairs = (("direct", "transpose"), ("fft", "convolve"), ("direct", "correlate"))
    times = [select.estimate(*pair, problem) for pair in pairs]
    for of, expected in (
        ((False, False), times[0]),
        ((True, False), times[0] + times[1]),
        ((False, True), times[0] + times[2]),
        ((True, True), sum(times)),
    ):
        maps = select.maps_of("transpose", *of)
        assert select.estimate_plan(mixed, problem, maps) == pytest.approx(expected)
    alone = select.choose(problem, "transpose")
    assert len({alone.convolve, alone.transpose, alone.correlate}) == 1


def test_explain_names_the_parts_of_the_transposed_call(capsys, monkeypatch):
    monkeypatch.setattr(select, "choose", lambda *_: Plan("fft", "native", "direct"))
    explain_method((4, 8, 28, 28), (8, 1, 23, 23), padding=11, groups=8, transposed=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "auto takes: output by native, input gradient by fft, weight gradient by direct"
    _, _, to_input, to_weight, both = next(line for line in lines if line.startswith("direct")).split()
    assert float(both) == pytest.approx(float(to_input) + float(to_weight), abs=0.011)
    with pytest.raises(TypeError, match="padding: expected an integer of at least 0, got 'same'"):
        explain_method((4, 8, 28, 28), (8, 1, 23, 23), padding="same", groups=8, transposed=True)


def good_call(dims=2, **changed):
    size = {1: (8,), 2: (8, 6), 3: (4, 5, 3)}[dims]
    call = {"input": torch.zeros(2, 4, *size), "weight": torch.zeros(4, 2, *(3,) * dims), "groups": 2, **changed}
    return OURS[dims](**call)


# Changes of a good call that torch refuses too, unless it is a named method that refuses.
REFUSED = [
    ({"input": torch.zeros(2, 3, 8, 6)}, r"input: expected 4 channels, got shape \(2, 3, 8, 6\)"),
    ({"input": torch.zeros(8, 6)}, r"input: expected 4 axes \(batch, .* got shape \(8, 6\)"),
    ({"input": torch.zeros(2, 4, 0, 6)}, r"input: expected a map of at least 1 along axis 0, .*\(2, 4, 0, 6\)"),
    ({"input": torch.zeros(2, 4, 9, 2), "padding": 3}, r"input: expected a map of at least 5 along axis 1, .*, 2\)"),
    (
        {"input": torch.zeros(2, 4, 2, 9), "padding": 5, "stride": 3},
        r"input: expected a map of at least 4 along axis 0",
    ),
    ({"weight": torch.zeros(4, 2, 3)}, r"weight: expected 4 axes, got shape \(4, 2, 3\)"),
    (
        {"weight": torch.zeros(5, 2, 3, 3), "input": torch.zeros(2, 5, 8, 6)},
        r"weight: expected a multiple of groups=2 input channels, got \(5, 2, 3, 3\)",
    ),
    ({"weight": torch.zeros(4, 2, 3, 3).double()}, r"weight: expected the dtype of input, torch.float32, got"),
    ({"bias": torch.zeros(2)}, r"bias: expected shape \(4,\), got \(2,\)"),
    ({"groups": 0}, r"groups: expected at least 1, got 0"),
    ({"stride": 0}, r"stride: expected at least 1, got 0"),
    ({"padding": -1}, r"padding: expected at least 0, got -1"),
    ({"padding": "same"}, r"padding: expected .*got 'same'"),
    ({"output_padding": 1}, r"output_padding: expected less than stride \(1, 1\) along each axis, got \(1, 1\)"),
    (
        {"output_padding": (0, 2), "stride": 2},
        r"output_padding: expected less than stride \(2, 2\) along each axis, got \(0, 2\)",
    ),
    ({"output_padding": -1, "stride": 2}, r"output_padding: expected at least 0, got -1"),
    ({"method": "magic"}, r"method: expected one of 'auto', .* got 'magic'"),
    ({"method": "fft", "stride": 2}, r"'fft' cannot run this call: .*stride \(2, 2\) skips most"),
    (
        {"method": "native", "weight": torch.zeros(4, 3, 3, 3)},
        r"'native' cannot run this call: .* channels are 6 and 4 in 2 groups",
    ),
    ({"method": "fft", "padding": 3}, r"'fft' cannot run this call: padding .* not smaller than the kernel \(3, 3\)"),
    ({"method": "triton"}, r"'triton' cannot run this call: "),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refuses(changed, message):
    good_call()
    with pytest.raises(ValueError, match=message):
        good_call(**changed)
    if "method" not in changed:
        call = {"input": torch.zeros(2, 4, 8, 6), "weight": torch.zeros(4, 2, 3, 3), "groups": 2, **changed}
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            F.conv_transpose2d(**call)


@pytest.mark.parametrize(("stride", "padding", "beyond"), [(1, 2, 0), (3, 5, 0), (3, 5, 2), (2, 4, 1), (5, 9, 3)])
def test_the_least_map_that_is_named_is_the_least(stride, padding, beyond):
    """Every smaller map is refused, by torch too."""
    options = {"stride": stride, "padding": padding, "output_padding": beyond}

    def fits(call, cells):
        try:
            return call(torch.zeros(1, 1, cells), torch.zeros(1, 1, 3), **options).shape[-1] > 0
        except (RuntimeError, ValueError):
            return False

    least = next(cells for cells in range(1, 20) if fits(F.conv_transpose1d, cells))
    assert [fits(OURS[1], cells) for cells in range(1, 20)] == [cells >= least for cells in range(1, 20)]
    if least > 1:
        with pytest.raises(ValueError, match=f"input: expected a map of at least {least} along axis 0"):
            OURS[1](torch.zeros(1, 1, least - 1), torch.zeros(1, 1, 3), **options)
