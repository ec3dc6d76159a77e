"""What launches are told, and when there are none: the device functions are stand-ins, so that no program runs."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")

import triton.language as tl

from torchdcls import large_kernel_conv2d
from torchdcls.ops import gpu
from torchdcls.ops.conv.triton import Banded, BandedWeightGradient, Multiplied, kernels, launch, pinned, tuning
from torchdcls.ops.conv.triton.configurations import Sizes


class Launched:
    """Stands for a device function, and keeps what it was told."""

    def __init__(self, function):
        self.names = function.arg_names
        self.programs, self.told = [], []

    def __getitem__(self, grid):
        self.programs.append(grid)
        return self

    def __call__(self, *values, **constants):
        told = dict(zip(self.names, values, strict=False)) | constants
        for option in ("num_warps", "num_stages", "maxnreg"):
            told.pop(option, None)
        assert list(told) == self.names
        self.told.append(told)


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """What was launched, by the name of the device function."""
    stand_ins = {
        name: Launched(getattr(kernels, name)) for name in ("bands", "banded", "multiplied", "banded_weight_gradient")
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(kernels, name, stand_in)
    return stand_ins


def maps(*shape, dtype=torch.float32, last=False):
    made = torch.randn(shape, dtype=dtype)
    return made.contiguous(memory_format=torch.channels_last) if last else made


BANDED, GRADIENT, MULTIPLIED = (
    Banded(4, 1, 8, 16, 8, 8, 16),
    BandedWeightGradient(4, 1, 8, 16, 8, 8, 16),
    Multiplied(4, 1, 1, 32),
)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("blocks", [BANDED, MULTIPLIED])
def test_maps_are_read_and_written_where_they_are(launched, blocks, last):
    """And not a copy of them: a slice too."""
    input, output = maps(2, 20, 9, 7, last=last)[:, 2:18], maps(2, 16, 9, 7, last=last)
    with pinned(output=blocks):
        launch.convolve(input, maps(16, 1, 3, 5), maps(16)[:16], [1, 2], output)
    (told,) = launched["banded" if isinstance(blocks, Banded) else "multiplied"].told
    assert told["input"].data_ptr() == input.data_ptr()
    assert told["output"].data_ptr() == output.data_ptr()
    strides = [told[f"{map}_{axis}"] for map in ("input", "output") for axis in ("sample", "channel", "row", "column")]
    assert strides == [*input.stride(), *output.stride()]
    assert [told["kernel_rows"], told["kernel_columns"]] == [3, 5]


def test_maps_are_differentiated_where_they_are(launched):
    input, gradient = maps(2, 16, 9, 7), maps(2, 16, 9, 7)
    with pinned(weight_gradient=GRADIENT):
        launch.differentiate(input, gradient, [1, 2], [3, 5])
    (told,) = launched["banded_weight_gradient"].told
    assert told["input"].data_ptr() == input.data_ptr()
    assert told["gradient"].data_ptr() == gradient.data_ptr()


@pytest.mark.parametrize(
    ("dtype", "precision", "sum"),
    [
        (torch.float32, "tf32x3", tl.float32),
        (torch.bfloat16, "ieee", tl.float32),
        (torch.float16, "ieee", tl.float32),
        (torch.float64, "ieee", tl.float64),
    ],
    ids=str,
)
def test_sums_are_precise(launched, dtype, precision, sum):
    """Three products of 19 bits for one of float32, not one."""
    input = maps(2, 16, 9, 7, dtype=dtype)
    with pinned(BANDED, GRADIENT):
        launch.convolve(input, maps(16, 1, 3, 3, dtype=dtype), None, [1, 1], torch.empty_like(input))
        launch.differentiate(input, input, [1, 1], [3, 3])
    for name in ("banded", "banded_weight_gradient"):
        (told,) = launched[name].told
        assert (told["PRECISION"], told["SUM"]) == (precision, sum)
    # Summed in one part or in several: as the programs that are compiled ahead of time have it.
    assert launched["banded_weight_gradient"].told[0]["parts"].dtype == torch.promote_types(dtype, torch.float32)
    assert launched["banded"].told[0]["biases"] == 0


def test_banded_matrices_of_many_channels_are_made_in_parts(launched, monkeypatch):
    cells = BANDED.band_cells(Sizes(2, 20, (9, 7), (9, 7), (1, 1), (3, 3)))
    monkeypatch.setattr(launch, "MOST_BAND_CELLS", 8 * cells + 5)
    input, output = maps(2, 20, 9, 7), torch.empty(2, 20, 9, 7)
    with pinned(output=BANDED):
        launch.convolve(input, maps(20, 1, 3, 3), maps(20), [1, 1], output)
    told = launched["banded"].told
    assert [one["channels"] for one in told] == [8, 8, 4] == [one["biases"] for one in told]
    assert [one["input"].data_ptr() for one in told] == [input[:, first].data_ptr() for first in (0, 8, 16)]
    assert [one["bands"].numel() for one in told] == [8 * cells, 8 * cells, 4 * cells]


@pytest.mark.parametrize("what", ["output", "weight"])
def test_far_tensors_have_far_offsets(launched, what):
    """Of any tensor that is read or written."""
    far = torch.empty(1, device="meta").as_strided((2, 1, 3, 3), (2**31, 9, 3, 1))
    near = torch.empty(2, 1, 3, 3, device="meta")
    sizes = Sizes(2, 1, (3, 3), (3, 3), (1, 1), (3, 3))
    tensors = {"output": (near, far), "weight": (near, near, far)}[what]
    assert launch._offset_type(sizes, *tensors) == tl.int64
    assert launch._offset_type(sizes, near, near) == tl.int32
    patches = Sizes(2**26, 1, (1, 32), (1, 32), (0, 1), (1, 3))
    assert launch._offset_type(patches, near) == tl.int64


def test_the_kernel_counts_into_its_offsets(launched):
    """As the only tensor that lies far: of few channels and many taps, in tests by a stride."""
    asked = []
    original = launch._offset_type
    launch_type = lambda sizes, *tensors: asked.append(tensors) or original(sizes, *tensors)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch, pinned(output=MULTIPLIED):
        patch.setattr(launch, "_offset_type", launch_type)
        weight, input = maps(4, 1, 3, 3), maps(2, 4, 9, 7)
        launch.convolve(input, weight, None, [1, 1], torch.empty_like(input))
    assert all(any(tensor is weight for tensor in tensors) for tensors in asked)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, (True, False)),
        ({"channels": 24}, (True, True)),
        ({"first": 2}, (True, True)),
        ({"last": False}, (False, False)),
    ],
)
def test_registers_are_scarce_where_neighbours_are_not_read_together(change, kind):
    made = {"channels": 32, "first": 0, "last": True, **change}
    map = maps(2, made["channels"] + 16, 4, 4, last=made["last"])[:, made["first"] :][:, : made["channels"]]
    assert launch._kind(tl.int32, map, map) == kind
    assert launch._kind(tl.int64, map, map) == (made["last"], True)


def test_nothing_is_measured_while_a_region_is_traced(launched, monkeypatch):
    """There are no numbers to launch with."""

    def refuse(*args):
        raise AssertionError("measured")

    monkeypatch.setattr(tuning, "may_measure", lambda device: True)
    monkeypatch.setattr(tuning, "milliseconds", refuse)
    monkeypatch.setattr(gpu, "_installed", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with FakeTensorMode():
        input, weight = torch.empty(2, 16, 9, 7, requires_grad=True), torch.empty(16, 1, 9, 9, requires_grad=True)
        output = large_kernel_conv2d(input, weight, None, 1, 4, 16, method="triton")
        output.sum().backward()
        assert weight.grad.shape == weight.shape
    assert not any(stand_in.told for stand_in in launched.values())
    with pytest.raises(AssertionError, match="measured"):
        launch.convolve(maps(2, 16, 9, 7), maps(16, 1, 9, 9), None, [4, 4], maps(2, 16, 9, 7))


# The operators, which compiled graphs name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": maps(2, 4)}, r"input: expected \(batch, channels, \*map\) of 1 to 3 axes, got shape \(2, 4\)"),
        ({"weight": maps(4, 1, 3)}, r"weight: expected 4 axes, as input has, got shape \(4, 1, 3\)"),
        ({"weight": maps(3, 1, 3, 3)}, r"weight: expected \(4, 1, \*kernel\), got \(3, 1, 3, 3\)"),
        ({"weight": maps(4, 1, 3, 3).half()}, r"weight: expected torch.float32 on cpu, as input is, got torch.float16"),
        (
            {"weight": maps(4, 1, 3, 3).to("meta")},
            r"weight: expected torch.float32 on cpu, .* got torch.float32 on meta",
        ),
        ({"bias": maps(3)}, r"bias: expected \(4,\), got \(3,\)"),
        ({"before": [1]}, r"before: expected 2 numbers, one per axis, got \(1,\)"),
        ({"sizes": [9, 9, 9]}, r"sizes: expected 2 numbers, one per axis"),
    ],
)
def test_the_operator_refuses_what_its_programs_would_read_beyond(launched, arguments, message):
    sizes = {"stride": [1, 1], "before": [1, 1], "sizes": [9, 9]}
    right = {"input": maps(2, 4, 9, 9), "weight": maps(4, 1, 3, 3), "bias": None, **sizes}
    with pytest.raises(ValueError, match=message):
        torch.ops.torchdcls.triton_convolve(**{**right, **arguments})
    assert launched["banded"].told == launched["multiplied"].told == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradient": maps(2, 3, 9, 9)}, r"gradient: expected samples and channels of input, \(2, 4\)"),
        ({"gradient": maps(2, 4, 9, 9).double()}, r"gradient: expected torch.float32 on cpu"),
        ({"sizes": [3]}, r"sizes: expected 2 numbers, one per axis"),
    ],
)
def test_the_operator_of_the_gradient_refuses_too(launched, arguments, message):
    sizes = {"stride": [1, 1], "before": [1, 1], "sizes": [3, 3]}
    right = {"input": maps(2, 4, 9, 9), "gradient": maps(2, 4, 9, 9), **sizes}
    with pytest.raises(ValueError, match=message):
        torch.ops.torchdcls.triton_correlate(**{**right, **arguments})
    assert launched["banded_weight_gradient"].told == []
