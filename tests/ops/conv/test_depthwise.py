"""Depthwise convolution by torch's forward routine: layouts, widened kernels, two ways to sum over samples."""

import itertools
import time
from dataclasses import replace

import pytest
import torch
from cases import answers, assert_equal_to_rounding, normal, oracle_convolution
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from torchdcls import explain_method, large_kernel_conv2d
from torchdcls.ops.conv import depthwise, large_kernel_conv
from torchdcls.ops.conv.depthwise import depthwise_operations
from torchdcls.ops.conv.native import SLOW_WIDTH, WIDE, even_padding, evenly_padded
from torchdcls.ops.conv.problem import Problem

PROBLEM = Problem(3, 20, 20, 20, (9, 8), (5, 3), (1, 1), ((2, 2), (1, 1)), "cpu", torch.float32)


class Convolutions(TorchDispatchMode):
    """Notes the weight and the layout of each convolution that runs."""

    def __init__(self):
        super().__init__()
        self.kernels, self.last = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket is not torch.ops.aten.convolution_backward
        if func.overloadpacket is torch.ops.aten.convolution:
            self.kernels.append(tuple(args[1].shape[2:]))
            # Torch asks for the strides too, the batch's included, where that is 1.
            rows = args[0].stride(0) == args[0][0].numel()
            last = torch.channels_last if args[0].dim() == 4 else torch.channels_last_3d
            self.last.append(
                args[0].dim() > 3 and rows and args[0].is_contiguous(memory_format=last) and not args[0].is_contiguous()
            )
        return func(*args, **(kwargs or {}))


def leaves_of(map, kernel, channels=3, batch=2):
    return {
        "input": normal(batch, channels, *map, seed=1),
        "weight": normal(channels, 1, *kernel, seed=2),
        "bias": normal(channels, seed=3),
    }


@pytest.fixture(params=["all samples at once", "one sample after the other"])
def samples(request, monkeypatch):
    monkeypatch.setattr(depthwise, "CELLS_AT_ONCE", 2**40 if request.param == "all samples at once" else 0)
    return request.param


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("map", "kernel", "padding"),
    [
        ((20,), (15,), 7),
        ((40,), (31,), (3,)),
        ((13,), (4,), 5),
        ((6, 30), (3, 15), "same"),
        ((7, 12), (3, 11), (1, 5)),
        ((12, 13), (12, 12), "same"),
        ((5, 13), (4, 13), "same"),
        ((4, 5), (3, 3), 4),
        ((16, 17), (14, 14), 20),
        ((6, 20), (5, 16), "valid"),
        ((3, 4, 15), (2, 3, 15), "same"),
        ((3, 2, 12), (3, 3, 11), (1, 1, 5)),
    ],
    ids=str,
)
def test_output_and_every_gradient_are_the_oracles(map, kernel, padding, channels_last, samples):
    """Of narrow kernels and wide ones, those between, and padding beyond the kernel."""
    leaves = leaves_of(map, kernel)
    if channels_last:
        leaves["input"] = leaves["input"].detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    options = {"padding": padding, "groups": 3}
    actual = answers(lambda: large_kernel_conv(**leaves, **options, method="depthwise"), leaves)
    assert_equal_to_rounding(actual, answers(lambda: oracle_convolution(**leaves, **options), leaves))


@pytest.mark.parametrize(("width", "reached"), [(10, 10), (11, 15), (12, 14), (13, 15), (14, 14), (15, 15)])
def test_kernels_of_a_slow_width_are_widened(width, reached):
    """Where channels are last, with the same answers."""
    assert SLOW_WIDTH == 11
    assert WIDE == 14
    leaves = leaves_of((5, 20), (3, width))
    input = leaves["input"].detach().contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Convolutions() as noted:
        large_kernel_conv2d(input, leaves["weight"], padding="same", groups=3, method="depthwise")
    assert noted.kernels == [(3, reached)]


@pytest.mark.parametrize(("width", "last"), [(3, False), (13, False), (14, True), (31, True)])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_channels_are_put_last_for_wide_kernels(dims, width, last):
    leaves = leaves_of((4, 3, 40)[-dims:], (3, 3, width)[-dims:])
    with torch.no_grad(), Convolutions() as noted:
        output = large_kernel_conv(**leaves, padding="same", groups=3, method="depthwise")
    assert noted.last == [last]
    assert output.is_contiguous()


def test_gradients_are_forward_convolutions(samples):
    """`Convolutions` refuses torch's own gradient."""
    leaves = leaves_of((9, 20), (5, 15), batch=4)
    output = large_kernel_conv(**leaves, padding="same", groups=3, method="depthwise")
    with Convolutions() as noted:
        torch.autograd.grad(output, tuple(leaves.values()), torch.ones_like(output))
    whole, each = [(5, 15), (4, 9, 20)], [(5, 15), *[(1, 9, 20)] * 4]
    assert noted.kernels == (whole if samples == "all samples at once" else each)
    assert all(noted.last)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("map", "kernel", "padding", "stride"),
    [
        ((20,), (15,), 7, 2),
        ((23,), (4,), 6, 5),
        ((9, 20), (5, 15), (2, 7), (2, 3)),
        ((7, 8), (3, 4), 0, (1, 4)),
        ((4, 13), (2, 12), 3, 4),
        ((1, 4), (2, 3), 3, (6, 1)),
        ((3, 4, 15), (2, 3, 14), (1, 0, 3), (2, 1, 2)),
    ],
    ids=str,
)
def test_strides(map, kernel, padding, stride, channels_last, samples):
    """Also where the last cells of the map reach no output."""
    leaves = leaves_of(map, kernel)
    if channels_last:
        leaves["input"] = leaves["input"].detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    options = {"padding": padding, "stride": stride, "groups": 3}
    actual = answers(lambda: large_kernel_conv(**leaves, **options, method="depthwise"), leaves)
    assert_equal_to_rounding(actual, answers(lambda: oracle_convolution(**leaves, **options), leaves))


@pytest.mark.compiles
def test_one_graph_for_any_batch():
    graphs = []

    def note(graph, _):
        graphs.append(graph)
        return graph.forward

    leaves = {"weight": leaves_of((9, 20), (5, 15))["weight"]}
    compiled = torch.compile(large_kernel_conv2d, fullgraph=True, dynamic=True, backend=note)
    for batch in (2, 3, 5):
        input = normal(batch, 3, 9, 20)
        options = {"padding": "same", "groups": 3, "method": "depthwise"}
        actual = answers(lambda i=input, o=options: compiled(i, leaves["weight"], **o), {**leaves, "input": input})
        expected = answers(
            lambda i=input, o=options: large_kernel_conv2d(i, leaves["weight"], **o), {**leaves, "input": input}
        )
        assert_equal_to_rounding(actual, expected)
    assert len(graphs) == 1


# What is counted


def test_taps_on_padding_are_not_counted():
    counts = depthwise_operations(replace(PROBLEM, channels_last=True), "output")
    rows = sum(0 <= cell + tap - 2 < 9 for cell, tap in itertools.product(range(9), range(5)))
    assert counts["depthwise 2-D narrow tap"] == 3 * 32 * rows * 3 * 8  # channels in sixteens
    assert counts["depthwise 2-D narrow row"] == 3 * 32 * rows * 3
    assert counts["depthwise 2-D call"] == 1


def test_both_gradients_are_the_sum_of_each():
    both, *each = (depthwise_operations(PROBLEM, part) for part in ("gradients", "input gradient", "weight gradient"))
    names = {name for counts in each for name in counts}
    assert both == {name: sum(counts.get(name, 0) for counts in each) for name in names}


def test_samples_of_the_gradient_are_counted(samples):
    """As the first axis of a map, and of a kernel of which all taps meet it."""
    counts = depthwise_operations(PROBLEM, "weight gradient")
    calls = 1 if samples == "all samples at once" else 3
    rows = sum(0 <= cell + tap - 2 < 9 for cell, tap in itertools.product(range(9), range(5)))
    assert counts["depthwise gradient call"] == calls
    assert counts["depthwise gradient narrow tap"] == 32 * 3 * rows * 8 * 3
    assert counts["depthwise gradient weight"] == 32 * 3 * 9 * 8


def test_layouts_are_counted():
    """Maps are moved where a wide kernel meets contiguous ones, and always for the gradient of the weight."""
    wide = PROBLEM.with_kernel((5, 15), ((2, 2), (7, 7)))
    for problem, part, moved in [
        (PROBLEM, "output", 0),
        (wide, "output", 3 * 20 * 72 * 2),
        (replace(wide, channels_last=True), "output", 0),
        (PROBLEM, "weight gradient", 3 * 20 * 72 * 2),
        (replace(PROBLEM, channels_last=True), "weight gradient", 0),
    ]:
        assert depthwise_operations(problem, part).get("depthwise moved cell", 0) == moved


# Padding


@pytest.mark.parametrize(
    ("pads", "both", "first"), [((2, 2), 2, 0), ((3, 1), 1, -2), ((1, 3), 1, 0), ((-1, -1), 0, 1), ((-5, 7), 0, 5)]
)
def test_torch_pads_both_ends_alike(pads, both, first):
    """The rest is padded or cut off before; more may be cut off than there was."""
    input = torch.arange(1.0, 5).view(1, 1, 4)
    even = even_padding((pads,))
    padded = evenly_padded(input, (pads,), even)
    assert even == [both]
    line = torch.cat([torch.zeros(9), input.flatten(), torch.zeros(9)])
    start, stop = 9 - pads[0] + both, 9 + 4 + pads[1] - both
    torch.testing.assert_close(padded.flatten(), line[start:stop])
    assert start == 9 + first


@given(
    size=st.integers(1, 12),
    taps=st.integers(1, 12),
    step=st.integers(1, 4),
    before=st.integers(0, 14),
    after=st.integers(0, 14),
)
def test_meetings_are_those_counted_one_by_one(size, taps, step, before, after):
    outputs = (size + before + after - taps) // step + 1
    cells = [output * step - before + tap for output in range(outputs) for tap in range(taps)]
    if outputs > 0:
        assert depthwise._meetings_along(size, taps, outputs, step, before) == sum(0 <= cell < size for cell in cells)


def test_an_hour_of_sound_is_planned_at_once():
    """Not in a time that grows with the map."""
    taken = time.process_time()
    explain_method((1, 2, 57_600_000), (2, 1, 31), padding=15, groups=2)
    assert time.process_time() - taken < 5
