"""What stands in the place of depthwise layers, and what pairs the methods: images and shared weights of a seed."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from studies.cells import Cell, make_cell
from studies.config import LAYERS, Candidate, Layers
from studies.images import load_images
from studies.layers import DenseConv2d, build
from tests.studies.made_study import PLATFORM, toy
from torchdcls import Dcls2d
from torchdcls.conversion import parameter_count

CPU = torch.device("cpu")


def cell_of(method: Layers, model: str = "convnext", size: int = 9, start: float | str = 1.0, seed: int = 3) -> Cell:
    candidate = Candidate(4e-3, 0.05, None if method == "7x7" else size, start)  # type: ignore[arg-type]
    return make_cell(toy(), PLATFORM, model=model, method=method, candidate=candidate, seed=seed)


@pytest.mark.parametrize("model", ["convnext", "convformer"])
def test_methods_start_alike_but_for_their_depthwise_layers(model: str) -> None:
    baseline = build(cell_of("7x7", model), 1, 10)[0]
    own = baseline.state_dict()
    depthwise = {
        f"{name}.weight"
        for name, layer in baseline.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups > 1
    }
    depthwise = {name for name in depthwise if own[name].shape[-1] == 7}
    for method in LAYERS[1:]:
        model_, _ = build(cell_of(method, model), 1, 10)
        state = model_.state_dict()
        assert {name for name in own if name not in state or state[name].shape != own[name].shape} <= depthwise
        common = [name for name in own if name not in depthwise]
        assert all(torch.equal(state[name], own[name]) for name in common)
        if method != "dense":
            assert parameter_count(model_) <= parameter_count(baseline)
        assert model_(torch.zeros(2, 1, 9, 9)).shape == (2, 10)
        again = build(cell_of(method, model), 1, 10)[0].state_dict()
        assert all(torch.equal(state[name], again[name]) for name in state)


def test_controls() -> None:
    dense, taps = build(cell_of("dense"), 1, 10)
    layers = [layer for layer in dense.modules() if isinstance(layer, DenseConv2d)]
    assert (len(layers), taps, layers[0].kernel_size) == (18, 81, (9, 9))
    images = torch.randn(2, layers[0].in_channels, 9, 9)
    plain = nn.functional.conv2d(images, layers[0].weight, layers[0].bias, padding=4, groups=layers[0].groups)
    torch.testing.assert_close(layers[0](images), plain)

    dilated, taps = build(cell_of("dilated"), 1, 10)
    spread = [layer for layer in dilated.modules() if isinstance(layer, nn.Conv2d) and layer.dilation == (2, 2)]
    assert (len(spread), taps, spread[0].kernel_size) == (18, 25, (5, 5))

    frozen, count = build(cell_of("frozen", start="whole"), 1, 10)
    (first, *others) = [layer for layer in frozen.modules() if isinstance(layer, Dcls2d)]
    assert len(others) == 17 and count == build(cell_of("gaussian"), 1, 10)[1]
    assert not first.position.requires_grad and first.sigma is not None and first.sigma.requires_grad
    assert 3.9 < first.position.abs().max() <= 4


@pytest.mark.parametrize(("start", "radius"), [(1.0, 1.0), (30.0, 4.0), ("whole", 4.0)])
def test_starts_stay_within_the_kernel(start: float | str, radius: float) -> None:
    model, _ = build(cell_of("bilinear", start=start), 1, 10)
    positions = torch.cat([layer.position.flatten() for layer in model.modules() if isinstance(layer, Dcls2d)])
    assert 0.9 * radius < positions.abs().max() <= radius


def test_the_papers_start() -> None:
    model, _ = build(cell_of("gaussian", start=0.0), 1, 10)
    positions = torch.cat([layer.position.flatten() for layer in model.modules() if isinstance(layer, Dcls2d)])
    assert positions.std().item() == pytest.approx(0.5, rel=0.05)


def test_split_is_disjoint_balanced_and_always_the_same() -> None:
    config = toy(train_images=None, validation_images=600)
    found, again = load_images(config), load_images(config)
    assert (len(found.training), len(found.validation), len(found.test)) == (5400, 600, 1000)
    assert found.validation.labels.bincount().tolist() == [60] * 10
    assert torch.equal(found.validation.images, again.validation.images)
    whole = load_images(toy(train_images=None, validation_images=1))
    parts = torch.cat([found.training.images, found.validation.images]).flatten(1)
    others = torch.cat([whole.training.images, whole.validation.images]).flatten(1)
    # As sets of rows both are all of the images.
    assert torch.equal(parts.double().sum(0), others.double().sum(0))
    with pytest.raises(ValueError, match="validation_images: expected fewer than the 60 training images, got 60"):
        load_images(toy(validation_images=60))


def test_ids() -> None:
    cell = cell_of("gaussian")
    assert cell.id == replace(cell).id
    for name, value in asdict(cell).items():
        other = replace(cell, **{name: "other" if isinstance(value, str) else 17})
        assert other.id != cell.id, name
