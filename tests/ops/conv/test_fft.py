"""Convolution by spectra: tiles, blocks of the batch, both transforms, and memory that calls share."""

import itertools
import math
from dataclasses import dataclass, replace

import calls
import pytest
import torch
import torch.nn.functional as F
from cases import CONVOLUTIONS, answers, assert_equal_to_rounding, normal, padding_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from torchdcls.ops.conv import fft, large_kernel_conv
from torchdcls.ops.conv.posing import pose
from torchdcls.ops.conv.problem import Problem
from torchdcls.ops.conv.spectrum import FastTransform, MatrixTransform, kept_frequencies


@dataclass(frozen=True)
class Call:
    """One call's sizes. Channels are (in, out, groups)."""

    map: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: int | tuple[int, ...] | str = "same"
    channels: tuple[int, int, int] = (2, 2, 2)
    batch: int = 2

    def leaves(self, channels_last=False, dtype=torch.float64, seed=0):
        inside, outside, groups = self.channels
        input = normal(self.batch, inside, *self.map, seed=seed + 1, dtype=dtype)
        if channels_last:
            input = input.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
        return {
            "input": input,
            "weight": normal(outside, inside // groups, *self.kernel, seed=seed + 2, dtype=dtype),
            "bias": normal(outside, seed=seed + 3, dtype=dtype),
        }

    def problem(self):
        leaves = self.leaves()
        return pose(leaves["input"], leaves["weight"], None, 1, self.padding, self.channels[2])[1]

    def output(self, leaves):
        return large_kernel_conv(**leaves, padding=self.padding, groups=self.channels[2], method="fft")

    def run(self, leaves, wanted=None):
        return answers(lambda: self.output(leaves), wanted or leaves)

    def torch(self, leaves, wanted=None):
        """Torch's own convolution of a map padded beforehand."""
        pads = [cells for pair in reversed(padding_pairs(self.padding, self.kernel)) for cells in pair]
        convolve = CONVOLUTIONS[len(self.kernel)]

        def call():
            padded = F.pad(leaves["input"], pads)
            return convolve(padded, leaves["weight"], leaves["bias"], groups=self.channels[2])

        return answers(call, wanted or leaves)

    def check(self, channels_last=False):
        leaves = self.leaves(channels_last)
        assert_equal_to_rounding(self.run(leaves), self.torch(leaves))


CHANNELS = {
    "depthwise": (3, 3, 3),
    "one": (1, 1, 1),
    "multiplier": (2, 4, 2),
    "grouped": (4, 6, 2),
    "dense": (3, 2, 1),
}
every_channels = pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
LARGE = [
    Call((130,), (5,)),
    Call((211,), (6,)),
    Call((97, 5), (4, 3)),
    Call((6, 101), (3, 5), (1, 2)),
    Call((99, 98), (3, 2), "valid", batch=1),
    Call((3, 98, 4), (2, 3, 3)),
]
every_large = pytest.mark.parametrize("call", LARGE, ids=lambda call: f"{call.map}-{call.kernel}")
every_layout = pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])


@pytest.fixture(params=["matrix", "fast"])
def transform(request, monkeypatch):
    """Each way into frequencies, whatever the lengths."""
    monkeypatch.setattr(fft, "MATRIX_LENGTH", 192 if request.param == "matrix" else 0)
    return request.param


# Tiles


@every_large
def test_large_maps_are_cut_into_tiles(call):
    problem = call.problem()
    plan = fft.tiling(problem)
    assert isinstance(plan.transform(), MatrixTransform)
    for size, outputs, cells, length in zip(call.map, problem.outputs, plan.cells, plan.lengths, strict=True):
        if size < 90:
            assert cells == outputs
        else:
            assert cells < outputs
            assert length < size


def test_small_maps_are_not_cut():
    for call in (Call((56, 56), (31, 31)), Call((90,), (3,)), Call((7, 7), (13, 13))):
        problem = call.problem()
        assert fft.tiling(problem).cells == problem.outputs


@st.composite
def problems(draw):
    dims = draw(st.integers(1, 2))
    maps, kernel, padding = [], [], []
    for _ in range(dims):
        taps = draw(st.integers(1, 90))
        pads = draw(st.integers(0, taps - 1)), draw(st.integers(0, taps - 1))
        maps.append(draw(st.integers(max(1, taps - sum(pads)), 700)))
        kernel.append(taps)
        padding.append(pads)
    return Problem(2, 1, 1, 1, tuple(maps), tuple(kernel), (1,) * dims, tuple(padding), "cpu", torch.float32)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problem=problems())
def test_tiles_hold_every_output_once_and_all_that_it_reads(problem):
    plan = fft.tiling(problem)
    seen = torch.zeros(problem.outputs, dtype=torch.int64)
    for tile in fft._tiles(problem, plan):
        seen[tile.outputs] += 1
        of_tile = tile.outputs, tile.window, tile.offset
        of_problem = problem.map, problem.kernel, problem.padding
        rows = zip(*of_tile, plan.lengths, *of_problem, strict=True)
        for outputs, window, offset, length, size, taps, (before, _) in rows:
            first, last = outputs.start - before, outputs.stop - 1 - before + taps - 1
            assert (window.start, window.stop) == (max(first, 0), min(last + 1, size))
            assert offset == window.start - first
            assert offset + window.stop - window.start <= length
            # What wraps around the circle finds padding alone.
            assert last - first - length < (offset if last >= size else 0)
    assert (seen == 1).all()


@every_layout
@every_channels
@every_large
def test_tiled_maps_are_torchs(call, channels, channels_last, transform, monkeypatch):
    monkeypatch.setattr(fft, "UNCUT_LENGTH_OF_GROUPS", fft.UNCUT_LENGTH)
    call = replace(call, channels=channels)
    plan = fft.tiling(call.problem())
    assert isinstance(plan.transform(), MatrixTransform) == (transform == "matrix")
    assert max(plan.lengths) < max(call.map)
    call.check(channels_last)


@every_channels
@pytest.mark.parametrize(
    "call",
    [Call((17,), (7,)), Call((9, 8), (4, 5)), Call((5, 6), (9, 11)), Call((3, 4, 5), (3, 2, 4)), Call((1, 6), (1, 3))],
    ids=lambda call: f"{call.map}-{call.kernel}",
)
def test_maps_in_one_piece_are_torchs(call, channels, transform):
    replace(call, channels=channels).check()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    "call", [Call((130,), (8,)), Call((101, 7), (4, 2)), Call((2, 3, 97), (2, 2, 4))], ids=lambda call: str(call.map)
)
def test_the_odd_cell_of_same_padding_goes_after_the_map(call, transform):
    leaves = call.leaves()
    convolve = CONVOLUTIONS[len(call.kernel)]
    expected = answers(lambda: convolve(*leaves.values(), padding="same", groups=2), leaves)
    assert_equal_to_rounding(call.run(leaves), expected)


# Blocks of the batch


@every_layout
@every_channels
@pytest.mark.parametrize("call", [Call((9,), (5,)), Call((7, 8), (3, 4)), Call((99, 4), (3, 3))], ids=str)
def test_blocks_of_the_batch_are_torchs(call, channels, channels_last, transform, monkeypatch):
    """Blocks of 2, 2 and 1 samples."""
    whole = fft.tiling
    monkeypatch.setattr(fft, "tiling", lambda problem: replace(whole(problem), rows=2))
    replace(call, channels=channels, batch=5).check(channels_last)


def test_blocks_of_a_depthwise_batch_stay_in_cache(monkeypatch):
    call = Call((20, 20), (5, 5), batch=7)
    assert fft.tiling(call.problem()).rows >= 7
    lengths = fft.tiling(call.problem()).lengths
    monkeypatch.setattr(fft, "BLOCK_BYTES", 3 * 4 * lengths[0] * lengths[1] * 2)
    assert fft.tiling(call.problem()).rows == 3
    call.check()
    monkeypatch.setattr(fft, "BLOCK_BYTES", 1)
    assert fft.tiling(call.problem()).rows == 1
    call.check()


@every_layout
@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("call", [Call((9,), (5,)), Call((7, 8), (3, 4)), Call((3, 4, 5), (2, 3, 3))], ids=str)
def test_parts_of_a_dense_kernel_are_torchs(call, inputs, channels_last, monkeypatch):
    """Parts of 2, 2 and 1 output channels."""
    call = replace(call, channels=(inputs, 5, 1))
    assert fft.tiling(call.problem()).channels == 5
    monkeypatch.setattr(fft, "KERNEL_BYTES", 4 * math.prod(fft.tiling(call.problem()).lengths) * inputs * 2)
    assert fft.tiling(call.problem()).channels == 2
    call.check(channels_last)
    monkeypatch.setattr(fft, "BLOCK_BYTES_OF_GROUPS", 1)
    assert fft.tiling(call.problem()).channels == 5  # each block of the batch would transform the kernel again
    call.check(channels_last)


# What is asked for


@every_channels
@pytest.mark.parametrize("wanted", ["input", "weight", "bias"])
@pytest.mark.parametrize("call", [Call((130,), (5,)), Call((7, 8), (4, 5))], ids=str)
def test_one_gradient_alone(call, wanted, channels):
    call = replace(call, channels=channels)
    leaves = {name: leaf.requires_grad_(name == wanted) for name, leaf in call.leaves().items()}
    only = {wanted: leaves[wanted]}
    assert_equal_to_rounding(call.run(leaves, only), call.torch(leaves, only))


# Memory


class LargestBytes(TorchDispatchMode):
    """Notes the most memory that one operation's result holds."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@every_layout
@pytest.mark.parametrize(
    "call", [Call((200, 210), (5, 5), batch=1), Call((9000,), (31,), batch=4), Call((9000,), (101,), batch=4)], ids=str
)
def test_large_maps_take_no_larger_tensors(call, channels_last):
    """Forward and backward: tiles are small, so that nothing is larger than the map itself."""
    leaves = call.leaves(channels_last, torch.float32)
    cotangent = torch.ones_like(leaves["input"])
    with LargestBytes() as largest:
        call.output(leaves).backward(cotangent)
    assert largest.bytes <= leaves["input"].nbytes


# Transforms

# Lengths, sizes and offsets: sizes and offsets together are within the circle.
CIRCLES = [
    ((1,), (1,), (0,)),
    ((2,), (2,), (0,)),
    ((9,), (9,), (0,)),
    ((10,), (6,), (0,)),
    ((11,), (4,), (5,)),
    ((12,), (4,), (8,)),
    ((6, 7), (6, 7), (0, 0)),
    ((7, 6), (3, 5), (2, 1)),
    ((8, 10), (5, 4), (0, 6)),
    ((4, 5, 6), (3, 2, 6), (1, 3, 0)),
    ((5, 4, 7), (5, 1, 3), (0, 2, 4)),
]
every_circle = pytest.mark.parametrize(("lengths", "sizes", "offsets"), CIRCLES)


def around(cells, lengths, offsets):
    """The whole circles of which these are the cells at the offsets."""
    rows = list(zip(lengths, cells.shape[1:-1], offsets, strict=True))
    return F.pad(cells, [0, 0, *(pad for length, size, at in reversed(rows) for pad in (at, length - size - at))])


def as_complex(spectrum):
    return spectrum if spectrum.is_complex() else torch.complex(spectrum[:, :1], spectrum[:, 1:])


@every_circle
def test_both_transforms_give_the_same_spectrum(lengths, sizes, offsets):
    cells = normal(2, *sizes, 3).detach()
    by_matrix = as_complex(MatrixTransform(lengths).forward(cells, offsets))
    fast = FastTransform(lengths).forward(cells, offsets)
    frequencies = [kept_frequencies(length, axis == len(lengths) - 1) for axis, length in enumerate(lengths)]
    assert by_matrix.shape == (2, 1, torch.Size(frequencies).numel(), 3)
    torch.testing.assert_close(by_matrix, fast, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [MatrixTransform, FastTransform])
@every_circle
def test_there_and_back(kind, lengths, sizes, offsets):
    """Of the cells, and of all around the circle."""
    cells = normal(2, *sizes, 3).detach()
    transform = kind(lengths)
    spectrum = transform.forward(cells, offsets).clone()
    back = transform.inverse(spectrum, sizes, offsets)
    torch.testing.assert_close(back, cells, rtol=1e-12, atol=1e-12)
    circle = transform.inverse(spectrum, lengths, (0,) * len(lengths))
    torch.testing.assert_close(circle, around(cells, lengths, offsets), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("lengths", "sizes"), [((7,), (5,)), ((6,), (5,)), ((5, 8), (4, 6))], ids=str)
def test_the_matrix_takes_cells_at_any_offset(lengths, sizes):
    """They wrap around the circle."""
    cells = normal(1, *sizes, 2).detach()
    transform, start = MatrixTransform(lengths), (0,) * len(lengths)
    padded = around(cells, lengths, start)
    for offsets in itertools.product(*(range(-2, length + 3) for length in lengths)):
        spectrum = transform.forward(cells, offsets)
        circle = transform.inverse(spectrum, lengths, start)
        rolled = padded.roll(offsets, tuple(range(1, 1 + len(lengths))))
        torch.testing.assert_close(circle, rolled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [(5, 5, 5), (6, 9, 3)], ids=["depthwise", "grouped"])
@pytest.mark.parametrize("once", [1, 2])
def test_large_kernels_in_parts_of_their_groups(channels, once, monkeypatch):
    call = calls.Call((9, 8), (5, 4), "same", channels=channels)
    _, problem = pose(**call.leaves(), **call.options())
    whole = fft.kernel_bytes(problem)
    monkeypatch.setattr(fft, "MOST_KERNEL_BYTES", whole * once // channels[2])
    assert fft.kernel_bytes(problem) == whole * once // channels[2]
    call.check("fft")


@pytest.mark.compiles
def test_operators_of_mixed_channels_are_what_they_say():
    input, weight, gradient = (normal(*shape).detach() for shape in ((2, 4, 9), (6, 2, 5), (2, 6, 7)))
    operators, settings = torch.ops.torchdcls, (2, 1)  # groups, cells of padding before
    torch.library.opcheck(operators.mixed_convolve, (input, weight, *settings, 7))
    torch.library.opcheck(operators.mixed_transpose, (gradient, weight, *settings, 9))
    torch.library.opcheck(operators.mixed_correlate, (input, gradient, *settings, 5))
    expected = torch.nn.functional.conv1d(input, weight, padding=1, groups=2)
    torch.testing.assert_close(operators.mixed_convolve(input, weight, *settings, 7), expected)
    expected = torch.nn.functional.conv_transpose1d(gradient, weight, padding=1, groups=2)
    torch.testing.assert_close(operators.mixed_transpose(gradient, weight, *settings, 9), expected)
    expected = torch.nn.grad.conv1d_weight(input, weight.shape, gradient, padding=1, groups=2)
    torch.testing.assert_close(operators.mixed_correlate(input, gradient, *settings, 5), expected)
