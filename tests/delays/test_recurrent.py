"""Spikes that come back after learned delays."""

import pytest
import torch
from torch import nn

from torchdcls.delays import (
    AxonalDelays,
    DendriticDelays,
    RecurrentDelays,
    SigmaSchedule,
    SynapticDelays,
    rounded_delays,
)

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)


class Leaky(nn.Module):
    """A smooth neuron with a state, so that gradients can be compared."""

    def __init__(self):
        super().__init__()
        self.leak = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, current, voltage):
        voltage = current if voltage is None else self.leak * voltage + current
        return torch.tanh(voltage), voltage


def make(kind, size=4, max_delay=5, **settings):
    return RecurrentDelays(kind(size, size, max_delay, dtype=torch.float64, bias=True, **settings).double(), Leaky())


def by_definition(layer, input):
    """Every step reads all spikes before it through the dense kernel."""
    kernel, bias, steps = layer.delays.kernel(), layer.delays.bias, input.shape[-1]
    spikes, voltage = [], None
    for time in range(steps):
        current = input[..., time]
        if time > 0:
            current = current + bias
        for lag in range(kernel.shape[-1]):
            if time - 1 - lag >= 0:
                current = current + spikes[time - 1 - lag] @ kernel[..., kernel.shape[-1] - 1 - lag].T
        now, voltage = layer.neuron(current, voltage)
        spikes.append(now)
    return torch.stack(spikes, -1)


@kinds
@pytest.mark.parametrize(("max_delay", "kernel_count"), [(0, 1), (1, 1), (4, 1), (5, 2), (12, 1), (30, 1)])
def test_equals_its_definition(kind, max_delay, kernel_count):
    layer = make(kind, kernel_count=kernel_count, max_delay=max_delay)
    input = torch.randn(2, 4, 29, dtype=torch.float64, requires_grad=True)
    leaves = [input, *layer.parameters()]
    found, expected = layer(input)[0], by_definition(layer, input)
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(found)
    unused = {"allow_unused": max_delay == 0}
    grads = (torch.autograd.grad(output, leaves, probe, **unused) for output in (found, expected))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    with rounded_delays(layer), torch.no_grad():
        torch.testing.assert_close(layer(input)[0], by_definition(layer, input))


@kinds
def test_gradients_through_a_state(kind):
    layer = make(kind)
    input = torch.randn(2, 4, 17, dtype=torch.float64, requires_grad=True)
    leaves = [input, *layer.parameters()]
    whole, end = layer(input)
    first, state = layer(input[..., :6])
    second, state = layer(input[..., 6:], state)
    results = ((whole, end), (torch.cat((first, second), -1), state))
    losses = [out.square().sum() + to.feedback.square().sum() + to.delays.pending.sum() for out, to in results]
    wanted = torch.autograd.grad(losses[0], leaves)
    for _ in range(2):  # the graph may be gone through again
        grads = torch.autograd.grad(losses[1], leaves, retain_graph=True)
        for one, other in zip(grads, wanted, strict=True):
            torch.testing.assert_close(one, other)


@kinds
def test_gradients_of_gradients(kind):
    """They are right of the input's, and refused of those of the delays, which are made at once."""
    layer = make(kind)
    input = torch.randn(2, 4, 17, dtype=torch.float64, requires_grad=True)
    leaves = [input, *layer.parameters()]
    twice = []
    for output in (layer(input)[0], by_definition(layer, input)):
        (first,) = torch.autograd.grad(output.square().sum(), input, create_graph=True)
        twice.append(torch.autograd.grad(first.square().sum(), leaves))
    for one, other in zip(*twice, strict=True):
        torch.testing.assert_close(one, other)
    (first,) = torch.autograd.grad(layer(input)[0].square().sum(), layer.delays.position, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@kinds
def test_half_precision(kind):
    layer = make(kind).to(torch.bfloat16)
    layer.delays.sigma.data = layer.delays.sigma.float()
    layer.delays.position.data = layer.delays.position.float()
    input = torch.randn(2, 4, 13, dtype=torch.bfloat16)
    truth = layer.double()(input.double())[0]
    layer.to(torch.bfloat16)
    found, _ = layer(input)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), truth, rtol=0.05, atol=0.05)


@kinds
def test_a_spike_comes_back_after_its_delay_and_one_step(kind):
    for delay in range(6):
        layer = RecurrentDelays(
            kind(1, 1, 5, interpolation="bilinear", init=delay), lambda current, state: (current, state)
        )
        nn.init.constant_(layer.delays.weight, 0.5)
        impulse = torch.zeros(1, 1, 16)
        impulse[..., 2] = 1
        expected = torch.zeros(16)
        expected[2 :: delay + 1] = 0.5 ** torch.arange(len(expected[2 :: delay + 1]))
        torch.testing.assert_close(layer(impulse)[0][0, 0], expected, rtol=1e-5, atol=1e-6)


@kinds
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_parts_equal_the_whole(kind, length, batch):
    layer = make(kind)
    input = torch.randn(*batch, 4, 17, dtype=torch.float64)
    expected, end = layer(input)
    outputs, state = [], None
    for part in input.split(length, -1):
        output, state = layer(part, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, -1), expected)
    torch.testing.assert_close(state.feedback, end.feedback)
    layer.delays.time_first = True
    torch.testing.assert_close(layer(input.movedim(-1, 0))[0], expected.movedim(-1, 0))


@kinds
def test_trains_and_round_trips(kind):
    layer = make(kind, interpolation="triangle")
    SigmaSchedule.delrec(layer, 10)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    input = torch.randn(2, 4, 13, dtype=torch.float64)
    losses = []
    for _ in range(5):
        loss = layer(input)[0].square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    other = make(kind, interpolation="triangle")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(input)[0], layer(input)[0])


@kinds
@pytest.mark.compiles
def test_compiled(kind):
    layer, input = make(kind), torch.randn(2, 4, 5, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input)[0], layer(input)[0])


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^delays: expected as many inputs as outputs, got 3 and 4"):
        RecurrentDelays(AxonalDelays(3, 4, 5), Leaky())
    with pytest.raises(ValueError, match=r"^delays: expected no tail, .*, got 2"):
        RecurrentDelays(AxonalDelays(4, 4, 5, tail=2), Leaky())
    with pytest.raises(TypeError, match=r"^delays: expected a layer of delays, got torch.nn.*Linear$"):
        RecurrentDelays(nn.Linear(4, 4), Leaky())
    with pytest.raises(TypeError, match=r"^neuron: expected a function of a current and a state, got 'lif'"):
        RecurrentDelays(AxonalDelays(4, 4, 5), "lif")


@kinds
def test_wrong_input(kind):
    layer, input = make(kind), torch.randn(2, 4, 5, dtype=torch.float64)
    _, state = layer(input)
    with pytest.raises(ValueError, match=r"^state: expected one of these inputs, \(3, 4\), got \(2, 4\)"):
        layer(torch.randn(3, 4, 5, dtype=torch.float64), state)
    with pytest.raises(TypeError, match=r"^state: expected a state that forward returned, got .*DelayState$"):
        layer(input, state.delays)
    with pytest.raises(ValueError, match=r"^input: expected \(batch, 4, time\)"):
        layer(input[:, :3])
    with pytest.raises(ValueError, match=r"^neuron: expected spikes \(2, 4\), got shape \(2,\)"):
        RecurrentDelays(layer.delays, lambda current, state: (current.sum(-1), state))(input)
    for spikes, found in ((None, "NoneType"), (input[..., 0] > 0, "torch.bool")):
        with pytest.raises(TypeError, match=f"^neuron: expected spikes as floating-point numbers, got {found}$"):
            RecurrentDelays(layer.delays, lambda current, state, spikes=spikes: (spikes, state))(input)
    # A tensor of two is not mistaken for spikes and a state.
    with pytest.raises(TypeError, match=r"^neuron: expected it to return \(spikes, state\), got Tensor$"):
        RecurrentDelays(layer.delays, lambda current, state: current)(input)
    with pytest.raises(TypeError, match=r"^neuron: expected it to return \(spikes, state\), got tuple of 3$"):
        RecurrentDelays(layer.delays, lambda current, state: (current, state, state))(input)
