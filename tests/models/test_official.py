"""The authors' checkpoints, made by DCLS 0.1.1 in the names of the models' authors: the same outputs, all keys."""

import argparse
import logging
import pickle
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import theirs
import timm
import torch
from safetensors.torch import save_file
from timm.models import metaformer
from torch import nn

import torchdcls
from torchdcls import Dcls2d, load_official, to_official
from torchdcls.conversion import files, official
from torchdcls.conversion.official import INTERPOLATION_OF, PUBLISHED
from torchdcls.models import HOSTS
from torchdcls.models import official as models_official

# Few layers and channels; timm's MetaFormers do not take them as arguments.
DEPTHS, WIDTHS = (2, 1, 2, 2), (8, 16, 32, 64)
TINY = {
    "convnext": {"depths": DEPTHS, "dims": WIDTHS},
    "convformer": {},
    "caformer": {},
    "fastvit": {"layers": DEPTHS, "embed_dims": WIDTHS},
    "resnet50": {"layers": DEPTHS, "channels": WIDTHS},
}
# What the authors publish, and what else the package DCLS can make of the same models.
CASES = [
    *(("convnext_tiny", version) for version in INTERPOLATION_OF),
    ("convformer_s18", "v1"),
    ("caformer_s18", "v1"),
    ("caformer_s18", "gauss"),
    ("fastvit_sa24", "v1"),
    ("fastvit_sa36", "gauss"),
    ("resnet50", "v0"),
    ("resnet50", "max"),
]


def family(host: str) -> str:
    return host.partition("_")[0]


@pytest.fixture(autouse=True)
def _small(monkeypatch, caplog, tmp_path):
    """The models of `load_official` are tiny, and downloads go to a folder of the test's own."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    make = metaformer.MetaFormer
    monkeypatch.setattr(
        metaformer, "MetaFormer", lambda **arguments: make(**{**arguments, "depths": DEPTHS, "dims": WIDTHS})
    )
    for table in ("HOSTS", "_MORE_HOSTS"):
        small = tuple(
            replace(host, arguments={**host.arguments, **TINY[family(host.name)]})
            for host in getattr(models_official, table)
            if host.name
            not in ("convnext_small", "convnext_base", "convformer_s36", "convformer_m36", "convformer_b36")
        )
        monkeypatch.setattr(models_official, table, small)


def their_model(host: str, version: str, size: int = 9, count: int = 4, reach: float = 1.0, share: bool = True):
    model = timm.create_model(host, **TINY[family(host)])
    return theirs.shake_(theirs.replace(model, version, size, count, share), size, reach)


def their_file(path: Path, model: nn.Module, host: str, part: str = "state_dict_ema") -> Path:
    """As training programs save it: settings and a counter beside the weights."""
    state_dict = theirs.original(model.state_dict(), family(host), DEPTHS)
    settings = argparse.Namespace(lr=4e-3, data="x", output=Path("/y"), best=np.float64(82.5))
    torch.save({part: state_dict, "args": settings, "metric": np.float32(82), "epoch": 3}, path)
    return path


def layers(model: nn.Module) -> dict[str, Dcls2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Dcls2d)}


def assert_same_outputs(ours: nn.Module, expected: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = expected.eval()(images)
        assert wanted.std(0).max() > 1e-3
        torch.testing.assert_close(ours.eval()(images), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(("host", "version"), CASES)
@pytest.mark.parametrize("reach", [1.0, 1.3], ids=["on the grid", "and off"])
def test_outputs_and_keys(host: str, version: str, reach: float, tmp_path: Path) -> None:
    """In both directions; v0 loses what is off the grid, the others do not."""
    expected = their_model(host, version, reach=reach)
    file = their_file(tmp_path / "file.pth", expected, host)
    ours = load_official(file, version=version, dilated_kernel_size=9)
    assert_same_outputs(ours, expected)

    found = layers(ours)
    assert found.keys() == {name for name, module in expected.named_modules() if hasattr(module, "DCK")}
    for name, layer in found.items():
        order = [0, 1] if version == "v0" else [1, 0]
        assert torch.equal(layer.position, expected.get_submodule(name).P[order])
    stages = 2 if "caformer" in host else 4
    assert len({layer.position for layer in found.values()}) == stages

    back = to_official(ours.state_dict(), version=version, dilated_kernel_size=9)
    given = torch.load(file, weights_only=False)["state_dict_ema"]
    assert back.keys() == given.keys()
    for key, value in given.items():
        torch.testing.assert_close(back[key], value, rtol=1e-6 if version == "v0" else 0, atol=0, msg=key)
    assert len({value.data_ptr() for key, value in back.items() if key.endswith(".P")}) == stages


def test_v0_is_not_v1(tmp_path: Path) -> None:
    """Off the grid they differ, so that the version matters."""
    expected = their_model("convnext_tiny", "v0", reach=1.3)
    ours = load_official(their_file(tmp_path / "f.pth", expected, "convnext"), version="v1", dilated_kernel_size=9)
    with pytest.raises(AssertionError, match="not close"):
        assert_same_outputs(ours, expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_files_find_their_model(name: str, monkeypatch) -> None:
    """Every parameter, by name and shape, under the names of the models' authors."""
    monkeypatch.undo()
    file = PUBLISHED[name]
    model = theirs.on_meta(file.host, file.version, file.size, file.count)
    blocks = [re.match(r"(?:stages\.|layer)(\d)\.(?:blocks\.)?(\d+)", key) for key in model.state_dict()]
    depths: dict[str, int] = {}
    for block in filter(None, blocks):
        depths[block[1]] = max(depths.get(block[1], 0), int(block[2]) + 1)
    state_dict = theirs.original(model.state_dict(), family(file.host), tuple(depths.values()))
    host, names = models_official._host(Path(name), state_dict)
    assert host.name == file.host
    assert names.keys() == state_dict.keys()
    assert official.kernel_count(state_dict) == file.count
    assert official.check_version(file.version, state_dict) == file.version
    ours = {names[key]: value for key, value in state_dict.items()}
    assert official.to_official(ours).keys() == state_dict.keys()


def test_known_files_need_no_settings(tmp_path: Path) -> None:
    expected = their_model("resnet50", "v0", size=7, count=5, reach=1.2)
    ours = load_official(their_file(tmp_path / "resnet_dcls_kernel_5_model_best.pth.tar", expected, "resnet50"))
    assert {(layer.dilated_kernel_size, layer.interpolation.name) for layer in layers(ours).values()} == {
        ((7, 7), "bilinear")
    }
    assert_same_outputs(ours, expected)
    assert timm.data.resolve_model_data_config(ours)["input_size"] == (3, 224, 224)
    assert not ours.pretrained_cfg.get("hf_hub_id") and not ours.pretrained_cfg.get("url")  # its weights are others


def test_plain_values_and_settings_are_not_looked_at(tmp_path: Path) -> None:
    file = their_file(tmp_path / "f.pth", their_model("convnext_tiny", "v1"), "convnext", "model")
    content = files.read(file)
    assert (content["args"].lr, content["epoch"]) == (4e-3, 3)
    assert type(content["metric"]) is type(content["args"].output) is type(content["args"].best) is files._Unread


@pytest.mark.parametrize("part", ["model", "state_dict_ema", "model_ema", "state_dict", None])
def test_where_weights_are(part: str | None, tmp_path: Path) -> None:
    """Averaged ones are taken first; wrappers' prefixes go."""
    expected = their_model("caformer_s18", "v1")
    state_dict = theirs.original(expected.state_dict(), "caformer", DEPTHS)
    wrapped = {f"module.{key}": value for key, value in state_dict.items()}
    other = {key: torch.zeros_like(value) for key, value in state_dict.items()}
    content: dict[str, Any] = wrapped if part is None else {"args": argparse.Namespace(), part: wrapped}
    if part is not None and part.endswith("ema"):
        content = {"state_dict": other, "model": other, **content}
    torch.save(content, tmp_path / "f.pth")
    assert_same_outputs(load_official(tmp_path / "f.pth", version="v1", dilated_kernel_size=9), expected)


def test_safetensors(tmp_path: Path) -> None:
    expected = their_model("convformer_s18", "gauss")
    state_dict = theirs.original(expected.state_dict(), "convformer", DEPTHS)
    save_file({key: value.clone() for key, value in state_dict.items()}, tmp_path / "f.safetensors")
    ours = load_official(str(tmp_path / "f.safetensors"), version="gauss", dilated_kernel_size=9)
    assert_same_outputs(ours, expected)


def test_layers_that_share_nothing(tmp_path: Path) -> None:
    """As ResNets trained without sharing have it."""
    expected = their_model("resnet50", "v0", share=False)
    ours = load_official(their_file(tmp_path / "f.pth", expected, "resnet50"), version="v0", dilated_kernel_size=9)
    assert len({layer.position for layer in layers(ours).values()}) == len(layers(ours)) == sum(DEPTHS)
    assert_same_outputs(ours, expected)


def test_an_address_is_fetched_once(tmp_path: Path) -> None:
    expected = their_model("convnext_tiny", "gauss", size=23, count=26)
    file = their_file(tmp_path / "convnext_dcls_gauss_tiny_1k_224_ema.pth", expected, "convnext", "model")
    url = f"{file.as_uri()}?download=1"
    load_official(file.as_uri())
    file.unlink()
    ours = load_official(url)
    assert_same_outputs(ours, expected)
    assert (tmp_path / "hub" / "hub" / "checkpoints" / file.name).is_file()


# timm.create_model(..., pretrained=True)

REGISTERED = {
    "convnext_tiny_dcls_bilinear": ("7112021", "convnext_dcls_tiny_1k_224_ema.pth"),
    "convnext_small_dcls_bilinear": ("7112021", "convnext_dcls_small_1k_224_ema.pth"),
    "convnext_base_dcls_bilinear": ("7112021", "convnext_dcls_base_1k_224_ema.pth"),
    "convnext_tiny_dcls_gaussian": ("8029747", "convnext_dcls_gauss_tiny_1k_224_ema.pth"),
    "caformer_s18_dcls_bilinear": ("8370737", "caformer_s18_v1_17lim_34el_seed0.pth.tar"),
    "fastvit_sa24_dcls_bilinear": ("8370737", "fastvit_sa24_v1_17lim_34el_seed0.pth.tar"),
    "resnet50_dcls_bilinear": ("8373830", "resnet_dcls_kernel_5_model_best.pth.tar"),
}


def test_addresses() -> None:
    """Only models with the kernels of a file: ConvFormer-S18 is registered with fewer elements than its file has."""
    assert set(timm.list_models("*_dcls_*", pretrained=True)) == set(REGISTERED)
    for name, (record, file) in REGISTERED.items():
        assert timm.get_pretrained_cfg(name).url == f"https://zenodo.org/records/{record}/files/{file}?download=1"


def registered(name: str, file: Path, url: bool = False, **arguments: Any) -> nn.Module:
    overlay = {"url": file.as_uri()} if url else {"file": str(file)}
    arguments = {**TINY[family(name)], **arguments}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)


@pytest.mark.parametrize("name", [name for name in REGISTERED if "small" not in name and "base" not in name])
@pytest.mark.parametrize("url", [False, True], ids=["file", "address"])
def test_registered_models(name: str, url: bool, tmp_path: Path) -> None:
    published = PUBLISHED[REGISTERED[name][1]]
    expected = their_model(published.host, published.version, published.size, published.count, reach=1.1)
    file = their_file(tmp_path / REGISTERED[name][1], expected, published.host)
    ours = registered(name, file, url)
    assert_same_outputs(ours, expected)
    again = load_official(file)
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "name", ["convnext_tiny_dcls_gaussian", "caformer_s18_dcls_bilinear", "resnet50_dcls_bilinear"]
)
def test_other_classes_channels_and_features(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[REGISTERED[name][1]]
    expected = their_model(published.host, published.version, published.size, published.count)
    file = their_file(tmp_path / REGISTERED[name][1], expected, published.host)
    images = torch.randn(1, 3, 64, 64)
    whole = registered(name, file).eval()
    few = registered(name, file, num_classes=7).eval()
    none = registered(name, file, num_classes=0).eval()
    grey = registered(name, file, in_chans=1).eval()
    maps = registered(name, file, features_only=True).eval()
    with torch.no_grad():
        assert few(images).shape == (1, 7)
        assert torch.equal(few.forward_features(images), whole.forward_features(images))
        assert torch.equal(none.forward_features(images), whole.forward_features(images))
        same = images[:, :1].expand_as(images)
        torch.testing.assert_close(grey(images[:, :1]), whole(same), rtol=1e-4, atol=1e-4)
        assert torch.equal(maps(images)[-1], whole.forward_features(images))


def test_own_state_dicts_are_loaded_as_they_are(tmp_path: Path) -> None:
    model = timm.create_model("convnext_tiny_dcls_gaussian", **TINY["convnext"])
    torch.save(model.state_dict(), tmp_path / "f.pth")
    ours = registered("convnext_tiny_dcls_gaussian", tmp_path / "f.pth")
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in model.state_dict().items())


# What goes wrong


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text
    assert not re.search(r"[.!?] [A-Z]", text)


@pytest.fixture
def refused():
    """Calls something that must say in one sentence what is wrong."""

    def check(match: str, call: Any, *arguments: Any, **named: Any) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            call(*arguments, **named)
        assert_one_sentence(str(caught.value))

    return check


def test_code_in_a_file_is_not_run(tmp_path: Path, refused) -> None:
    target = tmp_path / "ran"
    for name, zipped in (("new.pth", True), ("convnext_dcls_gauss_tiny_1k_224_ema.pth", False)):
        file = tmp_path / name
        torch.save({"model": {}, "args": Attack(target)}, file, _use_new_zipfile_serialization=zipped)
        refused("asks for .*nothing in it was run", load_official, file)
        refused("asks for .*nothing in it was run", registered, "convnext_tiny_dcls_gaussian", file)
        assert not target.exists()
    torch.load(file, weights_only=False)
    assert target.exists()  # it would have


def test_broken_files(tmp_path: Path, refused) -> None:
    file = their_file(tmp_path / "convnext_dcls_tiny_1k_224_ema.pth", their_model("convnext_tiny", "v0"), "convnext")
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not found", pickle.dumps({"model": 1})[:-3]):
        file.write_bytes(content)
        refused("cannot be read .*download it again", load_official, file)
        refused("cannot be read .*download it again", registered, "convnext_tiny_dcls_bilinear", file)
    (tmp_path / "f.safetensors").write_bytes(whole[:100])
    refused("cannot be read", load_official, tmp_path / "f.safetensors")


def test_missing_files_and_networks(tmp_path: Path, refused) -> None:
    refused("which does not exist", load_official, tmp_path / "f.pth")
    refused("which is a folder", load_official, tmp_path)
    with socket.socket() as closed:  # bound, not listening: nobody answers
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/convnext_dcls_tiny_1k_224_ema.pth"
        refused("could not be downloaded .*connect to the network, or put the file at", load_official, url)
        overlay = {"url": url}
        make = timm.create_model
        name = "convnext_tiny_dcls_bilinear"
        refused("could not be downloaded", make, name, pretrained=True, pretrained_cfg_overlay=overlay)


def test_files_of_others(tmp_path: Path, refused) -> None:
    settings = {"version": "v1", "dilated_kernel_size": 9}
    for content in (timm.create_model("convnext_atto").state_dict(), {"model": {}}, [1, 2], {}):
        torch.save(content, tmp_path / "f.pth")
        refused(
            "expected a checkpoint .*layers of the package DCLS, got .* without any", load_official, tmp_path / "f.pth"
        )
    torch.save({"a.P": torch.zeros(2, 3, 1, 4), "a.weight": torch.zeros(3, 1, 4)}, tmp_path / "f.pth")
    refused("its keys fit none of these models", load_official, tmp_path / "f.pth", **settings)


@pytest.mark.parametrize("host", ["convnext_tiny", "convformer_s18", "fastvit_sa24", "resnet50"])
def test_keys_that_do_not_fit(host: str, tmp_path: Path, refused) -> None:
    settings = {"version": "v1", "dilated_kernel_size": 9}
    given = theirs.original(their_model(host, "v1").state_dict(), family(host), DEPTHS)
    file = tmp_path / "f.pth"
    some = [key for key in given if key.endswith("norm.weight") or key.endswith("bn1.weight") or ".bn.weight" in key]
    torch.save({key: value for key, value in given.items() if key not in some[:2]}, file)
    two = r"comes closest, but it lacks [\w.]+, [\w.]+$"
    refused(f"{host.partition('_')[0]}.* {two}", load_official, file, **settings)
    torch.save({**given, "stages.0.0.extra.weight": torch.zeros(2, 2)}, file)
    refused("comes closest, but .*extra", load_official, file, **settings)
    head = "fc.bias" if host == "resnet50" else "head.fc2.bias" if "former" in host else "head.bias"
    torch.save({**given, head: torch.zeros(12)}, file)
    refused(r"comes closest, but shapes differ for [\w.]+$", load_official, file, **settings)


@pytest.mark.parametrize("layer", ["stages.0.0.dwconv", "stages.2.1.dwconv"])
def test_layers_that_are_not_whole(layer: str, tmp_path: Path, refused) -> None:
    settings = {"version": "gauss", "dilated_kernel_size": 9}
    given = theirs.original(their_model("convnext_tiny", "gauss").state_dict(), "convnext", DEPTHS)
    file = tmp_path / "f.pth"
    for name in ("weight", "P", "SIG"):
        key = f"{layer}.{name}"
        torch.save({other: value for other, value in given.items() if other != key}, file)
        refused(
            rf"expected weights and positions of all DCLS layers .*got none of {key}$", load_official, file, **settings
        )
        torch.save({**given, key: torch.full_like(given[key], torch.nan)}, file)
        refused(f"expected finite numbers, got NaN or infinity in {key}$", load_official, file, **settings)


def test_an_empty_average_is_passed_over(tmp_path: Path) -> None:
    expected = their_model("convnext_tiny", "v1")
    given = theirs.original(expected.state_dict(), "convnext", DEPTHS)
    torch.save({"state_dict_ema": {}, "model": given}, tmp_path / "f.pth")
    assert_same_outputs(load_official(tmp_path / "f.pth", version="v1", dilated_kernel_size=9), expected)


def test_elements_that_do_not_fit(tmp_path: Path, refused) -> None:
    settings = {"version": "v1", "dilated_kernel_size": 9}
    given = theirs.original(their_model("convnext_tiny", "v1").state_dict(), "convnext", DEPTHS)
    file = tmp_path / "f.pth"
    torch.save({**given, "stages.0.0.dwconv.P": torch.zeros(2, 8, 1, 5)}, file)
    refused(r"with positions .*got stages.0.0.dwconv.weight \(8, 1, 4\)", load_official, file, **settings)
    other = {"stages.0.0.dwconv.P": torch.zeros(2, 8, 1, 5), "stages.0.0.dwconv.weight": torch.zeros(8, 1, 5)}
    torch.save({**given, **other}, file)
    refused(r"expected as many elements in all layers, got \[4, 5\]", load_official, file, **settings)


def test_settings(tmp_path: Path, refused) -> None:
    bilinear = their_file(tmp_path / "a.pth", their_model("convnext_tiny", "v1"), "convnext")
    gauss = their_file(tmp_path / "b.pth", their_model("convnext_tiny", "gauss"), "convnext")
    refused("version and dilated_kernel_size: expected to be given for 'a.pth'", load_official, bilinear)
    refused("^dilated_kernel_size: expected to be given", load_official, bilinear, version="v1")
    refused("^version: expected to be given", load_official, bilinear, dilated_kernel_size=9)
    for file, version, names in (
        (bilinear, "gauss", "'v0' or 'v1'"),
        (bilinear, "v2", "'v0' or 'v1'"),
        (gauss, "v1", "'max' or 'gauss'"),
    ):
        refused(f"version: expected {names}", load_official, file, version=version, dilated_kernel_size=9)
    refused("expected at least 1", load_official, bilinear, version="v1", dilated_kernel_size=0)
    refused("holds most positions .*got 3", load_official, bilinear, version="v1", dilated_kernel_size=3)


def test_files_of_another_registered_model(tmp_path: Path, refused) -> None:
    gauss = their_file(
        tmp_path / "convnext_dcls_gauss_tiny_1k_224_ema.pth", their_model("convnext_tiny", "gauss", 23, 26), "convnext"
    )
    name = "convnext_tiny_dcls_bilinear"
    refused("is not for convnext_tiny_dcls_bilinear: its kernels are gaussian, of 26", registered, name, gauss)
    name = "caformer_s18_dcls_gaussian"
    refused("is not for caformer_s18_dcls_gaussian: it lacks .* and 76 more; it also has", registered, name, gauss)
    other = gauss.rename(tmp_path / "mine.pth")
    refused("load it with torchdcls.load_official", registered, "convnext_tiny_dcls_gaussian", other)
    unshared = their_model("resnet50", "v0", size=7, count=5, share=False)
    file = their_file(tmp_path / "resnet_dcls_kernel_5_model_best.pth.tar", unshared, "resnet50")
    refused("share no position in it; torchdcls.load_official", registered, "resnet50_dcls_bilinear", file)


def test_the_other_way_refuses(refused) -> None:
    model = timm.create_model("convnext_tiny_dcls_bilinear", **TINY["convnext"])
    refused("expected the state dict of timm's ConvNeXt", to_official, nn.Linear(2, 2).state_dict())
    refused("expected the state dict of timm's ConvNeXt", to_official, timm.create_model("convnext_atto").state_dict())
    refused("dilated_kernel_size: .*got None", to_official, model.state_dict(), version="v0")
    refused("version: expected 'v0' or 'v1'", to_official, model.state_dict(), version="gauss")
    lines = {**model.state_dict(), "x.weight": torch.zeros(3, 1, 2), "x.position": torch.zeros(1, 3, 1, 2)}
    refused(r"positions along two axes, got x.position of shape \(1, 3, 1, 2\)", to_official, lines)


def test_public_names() -> None:
    assert {"load_official", "to_official"} <= set(torchdcls.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_oficial'"):
        torchdcls.load_oficial  # noqa: B018
    assert all(file.host in {host.name for host in HOSTS} | {"fastvit_sa36"} for file in PUBLISHED.values())
