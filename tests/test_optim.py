"""Parameter groups, clamping and repulsion: what a training loop needs to know about DCLS parameters."""

import itertools
import math
from functools import partial

import pytest
import timm
import torch
from computed import BY_HOOKS, PARAMETRIZED, Halved
from timm.layers import GroupNorm1, LayerNorm2d, RmsNorm, SimpleNorm
from timm.optim import Lamb, create_optimizer_v2
from torch import nn
from torch.nn.utils import parametrize

from torchdcls import Dcls1d, Dcls2d, Dcls3d, clamp_positions_, convert, param_groups, repulsion_loss

NORMS = {
    "batch": lambda: nn.BatchNorm2d(4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "layer": lambda: nn.LayerNorm(5),
    "layer over three axes": lambda: nn.LayerNorm((4, 5, 5)),
    "group": lambda: nn.GroupNorm(2, 4),
    "rms over two axes": lambda: nn.RMSNorm((5, 5)),
    "timm's LayerNorm2d": lambda: LayerNorm2d(4),
    "timm's GroupNorm1": lambda: GroupNorm1(4),
    "timm's RmsNorm": lambda: RmsNorm(5),
    "timm's SimpleNorm": lambda: SimpleNorm(5),
}


class Mixed(nn.Module):
    """Two DCLS layers that share positions, every kind of norm, a scale of its own, a frozen layer."""

    def __init__(self, interpolation="gaussian"):
        super().__init__()
        layers = [nn.Conv2d(4, 4, 3, padding=1, groups=4) for _ in range(2)]
        self.blocks = nn.Sequential(*layers)
        convert(self.blocks, dilated_kernel_size=5, kernel_count=3, interpolation=interpolation)
        self.norms = nn.Sequential(*[make() for make in NORMS.values()])
        self.gamma = nn.Parameter(torch.ones(4))
        self.mix = nn.Conv2d(4, 4, 1)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.head = nn.Linear(5, 5)


def groups_by_name(model, groups):
    """For each name, aliases of shared parameters included, the group its parameter is in."""
    group_of = {parameter: group for group in groups for parameter in group["params"]}
    return {name: group_of.get(p) for name, p in model.named_parameters(remove_duplicate=False)}


def assert_each_trainable_once(model, groups):
    """Every trainable parameter is in exactly one group, once, and nothing else is in any."""
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_groups_by_kind(interpolation):
    """Weights decay; biases, norms and vectors do not; positions and sigmas do not and learn five times as fast."""
    model = Mixed(interpolation)
    groups = param_groups(model, lr=0.01, weight_decay=0.05)
    assert_each_trainable_once(model, groups)
    decayed = {"blocks.0.weight", "blocks.1.weight", "mix.weight", "head.weight"}
    for name, group in groups_by_name(model, groups).items():
        if name.startswith("frozen"):
            assert group is None, name
        elif name.endswith(("position", "sigma")):
            assert (group["lr"], group["weight_decay"]) == (0.05, 0.0), name
        else:
            assert (group["lr"], group["weight_decay"]) == (0.01, 0.05 if name in decayed else 0.0), name


@pytest.mark.parametrize("name", ["convnext_atto", "convformer_s18", "mambaout_femto", "convnextv2_atto"])
def test_groups_of_timm_models(name):
    """In converted models each parameter is in one group, and what decays is what timm decays, positions left out."""
    with torch.device("meta"):
        model = timm.create_model(name)
    convert(model, dilated_kernel_size=11, kernel_count=4)
    groups = param_groups(model, lr=1e-3, weight_decay=0.05)
    assert_each_trainable_once(model, groups)
    timms, _ = sorted(timm.optim.param_groups_weight_decay(model, 0.05), key=lambda group: -group["weight_decay"])
    learned = {p for n, p in model.named_parameters() if n.endswith(("position", "sigma"))}
    assert set(groups[0]["params"]) == set(timms["params"]) - learned


def test_frozen_layers_are_left_out():
    """Frozen positions, weights and biases are in no group, and a group of nothing is not there."""
    model = Mixed()
    for layer in model.blocks:
        layer.requires_grad_(False)
    groups = param_groups(model, lr=0.01, weight_decay=0.05)
    assert_each_trainable_once(model, groups)
    assert len(groups) == 2
    assert param_groups(model.requires_grad_(False), lr=0.01, weight_decay=0.05) == []


def test_shared_parameter_of_two_kinds_appears_once():
    """A parameter that is a norm's and a weight at once is in one group only, so that optimisers take the groups."""
    model = nn.Sequential(nn.LayerNorm((5, 5)), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    groups = param_groups(model, lr=0.01, weight_decay=0.05)
    assert_each_trainable_once(model, groups)
    torch.optim.SGD(groups)


def test_model_without_dcls_layers():
    """Groups are for any model, so that a baseline can be trained by the same loop."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    groups = param_groups(model, lr=0.01, weight_decay=0.05)
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert_each_trainable_once(model, groups)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_position_lr_scale(scale):
    """One plain gradient step of ones moves positions and sigmas by the scaled rate, all others by the base rate."""
    model = Mixed()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(param_groups(model, lr=0.125, weight_decay=0.0, position_lr_scale=scale))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate = 0.125 * scale if name.endswith(("position", "sigma")) else 0.125
        expected = start[name] - (0.0 if name.startswith("frozen") else rate)
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_only_weights_decay():
    """A step with zero gradients shrinks weights and leaves everything else bit for bit."""
    model = Mixed()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.5, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {"blocks.0.weight", "blocks.1.weight", "mix.weight", "head.weight"}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name] * (0.75 if name in decayed else 1.0)), name


OPTIMIZERS = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "timm's LAMB": Lamb,
    "timm's create_optimizer_v2": partial(create_optimizer_v2, opt="adamw", lr=1.0, weight_decay=0.9),
    "timm's create_optimizer_v2, LAMB": partial(create_optimizer_v2, opt="lamb", lr=1.0, weight_decay=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_any_optimizer_takes_the_groups(kind):
    """Optimisers keep each group's own rate and decay, and a step moves every trainable parameter."""
    model = Mixed()
    optimizer = OPTIMIZERS[kind](param_groups(model, lr=0.01, weight_decay=0.05))
    settings = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert settings == [(0.01, 0.05), (0.01, 0.0), (0.05, 0.0)]
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name]) == name.startswith("frozen"), name


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("computed", (PARAMETRIZED | BY_HOOKS).values(), ids=PARAMETRIZED | BY_HOOKS)
def test_what_positions_are_computed_from(computed):
    """It learns as positions do, whatever its name and shape; what makes weight and bias does as these."""
    model = nn.Sequential(computed(Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4)), nn.Conv2d(4, 4, 1))
    groups = param_groups(model, lr=0.01, weight_decay=0.05)
    assert_each_trainable_once(model, groups)
    for name, group in groups_by_name(model, groups).items():
        placing = "position" in name or "sigma" in name
        vector = "bias" in name
        assert (group["lr"], group["weight_decay"]) == (0.05 if placing else 0.01, 0.0 if placing or vector else 0.05)


@pytest.mark.parametrize("argument", ["lr", "weight_decay", "position_lr_scale"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_groups_refuse_bad_numbers(argument, value):
    """A number below 0 or not finite gives a ValueError that names its argument."""
    with pytest.raises(ValueError, match=f"^{argument}: .*{value!r}"):
        param_groups(Mixed(), **{"lr": 0.01, "weight_decay": 0.05, argument: value})


# --- Clamping ---


@pytest.mark.parametrize(
    "make, size, low, high",
    [
        (lambda **o: Dcls1d(2, 2, 3, **o), 7, [-3], [3]),
        (lambda **o: Dcls2d(2, 2, 3, **o), (4, 9), [-2, -4], [1, 4]),
        (lambda **o: Dcls2d(2, 2, 3, learned_dims=(1,), **o), (5, 8), [-4], [3]),
        (lambda **o: Dcls3d(2, 2, 3, **o), (1, 2, 3), [0, -1, -1], [0, 0, 1]),
    ],
    ids=["1-D", "even and odd", "learned along one axis", "3-D"],
)
def test_clamp_moves_positions_to_the_nearest_edge(make, size, low, high):
    """Positions off the grid go to its edge, axis by axis, in every layer; others stay; the parameter is the same."""
    layers = [make(dilated_kernel_size=size) for _ in range(2)]
    model = nn.Sequential(layers[0], nn.Sequential(layers[1]))
    positions = [layer.position for layer in layers]
    for position in positions:
        nn.init.normal_(position, std=6)
    expected = [
        torch.stack([along.clamp(*edges) for along, *edges in zip(position.detach(), low, high, strict=True)])
        for position in positions
    ]
    assert clamp_positions_(model) is None
    for layer, position, clamped in zip(layers, positions, expected, strict=True):
        assert layer.position is position
        assert position.requires_grad and position.is_leaf
        assert torch.equal(position, clamped)


@pytest.mark.parametrize("function", [clamp_positions_, repulsion_loss])
def test_no_dcls_layers_is_an_error(function):
    """A model without DCLS layers was probably never converted: a ValueError says so."""
    with pytest.raises(ValueError, match=r"^model: expected a model with DCLS layers, got Sequential without any"):
        function(nn.Sequential(nn.Conv2d(4, 4, 3)))


# --- Repulsion ---


def repulsion_oracle(positions):
    """Loss and its gradients by loops over pairs, for positions of shape (axes, kernels, n), one tensor a layer."""
    loss, gradients = 0.0, []
    for position in positions:
        _, kernels, count = position.shape
        gradient = torch.zeros_like(position)
        gradients.append(gradient)
        if count < 2:
            continue
        share = 2 / (count * (count - 1) * kernels * len(positions))
        for kernel, (first, second) in itertools.product(range(kernels), itertools.combinations(range(count), 2)):
            apart = [
                (a - b).item() for a, b in zip(position[:, kernel, first], position[:, kernel, second], strict=True)
            ]
            distance = math.hypot(*apart)
            if distance >= 1:
                continue
            loss += share * (1 - distance)
            for axis, difference in enumerate(apart):
                gradient[axis, kernel, first] -= share * difference / distance
                gradient[axis, kernel, second] += share * difference / distance
    return loss, gradients


DOUBLE = {"dtype": torch.float64, "interpolation": "bilinear"}
REPULSION = {
    "1-D": lambda: [Dcls1d(2, 3, 5, dilated_kernel_size=9, **DOUBLE)],
    "2-D": lambda: [Dcls2d(3, 2, 6, dilated_kernel_size=9, **DOUBLE)],
    "3-D": lambda: [Dcls3d(2, 2, 4, dilated_kernel_size=5, **DOUBLE)],
    "depthwise, with sigmas": lambda: [Dcls2d(4, 4, 5, dilated_kernel_size=9, groups=4, dtype=torch.float64)],
    "one axis learned": lambda: [Dcls2d(2, 2, 5, dilated_kernel_size=(3, 9), learned_dims=(1,), **DOUBLE)],
    "one element": lambda: [Dcls2d(2, 2, 1, dilated_kernel_size=5, **DOUBLE)],
    "layers of all kinds": lambda: [
        Dcls1d(2, 3, 5, dilated_kernel_size=9, **DOUBLE),
        Dcls2d(2, 2, 1, dilated_kernel_size=5, **DOUBLE),
        Dcls2d(3, 2, 6, dilated_kernel_size=9, **DOUBLE),
    ],
}


@pytest.mark.parametrize("case", REPULSION)
def test_repulsion_equals_loops_over_pairs(case):
    """Value and gradient in float64, averaged over pairs, kernels, taps of dense axes and layers."""
    layers = REPULSION[case]()
    positions = [layer.position for layer in layers]
    expected, gradients = repulsion_oracle([p.detach().flatten(1, -2) for p in positions])
    loss = repulsion_loss(nn.ModuleList(layers))
    assert loss.shape == () and loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert (expected > 0) == (case != "one element")
    loss.backward()
    for position, gradient in zip(positions, gradients, strict=True):
        torch.testing.assert_close(position.grad.flatten(1, -2), gradient, rtol=1e-10, atol=1e-14)


def test_repulsion_of_computed_positions():
    """The loss of the positions that are computed, and its gradient by the chain rule."""
    layers = [Dcls2d(2, 2, 5, dilated_kernel_size=9, **DOUBLE) for _ in range(2)]
    parametrize.register_parametrization(layers[0], "position", Halved())
    source = layers[0].parametrizations.position.original
    expected, gradients = repulsion_oracle([layer.position.detach().flatten(1, -2) for layer in layers])
    loss = repulsion_loss(nn.ModuleList(layers))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(source.grad.flatten(1, -2), gradients[0] / 2, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(layers[1].position.grad.flatten(1, -2), gradients[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("spacing, repelled", [(1.0, False), (2.5, False), (0.5, True)])
def test_repulsion_is_zero_a_cell_apart(spacing, repelled):
    """Elements a cell apart or more neither repel nor pull each other; nearer ones do."""
    lattice = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 2).T[:, None, None, :]
    layer = Dcls2d(2, 2, 9, dilated_kernel_size=9, interpolation="bilinear", position_init=lattice * spacing)
    loss = repulsion_loss(layer)
    loss.backward()
    assert (loss.item() > 0) == repelled
    assert bool(layer.position.grad.any()) == repelled


def test_repulsion_counts_shared_positions_once():
    """Layers that share positions are one term of the mean."""
    crowded, free = torch.zeros(2, 1, 1, 4), torch.tensor([-3.0, -1.0, 1.0, 3.0]).expand(2, 1, 1, 4)
    model = nn.Sequential(*[nn.Conv2d(4, 4, 7, padding=3, groups=4) for _ in range(4)])
    convert(model, dilated_kernel_size=9, kernel_count=4, share=lambda name, module: name == "3")
    with torch.no_grad():
        model[0].position.copy_(crowded)
        model[3].position.copy_(free)
    # Three layers at one place, as crowded as can be, and one that is not.
    assert repulsion_loss(model).item() == 0.5


def test_repulsion_of_identical_points_has_finite_gradients():
    """Elements at the very same place have the largest loss, 1, and a gradient of 0, not NaN."""
    layer = Dcls2d(2, 2, 4, dilated_kernel_size=9, position_init=("normal", 0.0))
    loss = repulsion_loss(layer)
    loss.backward()
    assert loss.item() == 1
    assert torch.equal(layer.position.grad, torch.zeros_like(layer.position))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_repulsion_of_a_half_precision_model(half):
    """Positions stay in float32, and so does the loss; nothing is lost by the model's dtype or by autocast."""
    layer = Dcls2d(4, 4, 5, dilated_kernel_size=9, groups=4, interpolation="bilinear")
    expected = repulsion_loss(layer)
    with torch.autocast("cpu", dtype=half):
        under_autocast = repulsion_loss(layer)
    converted = repulsion_loss(layer.to(half))
    for loss in (under_autocast, converted):
        assert loss.dtype == torch.float32
        assert loss.item() == expected.item()


def test_repulsion_spreads_elements():
    """Descending the loss alone drives elements of one kernel apart until none is within a cell of another."""
    layer = Dcls2d(2, 2, 6, dilated_kernel_size=11, groups=2, interpolation="bilinear")
    optimizer = torch.optim.Adam([layer.position], lr=0.05)
    start = repulsion_loss(layer).item()
    for _ in range(150):
        optimizer.zero_grad()
        repulsion_loss(layer).backward()
        optimizer.step()
        clamp_positions_(layer)
    assert start > 0.1
    assert repulsion_loss(layer).item() < start / 100
