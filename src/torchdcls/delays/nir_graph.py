"""Delay layers as graphs of NIR, the Neuromorphic Intermediate Representation, and back as tables of synapses."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .._extras import needed_by
from .kinds import AxonalDelays, DendriticDelays
from .layer import DelayLayer
from .table import SynapseTable

_Edges = Mapping[str, Sequence[str]]


def to_nir(layer: DelayLayer, dt: float) -> Any:
    """Converts a layer with whole delays to a `nir.NIRGraph`. `nir.write` saves it.

    Axonal delays become a `nir.Delay` followed by a `nir.Linear`, dendritic delays a `nir.Linear` followed by a
    `nir.Delay`, once for each of `kernel_count`. Synaptic delays become a `nir.Delay` and a `nir.Linear` for each delay
    that occurs, with the weights of its synapses. The output sums their results.

    Args:
        layer: A layer that is rounded, inside `rounded_delays` or for good, without bias.
        dt: Length of a time step, more than 0. Unit: seconds, as of the delays in the graph.

    Returns:
        A `nir.NIRGraph` with nodes "input" and "output".

    Raises:
        ValueError: A layer that is not rounded or has a bias, or `dt` out of range.
        TypeError: Not a delay layer, or `dt` is not a number.
        ModuleNotFoundError: nir is missing.

    Source:
        Pedersen et al., Nature Communications 2024, doi:10.1038/s41467-024-52259-9.
    """
    with needed_by("a graph of NIR", "delays"):
        import nir
    _checks.of_type("layer", layer, DelayLayer, "a layer of torchdcls.delays")
    step = _step(dt)
    if not layer.rounding.is_on:
        raise ValueError("layer: expected whole delays, as of NIR's nodes, got others; use rounded_delays")
    if layer.bias is not None:
        raise ValueError("layer: expected no bias, which NIR's Linear does not have, got one")
    weight, delay = layer.weight.detach().cpu(), layer.delay.detach().cpu().double()
    nodes = {
        "input": nir.Input(input_type={"input": torch.tensor([layer.in_features]).numpy()}),
        "output": nir.Output(output_type={"output": torch.tensor([layer.out_features]).numpy()}),
    }
    edges: list[tuple[str, str]] = []
    for number, (lags, weights) in enumerate(_branches(layer, weight, delay)):
        nodes[f"delay_{number}"] = nir.Delay(delay=(lags * step).numpy())
        nodes[f"linear_{number}"] = nir.Linear(weight=weights.numpy())
        order = [f"delay_{number}", f"linear_{number}"]
        path = "input", *(reversed(order) if isinstance(layer, DendriticDelays) else order), "output"
        edges += itertools.pairwise(path)
    return nir.NIRGraph(nodes, edges)


def from_nir(graph: Any, dt: float) -> SynapseTable:
    """The synapses of a graph of `to_nir`; `set_` of the table writes them to a layer. Weights of 0 are left out.

    Args:
        graph: A `nir.NIRGraph` whose paths from input to output have one `nir.Linear` each, with delays before or after
            it.
        dt: Length of a time step, more than 0. Unit: seconds.

    Returns:
        The table, with delays in steps.

    Raises:
        ValueError: Another graph, or `dt` out of range.
        TypeError: Not a graph, or `dt` is not a number.
        ModuleNotFoundError: nir is missing.
    """
    with needed_by("a graph of NIR", "delays"):
        import nir
    _checks.of_type("graph", graph, nir.NIRGraph, "a nir.NIRGraph")
    step = _step(dt)
    ends = [[name for name, node in graph.nodes.items() if isinstance(node, kind)] for kind in (nir.Input, nir.Output)]
    if any(len(names) != 1 for names in ends):
        raise ValueError(f"graph: expected one input and one output, got {len(ends[0])} and {len(ends[1])}")
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        after[source].append(target)
    tables = []
    for path in _paths(after, (ends[0][0],), ends[1][0]):
        nodes = [graph.nodes[name] for name in path[1:-1]]
        kinds = [type(node) for node in nodes]
        if kinds.count(nir.Linear) != 1 or not set(kinds) <= {nir.Linear, nir.Delay}:
            found = ", ".join(kind.__name__ for kind in kinds) or "nothing"
            raise ValueError(f"graph: expected one nir.Linear and delays around it from input to output, got {found}")
        linear = kinds.index(nir.Linear)
        weight = torch.as_tensor(nodes[linear].weight).double()
        lag = torch.zeros_like(weight)
        for number, node in enumerate(nodes):
            if number != linear:
                steps = _in_steps(torch.as_tensor(node.delay).double(), step)
                lag += steps if number < linear else steps.unsqueeze(-1)
        post, pre = weight.nonzero(as_tuple=True)
        tables.append((pre, post, weight[post, pre], lag[post, pre]))
    if not tables:
        raise ValueError("graph: expected a path from its input to its output, got none")
    return SynapseTable(*(torch.cat(column) for column in zip(*tables, strict=True)))


def _branches(layer: DelayLayer, weight: Tensor, delay: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Lags of neurons, and the weights of their synapses."""
    if isinstance(layer, AxonalDelays | DendriticDelays):
        for element in range(layer.kernel_count):
            yield delay[:, element].contiguous(), weight[..., element].contiguous()
        return
    for lag in torch.unique(delay):
        yield lag.expand(layer.in_features).clone(), torch.where(delay == lag, weight, 0).sum(-1)


def _paths(after: _Edges, path: tuple[str, ...], end: str) -> Iterator[tuple[str, ...]]:
    if path[-1] == end:
        yield path
        return
    for name in after[path[-1]]:
        if name in path:
            raise ValueError(f"graph: expected no way back, got one through {name}")
        yield from _paths(after, (*path, name), end)


def _in_steps(seconds: Tensor, step: float) -> Tensor:
    # Whole steps stay whole, although a product and a quotient may round to a number beside them.
    steps = seconds / step
    whole = steps.round()
    return torch.where(whole * step == seconds, whole, steps)


def _step(dt: float) -> float:
    step = _checks.at_least_0("dt", dt)
    if step == 0:
        raise ValueError(f"dt: expected more than 0 seconds, got {dt!r}")
    return step
