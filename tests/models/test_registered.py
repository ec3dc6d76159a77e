"""The papers' models are timm's, converted: their sizes, timm's ways to make them, and two steps of training."""

from collections import defaultdict
from functools import cache, partial
from pathlib import Path

import pytest
import timm
import torch
from timm.models import metaformer
from timm.utils import reparameterize_model
from torch import nn

from torchdcls import Dcls2d
from torchdcls.conversion import parameter_count
from torchdcls.models import HOSTS, registered

INTERPOLATIONS = ("bilinear", "triangle", "gaussian")
HOST_NAMES = [host.name for host in HOSTS]
MODELS = [f"{host}_dcls_{interpolation}" for host in HOST_NAMES for interpolation in INTERPOLATIONS]
# Parameters, each counted once: host, bilinear, triangle and Gaussian.
PARAMETERS = {
    "convnext_tiny": (28_589_128, 28_587_688, 28_586_536),
    "convnext_small": (50_223_688, 50_217_064, 50_062_120),
    "convnext_base": (88_591_464, 88_582_632, 88_376_040),
    "convformer_s18": (26_774_448, 26_763_952, 26_757_808),
    "convformer_s36": (40_012_152, 39_991_416, 39_810_040),
    "convformer_m36": (57_051_640, 57_049_144, 56_794_552),
    "convformer_b36": (99_882_616, 99_879_288, 99_539_832),
    "caformer_s18": (26_341_656, 26_350_488, 26_355_096),
    "fastvit_sa24": (21_554_216, 21_523_496, 21_506_856),
    "resnet50": (25_557_032, 24_008_744, 27_490_344),
}
OVER_THE_HOST = {
    *("caformer_s18_dcls_bilinear", "caformer_s18_dcls_triangle", "caformer_s18_dcls_gaussian"),
    *("resnet50_dcls_triangle", "resnet50_dcls_gaussian"),
}
TINY = {
    "convnext": {"depths": (2, 2, 2, 2), "dims": (8, 16, 32, 64)},
    "convformer": {},
    "caformer": {},
    "fastvit": {"layers": (2, 2, 2, 2), "embed_dims": (8, 16, 32, 64)},
    "resnet50": {"layers": (2, 2, 2, 2), "channels": (8, 16, 32, 64)},
}


@pytest.fixture
def tiny(monkeypatch):
    """Makes a model by its name with few layers and channels; timm's MetaFormers do not take these as arguments."""
    small = {"depths": (2, 2, 2, 2), "dims": (8, 16, 32, 64)}
    original = metaformer.MetaFormer
    monkeypatch.setattr(metaformer, "MetaFormer", lambda **arguments: original(**{**arguments, **small}))
    return lambda name, **arguments: timm.create_model(name, **TINY[name.partition("_")[0]], **arguments)


@cache
def on_meta(name: str, **arguments: object) -> nn.Module:
    """A model at full size that takes no memory; tests leave it as it is."""
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


def dcls_layers(model: nn.Module) -> dict[str, Dcls2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Dcls2d)}


def test_timm_finds_them() -> None:
    assert set(timm.list_models("*_dcls_*")) == set(MODELS)
    assert len(MODELS) == 30
    assert all(timm.is_model(name) for name in MODELS)


def test_the_module_names_them_once() -> None:
    assert sorted(registered.__all__) == sorted(["HOSTS", "Elements", "Host", *MODELS])
    for name in MODELS:
        assert getattr(registered, name).__name__ == name
        assert timm.models.model_entrypoint(name) is getattr(registered, name)


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_size(host: registered.Host, interpolation: registered.Interpolation) -> None:
    plain, bilinear, with_sigma = PARAMETERS[host.name]
    name = f"{host.name}_dcls_{interpolation}"
    model = on_meta(name)
    assert parameter_count(on_meta(host.name)) == plain
    assert parameter_count(model) == (bilinear if interpolation == "bilinear" else with_sigma)
    assert (parameter_count(model) > plain) == (name in OVER_THE_HOST)
    elements = host.elements(interpolation)
    for layer in dcls_layers(model).values():
        assert (layer.dilated_kernel_size, layer.kernel_count) == ((elements.size,) * 2, elements.count)
        assert layer.interpolation.name == interpolation


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("convnext_tiny", [3, 3, 9, 3]),
        ("convformer_s18", [3, 3, 9, 3]),
        ("caformer_s18", [3, 3]),
        ("fastvit_sa24", [4, 4, 12, 5]),  # the positional encoding is one more
        ("resnet50", [3, 4, 6, 3]),
    ],
)
def test_layers_of_a_stage_share_positions_and_sigmas(name: str, layers: list[int]) -> None:
    found = dcls_layers(on_meta(f"{name}_dcls_gaussian"))
    stages = defaultdict(list)
    for layer_name, layer in found.items():
        path = layer_name.split(".")
        stages[path[0] if name == "resnet50" else path[1]].append(layer)
    assert [len(stage) for stage in stages.values()] == layers
    for stage in stages.values():
        assert len({layer.position for layer in stage}) == len({layer.sigma for layer in stage}) == 1
    assert len({layer.position for layer in found.values()}) == len(layers)
    assert len({layer.weight for layer in found.values()}) == sum(layers)


@pytest.mark.parametrize("host", HOST_NAMES)
def test_features_are_the_hosts(host: str) -> None:
    """Also their positions: the stages are recognised before timm takes the model apart."""
    features, plain = on_meta(f"{host}_dcls_gaussian", features_only=True), on_meta(host, features_only=True)
    images = torch.zeros(1, 3, 64, 64, device="meta")
    assert [tuple(level.shape) for level in features(images)] == [tuple(level.shape) for level in plain(images)]
    assert features.feature_info.channels() == plain.feature_info.channels()
    assert features.feature_info.reduction() == plain.feature_info.reduction()
    whole = dcls_layers(on_meta(f"{host}_dcls_gaussian"))
    assert len(dcls_layers(features)) == len(whole)
    shared = {layer.position for layer in dcls_layers(features).values()}
    assert len(shared) == len({layer.position for layer in whole.values()})


def test_out_indices() -> None:
    features = on_meta("convnext_tiny_dcls_bilinear", features_only=True, out_indices=(1, 3))
    assert features.feature_info.channels() == [192, 768]
    getter = on_meta("convnext_tiny_dcls_bilinear", features_only=True, feature_cls="getter", out_indices=(2,))
    assert getter.feature_info.channels() == [384]


@pytest.mark.parametrize("host", HOST_NAMES)
def test_arguments_of_the_host(host: str) -> None:
    arguments = {"num_classes": 7, "in_chans": 1, "drop_path_rate": 0.3, "global_pool": "max"}
    model, plain = on_meta(f"{host}_dcls_triangle", **arguments), on_meta(host, **arguments)
    images = torch.zeros(2, 1, 64, 64, device="meta")
    assert model(images).shape == plain(images).shape == (2, 7)

    def rates(model: nn.Module) -> list[float]:
        return [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]

    assert rates(model) == rates(plain) and max(rates(model)) == pytest.approx(0.3)


@pytest.mark.parametrize("host", HOST_NAMES)
def test_forward_features_and_intermediates(host: str, tiny) -> None:
    model, plain = tiny(f"{host}_dcls_gaussian"), tiny(host)
    images = torch.randn(2, 3, 64, 64)
    assert model.forward_features(images).shape == plain.forward_features(images).shape
    last, maps = model.forward_intermediates(images)
    plain_last, plain_maps = plain.forward_intermediates(images)
    assert last.shape == plain_last.shape
    assert [level.shape for level in maps] == [level.shape for level in plain_maps]


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_images_are_prepared_as_for_the_host(host: registered.Host) -> None:
    plain = timm.get_pretrained_cfg(f"{host.name}.{host.tag}")
    for interpolation in INTERPOLATIONS:
        name = f"{host.name}_dcls_{interpolation}"
        for cfg in (timm.get_pretrained_cfg(name), timm.models.PretrainedCfg(**on_meta(name).pretrained_cfg)):
            assert cfg.architecture == name
            for key in ("input_size", "mean", "std", "crop_pct", "interpolation", "first_conv", "classifier"):
                assert getattr(cfg, key) == getattr(plain, key), key


def test_preparation_of_images_can_be_changed() -> None:
    with torch.device("meta"):
        model = timm.create_model("convnext_tiny_dcls_gaussian", pretrained_cfg_overlay={"crop_pct": 0.5})
    assert timm.data.resolve_model_data_config(model)["crop_pct"] == 0.5
    assert timm.data.resolve_model_data_config(on_meta("convnext_tiny_dcls_gaussian"))["crop_pct"] == 0.875


def test_where_there_are_no_weights() -> None:
    """ConvFormer's file is of more elements."""
    for name in ("convnext_base_dcls_gaussian", "convformer_s18_dcls_bilinear"):
        with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}"):
            on_meta(name, pretrained=True)


@pytest.mark.parametrize("host", HOST_NAMES)
def test_state_dict_and_file_round_trip(host: str, tiny, tmp_path: Path) -> None:
    name = f"{host}_dcls_gaussian"
    model = tiny(name, num_classes=5).eval()
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    from_file = tiny(name, num_classes=5, pretrained=True, pretrained_cfg_overlay={"file": str(file), "num_classes": 5})
    by_hand = tiny(name, num_classes=5)
    by_hand.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(from_file.eval()(images), model(images))
        assert torch.equal(by_hand.eval()(images), model(images))
    positions = {layer.position for layer in dcls_layers(by_hand).values()}
    assert len(positions) == len({layer.position for layer in dcls_layers(model).values()}) < len(dcls_layers(model))


@pytest.mark.parametrize("name", MODELS)
def test_two_steps_of_training(name: str, tiny) -> None:
    model = tiny(name, num_classes=4, in_chans=1)
    layers = list(dcls_layers(model).values())
    learned = {layer.position for layer in layers} | {layer.sigma for layer in layers if layer.sigma is not None}
    before = {parameter: parameter.detach().clone() for parameter in learned}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images, labels = torch.randn(2, 1, 64, 64), torch.tensor([0, 3])
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), labels)
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for parameter, start in before.items():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, start)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resnet_starts_with_the_variance_of_the_host(interpolation: str) -> None:
    make = partial(timm.create_model, layers=(2, 1, 1, 1), channels=(16, 32, 32, 64))
    model, plain = make(f"resnet50_dcls_{interpolation}"), make("resnet50")
    images = torch.randn(4, 16, 32, 32)
    ratios = []
    for name, layer in dcls_layers(model).items():
        if name.startswith("layer1"):
            ratios.append(float((layer(images).var() / plain.get_submodule(name)(images).var()).detach()))
    # Two drawings of about 2,000 weights: 5 % each. Drawn as torch's convolutions are, the ratio would be 0.1 or less.
    assert len(ratios) == 2
    assert ratios == pytest.approx([1.0, 1.0], abs=0.25)


@pytest.mark.parametrize("name", ["convnext_tiny", "convformer_s18", "fastvit_sa24"])
def test_weights_start_as_the_hosts(name: str) -> None:
    for layer in list(dcls_layers(timm.create_model(f"{name}_dcls_gaussian")).values())[:3]:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.15)
        assert float(layer.weight.detach().abs().max()) <= 0.04


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_reparameterised_fastvit_is_the_same_function(interpolation: str, tiny) -> None:
    model = tiny(f"fastvit_sa24_dcls_{interpolation}").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    encoding = model.stages[3].pos_emb.pos_enc
    nn.init.normal_(encoding.weight)
    nn.init.normal_(encoding.bias)
    model.double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        folded = reparameterize_model(model)
        torch.testing.assert_close(folded(images), expected, rtol=1e-6, atol=1e-8)
    assert not hasattr(folded.stages[3].pos_emb, "pos_enc")
    assert encoding in model.modules()
    assert len(dcls_layers(folded)) == len(dcls_layers(model)) - 1


def test_dilated_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"convnext_tiny: stages\.3\.blocks\.0\.conv_dw .* dilation"):
        on_meta("convnext_tiny_dcls_gaussian", output_stride=16)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="dephts"):
        on_meta("convnext_tiny_dcls_gaussian", dephts=(2, 2, 2, 2))
