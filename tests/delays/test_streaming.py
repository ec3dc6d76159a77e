"""Streams: parts of any length, and single steps, give what the whole sequence gives."""

import math

import pytest
import torch
from torch import nn

from torchdcls.delays import AxonalDelays, DelayState, DendriticDelays, SynapticDelays, round_delays_, rounded_delays

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)
STEPS = 23


def make(kind, **settings):
    return kind(5, 4, 6, dtype=torch.float64, **{"bias": True, "kernel_count": 2} | settings).double()


def spikes(*shape, rate=0.15):
    return (torch.rand(*shape, dtype=torch.float64) < rate).double() * torch.rand(*shape, dtype=torch.float64)


def streamed(layer, input, length, state=None):
    time = 0 if layer.time_first else -1
    outputs = []
    for part in input.split(length, time):
        output, state = layer.stream(part, state)
        outputs.append(output)
    return torch.cat(outputs, time), state


def stepped(layer, input, state=None):
    outputs = []
    for now in input.unbind(-1):
        output, state = layer.step(now, state)
        outputs.append(output)
    return torch.stack(outputs, -1), state


@kinds
@pytest.mark.parametrize("length", [1, 7, STEPS])
@pytest.mark.parametrize("max_delay", [0, 6])
def test_parts_equal_the_whole(kind, length, max_delay):
    layer = kind(5, 4, max_delay, bias=True, dtype=torch.float64)
    for batch in ((), (3,)):
        input = spikes(*batch, 5, STEPS)
        layer.time_first = False
        expected = layer(input)
        torch.testing.assert_close(streamed(layer, input, length)[0], expected)
        layer.time_first = True
        found, _ = streamed(layer, input.movedim(-1, 0), length)
        torch.testing.assert_close(found, expected.movedim(-1, 0))


@kinds
@pytest.mark.parametrize("rate", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_steps_equal_the_whole(kind, rate, rounded):
    layer = make(kind)
    if rounded:
        round_delays_(layer)
    for batch in ((), (1,), (3,), (0,)):
        input = spikes(*batch, 5, STEPS, rate=rate)
        torch.testing.assert_close(stepped(layer, input)[0], layer(input))
        with torch.inference_mode():
            torch.testing.assert_close(stepped(layer, input)[0], layer(input))


@kinds
def test_steps_and_parts_follow_each_other_and_silence_brings_the_tail(kind):
    layer = make(kind, tail=6)
    input = spikes(2, 5, STEPS)
    first, state = streamed(layer, input[..., :9], 4)
    second, state = stepped(layer, input[..., 9:14], state)
    third, state = streamed(layer, input[..., 14:], 20, state)
    tail, state = layer.stream(torch.zeros(2, 5, 6, dtype=torch.float64), state)
    torch.testing.assert_close(torch.cat((first, second, third, tail), -1), layer(input))
    assert state.pending.count_nonzero() == 0


@kinds
def test_gradients_through_steps_and_parts(kind):
    layer = make(kind)
    input = spikes(2, 5, 9).requires_grad_()
    leaves = [input, *layer.parameters()]
    whole = torch.autograd.grad(layer(input).square().sum(), leaves)
    for found in (stepped(layer, input)[0], streamed(layer, input, 4)[0]):
        parts = torch.autograd.grad(found.square().sum(), leaves)
        for one, other in zip(parts, whole, strict=True):
            torch.testing.assert_close(one, other)
    only = torch.autograd.grad(stepped(layer, input.detach())[0].square().sum(), leaves[1:])
    for one, other in zip(only, whole[1:], strict=True):
        torch.testing.assert_close(one, other)


@kinds
def test_a_training_step_between_steps(kind):
    """Taps are made again after an update of the parameters, with a graph of their own."""
    layer = make(kind)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    input = spikes(2, 5, STEPS, rate=1)
    state = None
    for now in input[..., :5].unbind(-1):
        output, state = layer.step(now, state)
        output.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        state = state.detach()
    still = input.new_zeros(2, 5)
    output, after = layer.step(input[..., 5], state)
    rest, _ = layer.step(still, state)
    fresh, _ = layer.step(input[..., 5])
    bias = layer.bias.unsqueeze(0)
    torch.testing.assert_close(output - rest, fresh - bias)
    assert not after.detach().pending.requires_grad


@kinds
@pytest.mark.parametrize("change", ["delay", "weight", "rounded", "loaded", "assigned", "grad"])
def test_a_step_notices_what_changed(kind, change):
    layer, other = make(kind, kernel_count=1), make(kind, kernel_count=1)
    inputs = spikes(2, 2, 5, rate=1).unbind(0)
    with torch.no_grad():
        _, state = layer.step(inputs[0])
        if change == "delay":
            layer.delay = 0
        elif change == "weight":
            layer.weight[0] += 1
        elif change in ("loaded", "assigned"):
            layer.load_state_dict(other.state_dict(), assign=change == "assigned")
        elif change == "rounded":
            round_delays_(layer)
    if change == "grad":
        layer.step(inputs[1], state)[0].sum().backward()
        assert layer.position.grad.count_nonzero() > 0
    with torch.no_grad():
        kept = DelayState(state.pending)
        torch.testing.assert_close(layer.step(inputs[1], state)[0], layer.step(inputs[1], kept)[0])


@kinds
def test_taps_are_kept_while_nothing_changes(kind):
    layer = make(kind)
    input = spikes(2, 5)
    with torch.no_grad():
        _, first = layer.step(input)
        _, second = layer.step(input, first)
        assert second.taps is first.taps
        with rounded_delays(layer):
            _, third = layer.step(input, second)
        assert third.taps is not first.taps


@kinds
def test_the_layer_may_be_computed(kind):
    layer = make(kind)
    nn.utils.parametrize.register_parametrization(layer, "position", nn.Tanh())
    input = spikes(2, 5, 9)
    torch.testing.assert_close(stepped(layer, input)[0], layer(input))


@kinds
@pytest.mark.compiles
def test_compiled_steps(kind):
    layer = make(kind)
    input = spikes(2, 5, 9)
    step = torch.compile(lambda now, pending: _pending(layer.step(now, DelayState(pending))), backend="aot_eager")
    _, state = layer.step(input[..., 0])
    outputs = []
    pending = state.pending
    for now in input[..., 1:].unbind(-1):
        output, pending = step(now, pending)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, -1), layer(input)[..., 1:])


def _pending(stepped):
    return stepped[0], stepped[1].pending


@kinds
def test_wrong_states_and_steps(kind):
    layer = make(kind)
    _, state = layer.step(spikes(2, 5))
    with pytest.raises(
        ValueError, match=r"^state: expected one of these inputs, \(3, .*, 6\) on cpu, got \(2, .*, 6\)"
    ):
        layer.step(spikes(3, 5), state)
    with pytest.raises(ValueError, match=r"^state: expected one of these inputs"):
        layer.stream(spikes(5, 9), state)
    for call in (lambda: layer.step(spikes(2, 5), state.pending), lambda: layer.stream(spikes(2, 5, 9), 3)):
        with pytest.raises(TypeError, match=r"^state: expected a state that step or stream returned, got"):
            call()
    with pytest.raises(TypeError, match=r"^state: expected a torch.Tensor, got 3$"):
        layer.step(spikes(2, 5), DelayState(3))
    with pytest.raises(ValueError, match=r"^state: expected floating-point numbers, got torch.int64$"):
        layer.step(spikes(2, 5), DelayState(state.pending.long()))
    with pytest.raises(ValueError, match=r"^input: expected one step, \(batch, 5\) or \(5,\), got shape \(2, 5, 9\)"):
        layer.step(spikes(2, 5, 9))
    with pytest.raises(ValueError, match=r"^input: expected the dtype of weight, torch.float64, got torch.bool"):
        layer.step(spikes(2, 5).bool())


@kinds
def test_a_state_of_another_precision_does_not_change_the_outputs(kind):
    layer = make(kind).float()
    input = spikes(2, 5, STEPS).float()
    expected = layer(input)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 0.05)):
        _, state = layer.stream(input[..., :9])
        other = DelayState(state.pending.to(dtype))
        for output in (layer.stream(input[..., 9:], other)[0], stepped(layer, input[..., 9:], other)[0]):
            torch.testing.assert_close(output, expected[..., 9:], rtol=tolerance, atol=tolerance)


@kinds
def test_nan_shows(kind):
    layer = make(kind)
    input = torch.zeros(1, 5, dtype=torch.float64)
    input[0, 2] = math.nan
    assert layer.step(input)[1].pending.isnan().any()
