"""Fewer synapses, fewer delays, and delays that come to be whole."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from torchdcls import clamp_positions_, param_groups
from torchdcls.delays import (
    AxonalDelays,
    DendriticDelays,
    SynapseTable,
    SynapticDelays,
    integer_loss,
    round_delays_,
    sparsify_delays_,
    sparsify_weights_,
)

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)
choices = pytest.mark.parametrize("choice", ["random", "learned"])


def trained(layer, steps=3):
    optimizer = torch.optim.SGD(param_groups(layer, 0.1, 0.0, position_lr_scale=5))
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(2, layer.in_features, 20)).square().mean().backward()
        optimizer.step()
        clamp_positions_(layer)


@kinds
@pytest.mark.parametrize("active", [0, 0.25, 1])
def test_weights_outside_the_mask_are_0_and_stay_so(kind, active):
    layer = kind(8, 6, 5)
    sparsify_weights_(layer, active)
    kept = layer.weight != 0
    assert kept.sum() == round(active * 48)
    before = layer.weight.detach().clone()
    trained(layer)
    assert torch.equal(layer.weight != 0, kept)
    assert active == 0 or (layer.weight != before)[kept].all()


@kinds
@choices
@pytest.mark.parametrize("active", [0, 0.25, 1])
@pytest.mark.parametrize("max_delay", [5, 6])
def test_a_share_of_the_delays_is_active(kind, choice, active, max_delay):
    layer = kind(8, 8, max_delay)
    before = layer.delay.detach().clone()
    sparsify_delays_(layer, active, choice)
    kept = layer.delay != 0
    assert kept.sum() == round(active * before.numel())
    assert torch.equal(layer.delay[kept], before[kept])
    impulse = torch.zeros(1, 8, 9)
    impulse[..., 0] = 1
    if active == 0:
        plain = kind(8, 8, max_delay, init=0)
        plain.weight.data = layer.weight.data
        torch.testing.assert_close(layer(impulse), plain(impulse))
    trained(layer)
    assert (layer.delay != 0).sum() <= kept.sum()
    if choice == "random":
        assert (layer.delay[~kept] == 0).all()


@kinds
def test_active_delays_are_learned(kind):
    """Scores learn whether active or not, and as positions do."""
    layer = kind(8, 8, 6)
    sparsify_delays_(layer, 0.25, "learned")
    kept = (layer.delay != 0).flatten()
    score = layer.parametrizations.position[0].score
    original = layer.parametrizations.position.original
    layer(torch.randn(2, 8, 20)).square().mean().backward()
    assert torch.equal(original.grad.flatten() != 0, kept)
    assert score.flatten()[kept].min() > score.flatten()[~kept].max()
    assert (score.grad != 0).all()
    (gradient,) = torch.autograd.grad(layer(torch.ones(1, 8, 9)).sum(), [score], retain_graph=True)
    assert gradient.isfinite().all()
    groups = param_groups(layer, 0.1, 0.3, position_lr_scale=100)
    by_rate = {round(group["lr"], 6): group["params"] for group in groups}
    assert any(parameter is score for parameter in by_rate[10.0])
    with torch.no_grad():
        score.copy_(-score)
    assert not torch.equal((layer.delay != 0).flatten(), kept)
    assert (layer.delay != 0).sum() == kept.sum()


def test_the_gradient_of_a_score():
    layer = AxonalDelays(4, 3, 6).double()
    sparsify_delays_(layer, 0.5, "learned")
    mask = layer.parametrizations.position[0]
    probe = torch.randn_like(layer.position)
    (found,) = torch.autograd.grad((layer.position * probe).sum(), [mask.score])
    original = layer.parametrizations.position.original.detach()
    torch.testing.assert_close(found, probe * (original - layer.undelayed))


@kinds
@choices
def test_state_dicts_copies_and_the_way_back(kind, choice):
    layer, other = kind(8, 6, 5), kind(8, 6, 5)
    for each, share in ((layer, 0.25), (other, 0.5)):
        sparsify_delays_(each, share, choice)
        sparsify_weights_(each, 0.5)
    other.load_state_dict(layer.state_dict())
    input = torch.randn(2, 8, 20)
    expected = layer(input)
    assert torch.equal(other(input), expected) and torch.equal(copy.deepcopy(layer)(input), expected)
    output, _ = layer.stream(input)
    torch.testing.assert_close(output, expected)
    for name in ("weight", "position"):
        parametrize.remove_parametrizations(layer, name)
    assert torch.equal(layer(input), expected)
    plain = kind(8, 6, 5)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain(input), expected)


@kinds
@choices
def test_delays_set_and_rounded(kind, choice):
    layer = kind(8, 6, 5)
    sparsify_delays_(layer, 0.5, choice)
    kept = layer.delay != 0
    layer.delay = 3.4
    torch.testing.assert_close(layer.delay, torch.where(kept, 3.4, 0.0))
    round_delays_(layer)
    assert torch.equal(layer.delay, torch.where(kept, 3.0, 0.0))


@kinds
def test_tables_of_sparse_layers(kind):
    layer, other = kind(8, 6, 5), kind(8, 6, 5)
    sparsify_weights_(layer, 0.5)
    sparsify_delays_(layer, 0.5)
    table = SynapseTable.of(layer)
    table.set_(other)
    assert torch.equal(other.weight, layer.weight) and torch.equal(other.delay, layer.delay)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    table.set_(layer)
    assert torch.equal(other.weight, layer.weight)
    for sparse in (layer, prune.random_unstructured(kind(8, 6, 5), "weight", 0.5)):
        before = sparse.weight.clone(), sparse.delay.clone()
        with pytest.raises(ValueError, match=r"^weight: expected weights that the layer can have, got others"):
            SynapseTable.of(kind(8, 6, 5)).set_(sparse)
        assert torch.equal(sparse.weight, before[0]) and torch.equal(sparse.delay, before[1])


def test_the_distance_to_integers():
    model = nn.Sequential(SynapticDelays(3, 4, 6), AxonalDelays(4, 4, 6, init=torch.tensor([0.5, 1.25, 2.0, 3.0])))
    model[0].delay = torch.randint(0, 7, (4, 3)).float()
    loss = integer_loss(model)
    assert loss.item() == pytest.approx((0.25 + 0.0625) / 4 / 2)
    loss.backward()
    assert model[0].position.grad.count_nonzero() == 0
    assert model[1].position.grad.flatten()[2:].tolist() == [0, 0]
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    for _ in range(50):
        optimizer.zero_grad()
        integer_loss(model).backward()
        optimizer.step()
    torch.testing.assert_close(model[1].delay[1:], torch.tensor([[1.0], [2.0], [3.0]]))


@pytest.mark.parametrize("function", [sparsify_weights_, sparsify_delays_])
def test_wrong_arguments(function):
    for active in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"^active: expected"):
            function(AxonalDelays(2, 2, 3), active)
    with pytest.raises(TypeError, match=r"^active: expected a number, got 'few'"):
        function(AxonalDelays(2, 2, 3), "few")
    with pytest.raises(ValueError, match=r"^model: expected a model with layers of delays"):
        function(nn.Linear(2, 2), 0.5)
    model = nn.Sequential(AxonalDelays(2, 2, 3), AxonalDelays(2, 2, 3))
    function(model[1], 0.5)
    with pytest.raises(ValueError, match=r"^model: expected a plain \w+ in 1, got one that is computed already"):
        function(model, 0.5)
    assert not parametrize.is_parametrized(model[0])


def test_wrong_choices():
    with pytest.raises(ValueError, match=r"^choice: expected one of 'random', 'learned', got 'best'"):
        sparsify_delays_(AxonalDelays(2, 2, 3), 0.5, "best")
    with pytest.raises(ValueError, match=r"^model: expected a model with layers of delays"):
        integer_loss(nn.Linear(2, 2))
