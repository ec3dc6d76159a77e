"""What the Triton method is given and refused, and how it divides its work: no program runs here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchdcls import Dcls2d, explain_method, large_kernel_conv2d
from torchdcls.ops import gpu
from torchdcls.ops.conv import select
from torchdcls.ops.conv.problem import Problem
from torchdcls.ops.conv.triton import TRITON, Banded, BandedWeightGradient, Multiplied, pinned, tuning
from torchdcls.ops.conv.triton.configurations import (
    SIDE,
    SPLIT_PROGRAMS,
    Patches,
    Sizes,
    for_output,
    for_weight_gradient,
    patches_of,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def problem(map=(56, 56), kernel=(23, 23), dtype=torch.bfloat16, device="cuda", **changed):
    padding = tuple((taps // 2, taps // 2) for taps in kernel)
    sizes = {"batch": 128, "in_channels": 96, "out_channels": 96, "groups": 96, "stride": (1,) * len(map)}
    return Problem(**{**sizes, **changed}, map=map, kernel=kernel, padding=padding, device=device, dtype=dtype)


@pytest.fixture(autouse=True)
def _triton_is_installed(monkeypatch):
    """Whether it is or not: no program runs here."""
    monkeypatch.setattr(gpu, "_installed", lambda: True)
    gpu._too_old.cache_clear()
    yield
    gpu._too_old.cache_clear()


# What it cannot run


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"out_channels": 192}, r"channels are 96 and 192 in 96 groups"),
        ({"map": (9, 9, 9), "kernel": (3, 3, 3)}, r"along one or two axes, and the kernel has three"),
        ({"stride": (2, 2)}, r"stride \(2, 2\) skips most of them"),
        ({"dtype": torch.float8_e5m2}, r"it does not support torch.float8_e5m2"),
        ({"dtype": torch.int64}, r"it needs real floating-point tensors"),
        ({"batch": 0}, r"the batch is empty"),
        ({"device": "mps"}, r"it runs on CUDA, not on mps"),
    ],
)
def test_refuses(changed, reason):
    assert select.unsupported_reason(TRITON, problem()) is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(select.unsupported_reason(TRITON, problem(**changed)))


@pytest.mark.parametrize("value", [None, "0"])
def test_refuses_cpu_without_the_interpreter(value, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    message = r"method: 'triton' cannot run this call: on CPU it runs only in Triton's interpreter"
    with pytest.raises(ValueError, match=message):
        large_kernel_conv2d(torch.ones(1, 2, 9, 9), torch.ones(2, 1, 5, 5), groups=2, method="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert select.unsupported_reason(TRITON, problem(device="cpu")) is None


def test_refuses_without_triton(monkeypatch):
    monkeypatch.setattr(gpu, "_installed", lambda: False)
    assert select.unsupported_reason(TRITON, problem()) == "Triton is not installed (it comes with torch for CUDA)"


def test_refuses_old_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: asked.append(1) or (7, 5))
    select.unsupported_reason(TRITON, problem(batch=2))
    assert select.unsupported_reason(TRITON, problem()) == "it needs a GPU of compute capability 8.0 or above"
    assert asked == [1]  # once, not at every call


def test_refuses_other_makers_gpus(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert select.unsupported_reason(TRITON, problem()) == "it is made for NVIDIA GPUs"


def test_layers_without_numbers():
    layer = Dcls2d(4, 4, 2, dilated_kernel_size=5, padding="same", groups=4, method="triton", device="meta")
    for memory_format in (torch.contiguous_format, torch.channels_last):
        input = torch.empty(2, 4, 9, 8, device="meta").to(memory_format=memory_format)
        output = layer(input)
        assert output.shape == input.shape
        assert output.is_contiguous(memory_format=memory_format)


# What auto takes on CUDA


@pytest.mark.parametrize(
    ("changed", "method"),
    [
        ({}, "triton"),
        ({"kernel": (9, 3)}, "triton"),
        ({"kernel": (63, 63), "map": (64, 64)}, "triton"),
        ({"kernel": (31,), "map": (400,)}, "triton"),
        ({"kernel": (7, 7)}, "direct"),
        ({"out_channels": 192}, "direct"),
        ({"stride": (2, 2)}, "direct"),
        ({"kernel": (65, 65), "map": (64, 64)}, "fft"),
        ({"kernel": (101,), "map": (4000,), "dtype": torch.float32}, "fft"),
        ({"kernel": (101, 101), "map": (4000, 4000)}, "fft"),
        ({"kernel": (3, 3, 65), "map": (70, 70, 70), "in_channels": 2, "out_channels": 2, "groups": 1}, "direct"),
    ],
    ids=str,
)
def test_auto_on_cuda(changed, method):
    assert select.choose(problem(**changed), "convolve", True, True) == select.Plan.of_one(method)


def test_auto_on_cpu_leaves_the_interpreter_alone(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert select.reason_against(TRITON, problem(device="cpu")) == "its interpreter is for tests"


def test_auto_differentiates_forward_by_another_method():
    with torch.autograd.forward_ad.dual_level():
        assert select.choose(problem(), "convolve") == select.Plan.of_one("direct")


def test_explains_cuda(capsys):
    explain_method((128, 96, 56, 56), (96, 1, 23, 23), padding=11, groups=96, device="cuda", dtype=torch.bfloat16)
    text = capsys.readouterr().out
    assert "triton     can run; times are known on CPU alone" in text
    assert "native     not taken: it is compiled for CPUs" in text
    assert "fft        not taken: it is expected to be faster only for depthwise kernels of more than 63 taps" in text
    assert text.endswith("auto takes: output by triton, input gradient by triton, weight gradient by triton\n")
    assert "auto counts" not in text


# How it divides its work


@st.composite
def sizes(draw):
    rows, columns = (draw(st.integers(1, 300)) for _ in range(2))
    kernel, padding = (tuple(draw(st.integers(least, 63)) for _ in range(2)) for least in (1, 0))
    samples, channels = draw(st.integers(1, 300)), draw(st.integers(1, 1000))
    map_out = tuple(
        max(1, size + 2 * pad - taps + 1) for size, pad, taps in zip((rows, columns), padding, kernel, strict=True)
    )
    return Sizes(samples, channels, (rows, columns), map_out, padding, kernel)


def is_power_of_two(number):
    return number == 1 << (number.bit_length() - 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(sizes=sizes(), dtype=st.sampled_from(DTYPES), last=st.booleans(), tight=st.booleans())
def test_blocks_cover_the_output_and_suit_matrix_products(sizes, dtype, last, tight):
    for blocks in for_output(sizes, dtype, last, tight):
        assert all(is_power_of_two(size) for size in blocks.constants().values())
        if isinstance(blocks, Banded):
            assert min(blocks.patches, blocks.rows * blocks.columns, blocks.chunk) >= SIDE
            patches = patches_of(blocks, sizes)
            sides = patches.samples, patches.down * blocks.rows, patches.across * blocks.columns
            assert 1 <= patches.samples * patches.down * patches.across <= blocks.patches
            cells = blocks.block_channels * math.prod(sides)
        else:
            cells = blocks.block_channels * blocks.block_cells
        assert blocks.programs(sizes) * cells >= sizes.samples * sizes.channels * math.prod(sizes.map_out)
    for blocks in for_weight_gradient(sizes, dtype, last, tight):
        assert all(is_power_of_two(size) for size in blocks.constants().values())
        assert min(blocks.patches, blocks.rows * blocks.columns, blocks.chunk) >= SIDE
        assert blocks.splits(sizes) >= 1
        assert blocks.splits(sizes) == 1 or blocks.programs(sizes) * blocks.splits(sizes) <= 2 * SPLIT_PROGRAMS


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sizes=sizes(), dtype=st.sampled_from(DTYPES), last=st.booleans(), tight=st.booleans())
def test_a_measurement_does_not_change_what_is_summed_together(sizes, dtype, last, tight):
    """What a program sums at once, and what the programs give that is summed."""
    candidates = for_weight_gradient(sizes, dtype, last, tight)
    assert len({(blocks.patches, blocks.columns, blocks.splits(sizes)) for blocks in candidates}) == 1


def test_parts_of_a_sum_take_little_memory():
    """Of as many channels and taps as there may be: no part but the sum."""
    for channels, side in ((4096, 63), (96, 23), (8, 63)):
        sizes = Sizes(4096, channels, (64, 64), (64, 64), (side // 2, side // 2), (side, side))
        for last in (False, True):
            for blocks in for_weight_gradient(sizes, torch.bfloat16, last):
                splits = blocks.splits(sizes)
                assert splits == 1 or splits * channels * side**2 * 4 <= 2**26


def test_patches_lie_side_by_side_where_it_costs_few_products():
    blocks = Banded(8, 1, 8, 64, 8, 8, 16)
    assert patches_of(blocks, Sizes(128, 96, (56, 56), (56, 56), (11, 11), (23, 23))) == Patches(9, 1, 7)
    assert patches_of(blocks, Sizes(128, 384, (14, 14), (14, 14), (11, 11), (23, 23))) == Patches(64, 1, 1)
    assert patches_of(blocks, Sizes(1, 96, (56, 56), (56, 56), (2, 2), (5, 5))) == Patches(1, 7, 7)


def test_wide_chunks_are_not_the_guess_where_they_are_padding():
    for side, taps, chunk in ((56, 23, 32), (14, 23, 16), (7, 13, 16)):
        sizes = Sizes(128, 384, (side, side), (side, side), (taps // 2, taps // 2), (taps, taps))
        assert for_output(sizes, torch.bfloat16, False)[0].chunk == chunk


def test_small_blocks_are_the_guess_where_large_ones_leave_a_gpu_idle():
    sizes = [Sizes(samples, 96, (56, 56), (56, 56), (11, 11), (23, 23)) for samples in (128, 1)]
    patches = [for_output(each, torch.bfloat16, True)[0].patches for each in sizes]
    assert patches == [64, 16]


def test_few_taps_are_multiplied_first():
    guess, *_ = for_output(Sizes(1, 8, (9, 9), (9, 9), (2, 2), (5, 5)), torch.float32, False)
    assert isinstance(guess, Multiplied)
    guess, *_ = for_output(Sizes(1, 8, (9, 9), (9, 9), (3, 3), (7, 7)), torch.float32, False)
    assert isinstance(guess, Banded)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Banded(4, 2, 1, 24, 1, 16, 16), r"Banded.patches: expected a power of two, got 24"),
        (lambda: Banded(3, 2, 1, 16, 1, 16, 16), r"Banded.warps: expected a power of two, got 3"),
        (lambda: Banded(4, 2, 1, 8, 1, 16, 16), r"Banded: expected at least 16 patches, got 8"),
        (lambda: Banded(4, 2, 1, 16, 1, 8, 16), r"Banded: expected at least 16 cells a patch, got 8"),
        (lambda: BandedWeightGradient(4, 2, 1, 16, 1, 16, 8), r"expected at least 16 columns a chunk, got 8"),
        (lambda: BandedWeightGradient(4, 2, 1, 16, 1, 32, 16), r"expected no more columns than a chunk has, 16"),
        (lambda: Multiplied(4, 1, True, 8), r"Multiplied.block_channels: expected a power of two, got True"),
        (lambda: Multiplied(4, 1, 0, 8), r"Multiplied.block_channels: expected a power of two, got 0"),
    ],
)
def test_refuses_blocks_that_no_program_can_have(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_launch_has_more_programs_than_a_grid():
    """Cells beyond 2**31, one program for each."""
    for sizes in (
        Sizes(2**22, 1024, (1, 1), (1, 1), (1, 1), (3, 3)),
        Sizes(2**18, 2**13, (1, 9), (1, 9), (0, 1), (1, 3)),
    ):
        for last in (False, True):
            candidates = for_output(sizes, torch.bfloat16, last)
            assert candidates
            assert all(blocks.programs(sizes) < 2**31 for blocks in candidates)


def test_many_taps_are_not_tried_one_by_one():
    sizes = Sizes(8, 8, (64, 64), (64, 64), (31, 31), (63, 63))
    assert not any(isinstance(blocks, Multiplied) for blocks in for_output(sizes, torch.float32, False))


# Which division is taken

CANDIDATES = [Multiplied(4, 1, 1, cells) for cells in (32, 64, 128)]


@pytest.fixture
def measured(monkeypatch):
    """Which candidates are measured; the second is the fastest."""
    measured = []
    monkeypatch.setattr(tuning, "_measured", {})
    monkeypatch.setattr(tuning, "may_measure", lambda device: True)
    times = dict(zip(CANDIDATES, (1.1, 1.0, 2.0), strict=True))
    monkeypatch.setattr(tuning, "milliseconds", lambda run, blocks: measured.append(blocks) or times[blocks])
    return measured


def choose(key="key"):
    return tuning.tuned("output", CANDIDATES, key, lambda blocks: None, torch.device("cuda"))


def test_the_fastest_is_taken_and_measured_once(measured):
    assert [choose() for _ in range(3)] == [CANDIDATES[1]] * 3
    assert measured == CANDIDATES
    choose("another")
    assert measured == CANDIDATES * 2


def test_a_small_gain_is_none(measured, monkeypatch):
    """The best guess is left for a difference that noise does not make."""
    monkeypatch.setattr(tuning, "milliseconds", lambda run, blocks: 1.0 - 0.04 * (blocks == CANDIDATES[1]))
    assert choose() == CANDIDATES[0]


def test_deterministic_results_follow_no_measurement(measured):
    assert choose() == CANDIDATES[1]
    torch.use_deterministic_algorithms(True)
    try:
        assert choose() == choose("another") == CANDIDATES[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert measured == CANDIDATES


def test_one_candidate_is_not_measured(measured):
    assert tuning.tuned("output", CANDIDATES[2:], "", lambda blocks: None, torch.device("cuda")) == CANDIDATES[2]
    assert measured == []


def test_nothing_is_measured_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(tuning, "_measured", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert choose() == CANDIDATES[0]
    assert tuning._measured == {}
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert tuning.may_measure(torch.device("cuda"))
    assert not tuning.may_measure(torch.device("cpu"))


def test_what_is_pinned_is_taken(measured):
    gradient = BandedWeightGradient(4, 2, 1, 32, 4, 16, 16)
    with pinned(output=CANDIDATES[2]):
        assert choose() == CANDIDATES[2]
        with pinned(weight_gradient=gradient):
            assert choose() == CANDIDATES[1]
            assert tuning.tuned("weight gradient", [], "", lambda blocks: None, torch.device("cuda")) == gradient
        assert choose() == CANDIDATES[2]
    assert choose() == CANDIDATES[1]
    assert measured == CANDIDATES


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"output": BandedWeightGradient(4, 2, 1, 32, 4, 16, 16)},
            "output: expected Banded, Multiplied or None, got Banded",
        ),
        ({"weight_gradient": CANDIDATES[0]}, "weight_gradient: expected BandedWeightGradient or None, got Multiplied"),
        ({"output": "fast"}, "output: expected Banded, Multiplied or None, got 'fast'"),
    ],
)
def test_refuses_to_pin(wrong, message):
    with pytest.raises(TypeError, match=message), pinned(**wrong):
        pass


def test_configurations_that_take_too_much_lose(monkeypatch):
    pytest.importorskip("triton")
    from triton.runtime.errors import OutOfResources

    def run(blocks):
        raise OutOfResources(300_000, 232_448, "shared memory")

    assert tuning.milliseconds(run, CANDIDATES[0]) == math.inf


@pytest.mark.parametrize(("warps", "most"), [(2, 255), (8, 255), (16, 128)])
def test_registers_are_taken_where_they_are_scarce(warps, most):
    blocks = Banded(warps, 2, 1, 64, 2, 16, 32)
    assert blocks.options(False) == {"num_warps": warps, "num_stages": 2}
    assert blocks.options(True) == blocks.options(False) | {"maxnreg": most}


def test_a_configuration_says_what_its_program_is_told():
    blocks = Banded(4, 2, 1, 64, 2, 16, 32)
    assert blocks.constants() == {"BLOCK_CHANNELS": 1, "PATCHES": 64, "ROWS": 2, "COLUMNS": 16, "CHUNK": 32}
