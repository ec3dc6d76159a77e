"""Models of a comparison have a first stage that a large kernel can use."""

import pytest
import torch
from torch import nn

from torchdcls.conversion import select
from torchdcls_train.comparison.small import comparison_model


@pytest.mark.parametrize("name", ["convnext", "convformer"])
@pytest.mark.parametrize(("image_size", "first_stage"), [(16, 16), (28, 28), (32, 32), (64, 32), (128, 32)])
def test_first_stage(name: str, image_size: int, first_stage: int) -> None:
    model = comparison_model(name, 3, 5, image_size).eval()
    stem = model.stem
    images = torch.zeros(1, 3, image_size, image_size)
    assert stem(images).shape[-2:] == (first_stage, first_stage)
    assert model(images).shape == (1, 5)


@pytest.mark.parametrize(("image_size", "map_size"), [(16, 16), (28, 14), (32, 16), (64, 16)])
def test_maps_of_a_convmixer(image_size: int, map_size: int) -> None:
    model = comparison_model("convmixer", 3, 5, image_size).eval()
    images = torch.zeros(1, 3, image_size, image_size)
    assert model.forward_features(images).shape[-2:] == (map_size, map_size)  # type: ignore[operator]
    assert model(images).shape == (1, 5)


@pytest.mark.parametrize("name", ["convformer_s18", "convnext_atto"])
def test_models_of_timm(name: str) -> None:
    model = comparison_model(name, 1, 5, 28)
    assert model.stem(torch.zeros(1, 1, 28, 28)).shape[-2:] == (28, 28)


def test_a_name_that_timm_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"model: expected 'convmixer', .*got 'convformer_s19'; did you mean 'convf"):
        comparison_model("convformer_s19", 3, 5, 32)


@pytest.mark.parametrize("name", ["convnext", "convformer"])
def test_at_least_three_depthwise_7x7_layers_a_stage(name: str) -> None:
    model = comparison_model(name, 1, 10, 28)
    layers = [
        layer_name
        for layer_name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and select.default_reason(module) is None
    ]
    stages = list(select.stages(layers).values())
    assert [stages.count(f"stages.{stage}") for stage in range(4)] == [3, 3, 9, 3]
    assert all(model.get_submodule(layer).kernel_size == (7, 7) for layer in layers)


def test_the_small_convmixer() -> None:
    model = comparison_model("convmixer", 1, 10, 28)
    layers = [
        layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and select.default_reason(layer) is None
    ]
    assert [(layer.in_channels, layer.kernel_size) for layer in layers] == [(32, (7, 7))] * 3
