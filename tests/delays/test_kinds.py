"""Layers of learned delays: what a delay is, causality, layouts, gradients, parity with `DCLS`, bad input."""

import copy
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from DCLS.construct.modules import Dcls1d as TheirDcls1d
from torch import nn

import torchdcls
from torchdcls import Dcls1d, param_groups
from torchdcls.delays import AxonalDelays, DendriticDelays, SynapticDelays

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
THEIR_NAMES = {"bilinear": "v1", "triangle": "max", "gaussian": "gauss"}
kinds = pytest.mark.parametrize("kind", KINDS)
interpolations = pytest.mark.parametrize("interpolation", THEIR_NAMES)


def make(kind, inside=3, outside=4, max_delay=6, **settings):
    return kind(inside, outside, max_delay, dtype=torch.float64, **settings).double()


def by_dense_kernel(layer, input):
    """What the layer is to compute, by torch's convolution with its kernel."""
    return F.conv1d(F.pad(input, (layer.max_delay, layer.tail)), layer.kernel(), layer.bias)


@kinds
@pytest.mark.parametrize("max_delay", [0, 1, 4, 5])
def test_a_delay_of_d_delays_an_impulse_by_d_steps(kind, max_delay):
    layer = kind(1, 1, max_delay, interpolation="bilinear")
    nn.init.ones_(layer.weight)
    impulse = F.one_hot(torch.tensor(2), 12).float().view(1, 1, -1)
    for delay in range(max_delay + 1):
        layer.delay = delay
        assert (layer.delay == delay).all()
        torch.testing.assert_close(layer(impulse), impulse.roll(delay, -1), rtol=0, atol=1e-6)
        assert layer(impulse)[0, 0].argmax() == 2 + delay


@kinds
@interpolations
def test_nothing_reads_the_future(kind, interpolation):
    layer = make(kind, interpolation=interpolation, kernel_count=2)
    input = torch.randn(2, 3, 10, dtype=torch.float64)
    changed = input.clone()
    changed[..., 6:] += 1
    before, after = layer(input), layer(changed)
    torch.testing.assert_close(before[..., :6], after[..., :6], rtol=0, atol=1e-12)
    assert (before[..., 6:] != after[..., 6:]).any()


@kinds
@interpolations
@pytest.mark.parametrize("kernel_count", [1, 3])
@pytest.mark.parametrize("tail", [0, 4])
def test_equals_a_dense_convolution(kind, interpolation, kernel_count, tail):
    """Output and every gradient; a window longer than the sequence too."""
    layer = make(kind, interpolation=interpolation, kernel_count=kernel_count, tail=tail, bias=True)
    for steps in (3, 11):
        input = torch.randn(2, 3, steps, dtype=torch.float64, requires_grad=True)
        leaves = [input, *layer.parameters()]
        answers = []
        for output in (layer(input), by_dense_kernel(layer, input)):
            assert output.shape == (2, 4, steps + tail)
            answers.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
        for one, other in zip(*answers, strict=True):
            torch.testing.assert_close(one, other)


@kinds
@interpolations
def test_parity_with_dcls(kind, interpolation, caplog):
    """Output and gradients of their layer, whose synapses have the delays of their axon or dendrite."""
    caplog.set_level(logging.CRITICAL)
    layer = make(kind, interpolation=interpolation, kernel_count=2, sigma_init=None)
    theirs = TheirDcls1d(3, 4, 2, dilated_kernel_size=7, bias=False, version=THEIR_NAMES[interpolation]).double()
    with torch.no_grad():
        theirs.weight.copy_(layer.weight)
        theirs.P.copy_(layer.position.expand_as(theirs.P))
        if layer.sigma is not None:
            layer.sigma += 0.3
            theirs.SIG.copy_(layer.sigma.expand_as(theirs.SIG))
    input = torch.randn(2, 3, 9, dtype=torch.float64)
    # Their triangle differs in the 1e-7 that is added to its mass.
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if interpolation == "triangle" else {}
    ours, expected = layer(input), theirs(F.pad(input, (6, 0)))
    torch.testing.assert_close(ours, expected, **tolerance)
    probe = torch.randn_like(ours)
    ours.backward(probe)
    expected.backward(probe)
    torch.testing.assert_close(layer.weight.grad, theirs.weight.grad, **tolerance)
    for own, other in ((layer.position, theirs.P), (layer.sigma, getattr(theirs, "SIG", None))):
        if own is not None:
            torch.testing.assert_close(own.grad, other.grad.sum_to_size(own.shape), **tolerance)


@kinds
def test_layouts(kind):
    layer = make(kind, tail=2)
    input = torch.randn(2, 3, 9, dtype=torch.float64)
    expected = layer(input)
    torch.testing.assert_close(layer(input[0]), expected[0])
    layer.time_first = True
    torch.testing.assert_close(layer(input.movedim(-1, 0)), expected.movedim(-1, 0))
    torch.testing.assert_close(layer(input[0].movedim(-1, 0)), expected[0].movedim(-1, 0))


@kinds
def test_positions_off_the_window_are_its_ends_and_learn(kind):
    layer = make(kind, interpolation="gaussian")
    assert ((layer.delay >= 0) & (layer.delay <= 6)).all()
    with torch.no_grad():
        layer.position.fill_(100.3)
    assert (layer.delay == 0).all()
    input = torch.randn(2, 3, 9, dtype=torch.float64)
    output = layer(input)
    output.square().sum().backward()
    assert layer.position.grad.count_nonzero() == layer.position.numel()
    layer.clamp_position_()
    assert torch.equal(layer(input), output)


@kinds
@pytest.mark.parametrize("max_delay", [4, 5])
def test_delays_start_over_the_whole_window(kind, max_delay):
    layer = kind(200, 200, max_delay, kernel_count=2)
    assert layer.delay.shape == layer.delay_shape
    counts = layer.delay.detach().histc(bins=4, min=0, max=max_delay) / layer.delay.numel()
    assert (counts - 0.25).abs().max() < 0.1
    assert layer.delay.max() > 0.95 * max_delay and layer.delay.min() < 0.05 * max_delay


@kinds
def test_delays_are_read_and_set(kind):
    layer = kind(3, 4, 6)
    values = torch.rand(layer.delay_shape) * 6
    layer.delay = values
    torch.testing.assert_close(layer.delay.detach(), values)
    layer.delay = nn.Parameter(values.squeeze(-1) / 2)
    torch.testing.assert_close(layer.delay.detach(), values / 2)
    assert sorted(dict(layer.named_parameters())) == ["position", "sigma", "weight"]
    started = kind(3, 4, 6, init=values)
    torch.testing.assert_close(started.delay.detach(), values)
    started.delay = 1.5
    started.reset_parameters()
    torch.testing.assert_close(started.delay.detach(), values)
    started.position_init = ("normal", 0)
    started.reset_parameters()
    assert (started.position == 0).all()


@kinds
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0], "a number, got list"),
        (True, "a number, got True"),
        (torch.tensor(1j), "real numbers, got torch.complex64"),
        (torch.tensor(True), "real numbers, got torch.bool"),
    ],
)
def test_delays_of_a_wrong_type(kind, value, said):
    layer = kind(3, 4, 6)
    with pytest.raises(TypeError, match=f"^delay: expected {said}$"):
        layer.delay = value


@kinds
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-0.5, r"delays from 0 to max_delay=6 steps, got -0.5"),
        (7, r"delays from 0 to max_delay=6 steps, got 7"),
        (math.nan, r"delays from 0 to max_delay=6 steps, got nan"),
        (torch.full((1,), math.inf), r"delays from 0 to max_delay=6 steps, got inf"),
        (torch.zeros(9), r"a number or a tensor that broadcasts to .*, got shape \(9,\)"),
    ],
)
def test_wrong_delays(kind, value, said):
    layer = kind(3, 4, 6)
    before = layer.delay.clone()
    with pytest.raises(ValueError, match=f"^delay: expected {said}"):
        layer.delay = value
    with pytest.raises(ValueError, match=f"^init: expected {said}"):
        kind(3, 4, 6, init=value)
    assert torch.equal(layer.delay, before)


def test_nan_in_a_parameter_shows():
    for kind in KINDS:
        layer = kind(3, 4, 6)
        with torch.no_grad():
            layer.position.view(-1)[0] = math.nan
        assert layer(torch.ones(1, 3, 9)).isnan().any()


@kinds
@pytest.mark.parametrize(
    ("input", "said"),
    [
        (torch.ones(2, 5, 9), r"\(batch, 3, time\), with or without batch, got \(2, 5, 9\)"),
        (torch.ones(3), r"\(batch, 3, time\), with or without batch, got \(3,\)"),
        (torch.ones(2, 3, 0), r"at least one time step, got shape \(2, 3, 0\)"),
        (torch.ones(2, 3, 9, dtype=torch.int64), r"the dtype of weight, torch.float32, got torch.int64"),
    ],
)
def test_wrong_input(kind, input, said):
    with pytest.raises(ValueError, match=f"^input: expected {said}"):
        kind(3, 4, 6)(input)
    with pytest.raises(TypeError, match=r"^input: expected a torch.Tensor"):
        kind(3, 4, 6)([1.0])


@kinds
@pytest.mark.parametrize("batch", [(), (2,)])
def test_the_other_layout_is_told_from_its_shape(kind, batch):
    for time_first, shape, other in (
        (False, (9, *batch, 3), "time, batch, 3"),
        (True, (*batch, 3, 9), "batch, 3, time"),
    ):
        message = rf"^input: .*; make the layer with time_first={not time_first} for \({other}\)$"
        with pytest.raises(ValueError, match=message):
            kind(3, 4, 6, time_first=time_first)(torch.ones(shape))
    with pytest.raises(ValueError, match=r"without batch, got \(2, 5, 9\)$"):
        kind(3, 4, 6)(torch.ones(2, 5, 9))


@kinds
@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"max_delay": -1}, ValueError, "max_delay: expected at least 0, got -1"),
        ({"max_delay": 5.5}, ValueError, "max_delay: expected an integer of at least 0, got 5.5"),
        ({"max_delay": math.nan}, ValueError, "max_delay: expected an integer of at least 0, got nan"),
        ({"max_delay": "5"}, TypeError, "max_delay: expected an integer of at least 0, got '5'"),
        ({"max_delay": 0, "kernel_count": 2}, ValueError, "max_delay: expected at least 1 for kernel_count=2, got 0"),
        ({"in_features": 0}, ValueError, "in_features: expected at least 1, got 0"),
        ({"sigma_init": -1.0}, ValueError, "sigma_init: expected a finite number of at least 0, got -1.0"),
        ({"tail": -1}, ValueError, "tail: expected at least 0, got -1"),
        ({"time_first": "yes"}, TypeError, "time_first: expected True or False, got 'yes'"),
        ({"init": "normal"}, ValueError, "init: expected one of 'uniform', got 'normal'"),
        ({"init": None}, TypeError, "init: expected a number, got None"),
    ],
)
def test_wrong_arguments(kind, settings, error, said):
    with pytest.raises(error, match=f"^{said}"):
        kind(**{"in_features": 3, "out_features": 4, "max_delay": 6} | settings)


@kinds
def test_a_whole_number_is_an_integer_as_everywhere_in_the_package(kind):
    layer = kind(3, 4, max_delay=5.0, tail=2.0)
    assert (layer.max_delay, layer.tail) == (5, 2) and type(layer.max_delay) is int
    assert layer(torch.ones(1, 3, 9)).shape == (1, 4, 11)


@kinds
def test_settings_that_make_another_layer(kind):
    layer = kind(3, 4, 6)
    for name in ("dilated_kernel_size", "stride", "padding", "padding_mode"):
        with pytest.raises(ValueError, match=f"^{name}: expected no change, got 9"):
            setattr(layer, name, 9)


@kinds
def test_gradients(kind):
    layer = make(kind, inside=2, outside=2, max_delay=3, interpolation="gaussian")
    input = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    names, leaves = zip(*layer.named_parameters(), strict=True)

    def call(input, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), input)

    assert torch.autograd.gradcheck(call, (input, *leaves))


@kinds
def test_optimizers_know_them(kind):
    layer = kind(3, 4, 6)
    groups = param_groups(nn.Sequential(layer), lr=0.1, weight_decay=0.3, position_lr_scale=100)
    by_rate = {round(group["lr"], 6): group["params"] for group in groups}
    assert set(by_rate[10.0]) == {layer.position, layer.sigma}
    torchdcls.clamp_positions_(layer)


@kinds
def test_state_dicts(kind):
    layer, other = kind(3, 4, 6), kind(3, 4, 6)
    other.load_state_dict(layer.state_dict())
    input = torch.randn(2, 3, 9)
    assert torch.equal(layer(input), other(input))
    assert torch.equal(layer(input), copy.deepcopy(layer)(input))
    with pytest.raises(RuntimeError, match="got one of another"):
        kind(3, 4, 7).load_state_dict(layer.state_dict())


def test_synaptic_delays_are_a_padded_dcls_layer():
    layer, plain = SynapticDelays(3, 4, 6), Dcls1d(3, 4, 1, dilated_kernel_size=7, bias=False)
    plain.load_state_dict(layer.state_dict())
    input = torch.randn(2, 3, 9)
    torch.testing.assert_close(layer(input), plain(F.pad(input, (6, 0))))


@kinds
def test_evaluation_notices_changes(kind):
    layer = kind(3, 4, 6).eval()
    input = torch.randn(2, 3, 9)
    with torch.no_grad():
        before = layer(input)
        layer.delay = 2
        assert not torch.allclose(layer(input), before)
        torch.testing.assert_close(layer(input), by_dense_kernel(layer, input))


@kinds
def test_half_precision_and_autocast(kind):
    input = torch.randn(2, 3, 9)
    layer = kind(3, 4, 6)
    expected = layer(input)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(input).float(), expected, rtol=0.05, atol=0.05)
    layer.to(torch.bfloat16)
    assert layer.position.dtype == torch.float32
    torch.testing.assert_close(layer(input.bfloat16()).float(), expected, rtol=0.05, atol=0.05)


@kinds
@pytest.mark.compiles
def test_compiled(kind):
    layer = kind(3, 4, 6, tail=2)
    input = torch.randn(2, 3, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), layer(input))
    compiled(input).square().sum().backward()
    assert layer.position.grad.count_nonzero() > 0


@kinds
def test_on_meta_and_exported_and_mapped(kind):
    assert kind(3, 4, 6, tail=1, device="meta")(torch.empty(2, 3, 9, device="meta")).shape == (2, 4, 10)
    layer, input = kind(3, 4, 6).eval(), torch.randn(2, 3, 9)
    torch.testing.assert_close(torch.export.export(layer, (input,)).module()(input), layer(input))
    torch.testing.assert_close(torch.func.vmap(layer)(input), layer(input))


def test_repr():
    shown = "SynapticDelays(3, 4, max_delay=6, interpolation=gaussian, tail=2, bias=True, time_first=True)"
    assert repr(SynapticDelays(3, 4, 6, tail=2, bias=True, time_first=True)) == shown
