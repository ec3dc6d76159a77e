"""Channels mixed by spectra of the compiled library, which serves "fft" along one axis."""

import pytest
import torch
import torch.nn.functional as F
from cases import answers, assert_as_exact_as, assert_equal_to_rounding, needs_kernels, normal

from torchdcls import large_kernel_conv
from torchdcls.ops.conv import fft, mixed
from torchdcls.ops.conv.posing import pose

pytestmark = needs_kernels
# (in, out, groups): one lane, more than a panel of lanes has, and groups that end within one.
CHANNELS = {"few": (3, 2, 1), "panels": (37, 70, 1), "one in": (1, 33, 1), "groups": (15, 51, 3)}
every_channels = pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
# (cells, taps, (before, after)): in one piece, in tiles, of one cell, more taps than cells.
SIZES = {
    "short": (23, 7, (6, 0)),
    "even": (20, 4, (1, 2)),
    "tiles": (1501, 9, (4, 4)),
    "a cell": (1, 5, (4, 2)),
    "taps": (6, 19, (12, 18)),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def leaves_of(channels, size, dtype=torch.float64, batch=3):
    (inside, outside, groups), (cells, taps, _) = channels, size
    return {
        "input": normal(batch, inside, cells, seed=1, dtype=dtype),
        "weight": normal(outside, inside // groups, taps, seed=2, dtype=dtype),
        "bias": normal(outside, seed=3, dtype=dtype),
    }


def call(leaves, channels, size, method="fft"):
    padded = F.pad(leaves["input"], size[2])
    return large_kernel_conv(padded, leaves["weight"], leaves["bias"], groups=channels[2], method=method)


def made(leaves, channels, size, method="fft"):
    return answers(lambda: call(leaves, channels, size, method), leaves)


@pytest.fixture
def by_the_library_alone(monkeypatch):
    """Fails where torch's operators would transform."""
    monkeypatch.setattr(fft, "tiling", lambda problem: pytest.fail("by torch's operators"))


@every_channels
@every_size
def test_equals_torchs(by_the_library_alone, channels, size):
    leaves = leaves_of(channels, size)
    assert_equal_to_rounding(made(leaves, channels, size), made(leaves, channels, size, "direct"))


@every_channels
@every_size
def test_padding_is_not_copied(by_the_library_alone, channels, size):
    """Padding that differs before and after, as "same" has it for even kernels, comes as a part of the problem."""
    leaves = leaves_of(channels, size)
    options = {"groups": channels[2], "padding": "same"}
    one, other = (
        answers(lambda method=method: large_kernel_conv(**leaves, **options, method=method), leaves)
        for method in ("fft", "direct")
    )
    assert_equal_to_rounding(one, other)


@every_channels
@pytest.mark.parametrize("size", [SIZES["short"], SIZES["tiles"]], ids=["short", "tiles"])
def test_is_as_exact_as_spectra_of_torchs_operators(channels, size, monkeypatch):
    leaves = leaves_of(channels, size, torch.float32)
    truth = made(leaves_of(channels, size), channels, size, "direct")
    own = made(leaves, channels, size)
    monkeypatch.setattr(mixed, "serves", lambda problem: False)
    assert_as_exact_as(own, made(leaves, channels, size), truth)


def test_maps_of_more_spectra_than_are_kept(by_the_library_alone):
    """Rows in several parts, over which the gradient of the weight adds up."""
    channels, size = (200, 65, 1), (150, 25, (24, 0))
    leaves = leaves_of(channels, size, torch.float32, batch=70)
    truth = made(leaves_of(channels, size, batch=70), channels, size, "direct")
    assert_as_exact_as(made(leaves, channels, size), made(leaves, channels, size, "direct"), truth)


def test_any_strides(by_the_library_alone):
    channels, size = CHANNELS["panels"], SIZES["short"]
    leaves = leaves_of(channels, size)
    expected = made(leaves, channels, size)
    leaves["input"] = leaves["input"].detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    leaves["weight"] = leaves["weight"].detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    assert_equal_to_rounding(made(leaves, channels, size), expected)
    input = leaves["input"].detach()
    negative = torch.complex(torch.zeros_like(input), -input).conj().imag
    assert negative.is_neg()
    assert torch.equal(
        call(leaves | {"input": negative}, channels, size), call(leaves | {"input": input}, channels, size)
    )


def test_samples_do_not_know_each_other():
    channels, size = CHANNELS["panels"], SIZES["short"]
    leaves = {name: leaf.detach() for name, leaf in leaves_of(channels, size, torch.float32).items()}
    before = call(leaves, channels, size)
    for factor in (1e6, torch.nan):
        leaves["input"][0] *= factor
        assert torch.equal(call(leaves, channels, size)[1:], before[1:])


def test_results_do_not_depend_on_the_number_of_threads():
    channels, size, found = CHANNELS["groups"], SIZES["tiles"], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(made(leaves_of(channels, size, torch.float32), channels, size))
    torch.set_num_threads(1)
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items() if name != "bias")


def test_gradcheck_and_gradgradcheck(by_the_library_alone):
    channels, size = (4, 6, 2), (7, 3, (2, 0))
    leaves = leaves_of(channels, size, batch=2)

    def run(*tensors):
        return call(dict(zip(leaves, tensors, strict=True)), channels, size)

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(run, tuple(leaves.values()))


def test_mapped_and_forward_derivatives_go_through_torchs_operators():
    channels, size = CHANNELS["few"], SIZES["short"]
    leaves = {name: leaf.detach() for name, leaf in leaves_of(channels, size).items()}
    expected = call(leaves, channels, size)
    mapped = torch.func.vmap(lambda row: call(leaves | {"input": row[None]}, channels, size)[0])(leaves["input"])
    torch.testing.assert_close(mapped, expected)
    tangent = torch.ones_like(leaves["input"])
    _, along = torch.func.jvp(
        lambda input: call(leaves | {"input": input}, channels, size), (leaves["input"],), (tangent,)
    )
    torch.testing.assert_close(along, call(leaves | {"input": tangent}, channels, size) - leaves["bias"][:, None])


@pytest.mark.compiles
def test_compiled(by_the_library_alone):
    channels, size = CHANNELS["groups"], SIZES["short"]
    leaves = leaves_of(channels, size)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert_equal_to_rounding(
        answers(lambda: compiled(leaves, channels, size), leaves), made(leaves, channels, size, "direct")
    )


@pytest.mark.parametrize("map", mixed.MAPS)
def test_operators(map):
    input, weight, gradient = torch.randn(2, 6, 9), torch.randn(4, 3, 5), torch.randn(2, 4, 7)
    tensors = {"convolve": (input, weight, 2, 1, 7), "transpose": (gradient, weight, 2, 1, 9)}
    arguments = tensors.get(map, (input, gradient, 2, 1, 5))
    torch.library.opcheck(getattr(torch.ops.torchdcls, f"mixed_{map}").default, arguments)


def test_auto_takes_it_for_many_channels_and_long_kernels():
    _, problem = pose(torch.empty(32, 512, 130), torch.empty(512, 512, 31), None, 1, 0, 1)
    assert mixed.serves(problem)
    assert fft.operations(problem, "convolve").keys() == {"native call", "fft mixed product", "native spectra"}
