"""Graphs of NIR: what their nodes compute, and the way back."""

import itertools
import sys

import pytest
import torch

from torchdcls.delays import (
    AxonalDelays,
    DendriticDelays,
    SynapticDelays,
    from_nir,
    round_delays_,
    rounded_delays,
    to_nir,
)

nir = pytest.importorskip("nir")
KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)


def computed(graph, input, dt):
    """What a graph computes of (batch, neurons, time), node by node, delays as y(t) = x(t - delay)."""
    before = {name: [source for source, target in graph.edges if target == name] for name in graph.nodes}

    def value(name):
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            return input
        arriving = sum(value(source) for source in before[name])
        if isinstance(node, nir.Linear):
            return torch.as_tensor(node.weight) @ arriving
        if isinstance(node, nir.Delay):
            shifted = torch.zeros_like(arriving)
            for neuron, seconds in enumerate(node.delay.tolist()):
                steps = round(seconds / dt)
                shifted[:, neuron, steps:] = arriving[:, neuron, : arriving.shape[-1] - steps]
            return shifted
        return arriving

    return value("output")


@kinds
@pytest.mark.parametrize("kernel_count", [1, 2])
@pytest.mark.parametrize("dt", [1e-3, 0.01, 0.1])
def test_computes_the_same_and_reads_back_equal(kind, kernel_count, dt, tmp_path):
    layer = kind(3, 4, 6, kernel_count=kernel_count, dtype=torch.float64)
    layer = layer.double()
    input = torch.randn(2, 3, 12, dtype=torch.float64)
    with rounded_delays(layer):
        graph = to_nir(layer, dt)
        expected = layer(input)
    torch.testing.assert_close(computed(graph, input, dt), expected)
    nir.write(tmp_path / "layer.nir", graph)
    table = from_nir(nir.read(tmp_path / "layer.nir"), dt)
    assert torch.equal(table.delay, table.delay.round())
    other = kind(3, 4, 6, kernel_count=kernel_count, dtype=torch.float64).double()
    table.set_(other)
    round_delays_(other)
    torch.testing.assert_close(other(input), expected)
    if kernel_count == 1:
        assert torch.equal(other.weight, layer.weight)
        assert torch.equal(other.delay, layer.delay.round())


def test_delays_are_seconds():
    layer = AxonalDelays(2, 1, 6, init=torch.tensor([1.0, 6.0]))
    round_delays_(layer)
    graph = to_nir(layer, 0.01)
    assert graph.nodes["delay_0"].delay.tolist() == pytest.approx([0.01, 0.06])
    assert graph.edges == [("input", "delay_0"), ("delay_0", "linear_0"), ("linear_0", "output")]


@kinds
def test_layers_that_are_no_graph(kind):
    with pytest.raises(ValueError, match=r"^layer: expected whole delays, as of NIR's nodes, got others"):
        to_nir(kind(3, 4, 6), 0.01)
    layer = kind(3, 4, 6, bias=True)
    round_delays_(layer)
    with pytest.raises(ValueError, match=r"^layer: expected no bias, .*, got one"):
        to_nir(layer, 0.01)
    with pytest.raises(TypeError, match=r"^layer: expected a layer of torchdcls.delays, got torch.nn.*Linear$"):
        to_nir(torch.nn.Linear(2, 2), 0.01)
    for dt in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"^dt: expected"):
            to_nir(layer, dt)


def graph_of(*middle):
    nodes = {
        "input": nir.Input(input_type={"input": torch.tensor([2]).numpy()}),
        **{str(number): node for number, node in enumerate(middle)},
        "output": nir.Output(output_type={"output": torch.tensor([2]).numpy()}),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)))


def test_graphs_that_are_no_layer():
    linear, delay = nir.Linear(weight=torch.ones(2, 2).numpy()), nir.Delay(delay=torch.ones(2).numpy())
    table = from_nir(graph_of(delay, linear, delay), 0.5)
    assert table.delay.tolist() == [4.0] * 4
    for middle, found in (((delay,), "Delay"), ((linear, linear), "Linear, Linear"), ((), "nothing")):
        with pytest.raises(ValueError, match=rf"^graph: expected one nir.Linear and delays around it .*, got {found}$"):
            from_nir(graph_of(*middle), 0.01)
    graph = graph_of(delay, linear)
    graph.edges.append(("1", "0"))
    with pytest.raises(ValueError, match=r"^graph: expected no way back, got one through 0"):
        from_nir(graph, 0.01)
    graph.edges[:] = [("input", "0")]
    with pytest.raises(ValueError, match=r"^graph: expected a path from its input to its output, got none"):
        from_nir(graph, 0.01)
    del graph.nodes["output"]
    with pytest.raises(ValueError, match=r"^graph: expected one input and one output, got 1 and 0"):
        from_nir(graph, 0.01)
    with pytest.raises(TypeError, match=r"^graph: expected a nir.NIRGraph, got .*Linear$"):
        from_nir(linear, 0.01)


def test_without_nir(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (lambda: to_nir(AxonalDelays(2, 2, 3), 0.01), lambda: from_nir(None, 0.01)):
        with pytest.raises(ModuleNotFoundError, match=r"^a graph of NIR needs .* delays extra \(nir is missing\): pip"):
            call()
