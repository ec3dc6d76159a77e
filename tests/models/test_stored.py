"""What a file may say of a model of timm, with every timm: no text in it reaches what loads."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import build_model_with_cfg, model_entrypoint
from torch import nn

import torchdcls.models  # noqa: F401  registers them with timm
from torchdcls.models.stored import _constructor_arguments, check_stored, making

PATH = Path("net.safetensors")


def refusal(name: Any, arguments: Any) -> str:
    with pytest.raises(ValueError) as refused:
        check_stored("path", PATH, name, arguments)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    return str(refused.value)


def test_no_model_of_timm_takes_from_a_file_what_loads() -> None:
    """Arguments of the functions that load weights are taken for no model, nor any that is called like them."""
    loading = {
        entry.name
        for function in (timm.create_model, build_model_with_cfg)
        for entry in inspect.signature(function).parameters.values()
    } - {"scriptable", "exportable", "no_jit"}
    assert {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"} <= loading
    suspicious = re.compile(r"file|url|(?<!drop_)path|(?<!bi)dir|cache|hub|repo|(?<!grad_|.use_)checkpoint(?!ing)|load")
    names = {model_entrypoint(name).__module__: name for name in timm.list_models()}
    names.update(dict.fromkeys(timm.list_models("*_dcls_gaussian")))  # type: ignore[arg-type]
    for name in {value or key for key, value in names.items()}:
        taken = _constructor_arguments(name)
        assert not taken & loading, name
        assert {"num_classes", "in_chans"} <= taken, name
        assert [entry for entry in taken if suspicious.search(entry) and entry != "use_checkpoint"] == [], name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "drop_path_rate": 0.1, "ls_init_value": None}),
        (
            "convnext_tiny.fb_in22k_ft_in1k",
            {"num_classes": 3, "in_chans": 1, "conv_mlp": True, "act_layer": "gelu"},
        ),
        ("convnext_tiny_dcls_gaussian", {"kernel_sizes": 7, "norm_layer": "layernorm2d", "features_only": True}),
        ("vit_tiny_patch16_224", {"img_size": [32, 64], "patch_size": 8, "global_pool": "avg", "depth": 2}),
        ("efficientnet_b0", {"bn_eps": 1e-3, "drop_rate": 0.2, "num_classes": 7}),
        ("resnet10t", {"output_stride": 8, "global_pool": "", "scriptable": True}),
        ("swin_tiny_patch4_window7_224", {"window_size": 4, "img_size": 64, "strict_img_size": False}),
        ("caformer_s18", {"drop_path_rate": 0.1, "use_mlp_head": False}),
        ("repvgg_a0", {"stem_chs": 16, "num_classes": 0}),
    ],
)
def test_settings_of_a_model_are_taken(name: str, arguments: dict[str, Any]) -> None:
    check_stored("path", PATH, name, arguments)
    with torch.device("meta"):
        timm.create_model(name, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "weights.pth"},
        {"checkpoint_path": None},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "weights"}},
        {"pretrained_cfg": "fb_in1k"},
        {"pretrained_cfg_overlay": {"url": "https://example.org/x"}},
        {"cache_dir": "x"},
        {"cfg_file": "x"},
        {"device": "meta"},
        {3: 4},
    ],
)
def test_other_arguments_are_not(arguments: dict[Any, Any]) -> None:
    (name,) = arguments
    message = refusal("convnext_tiny_dcls_gaussian", arguments)
    assert message.startswith(f"path: convnext_tiny_dcls_gaussian does not take {name}=")
    assert "from 'net.safetensors'; a file may give numbers, flags and words" in message


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "weights.pth", "hf-hub:me", "a b", "..", "é", "x" * 81, {"file": "a/b"}, {"a/b": 1}, {3: 1},
     [["https://x"]], [[[[[[[[[1]]]]]]]]], 2**25, -(2**25), b"x", Path("x"), nn.GELU, 1j],
)  # fmt: skip
def test_values_that_could_name_something_are_not(value: Any) -> None:
    message = refusal("convnext_tiny", {"dims": value})
    assert message.startswith("path: expected numbers, flags and words for dims of convnext_tiny in 'net.safetensors'")


@pytest.mark.parametrize(
    "name",
    ["hf-hub:timm/convnext_tiny", "local-dir:/x", "../convnext_tiny", "convnext_tiny.hf-hub:x", "convnext_tiny./x",
     "convnext_tinny", "convnext_tiny\n", "", None, 3, ["convnext_tiny"]],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_not(name: Any) -> None:
    assert refusal(name, {}).startswith(
        f"path: expected a model that timm {timm.__version__} knows in 'net.safetensors'"
    )
    assert "expected arguments of convnext_tiny" in refusal("convnext_tiny", ["a"])


def test_what_is_larger_than_its_file_is_refused_before_it_is_made() -> None:
    words = r"^path: 'net.safetensors' describes a model that is far larger than the weights in it$"
    with pytest.raises(ValueError, match=words), making("path", PATH, 10):
        nn.Linear(2**14, 2**7)
    with making("path", PATH, 2**15):
        nn.Linear(2**14, 2**7)
    nn.Linear(2**14, 2**7)  # nothing is counted afterwards


@pytest.mark.parametrize(
    "error", [RuntimeError("one\ntwo"), AssertionError(), KeyError("x"), RecursionError("deep"), MemoryError()]
)
def test_whatever_is_raised_becomes_a_sentence(error: Exception) -> None:
    words = r"^path: no model can be made with the arguments in 'net.safetensors' \([^\n]+\)$"
    with pytest.raises(ValueError, match=words), making("path", PATH, 10):
        raise error


def test_what_is_said_already_is_said_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^mine$"), making("path", PATH, 10):
        raise ValueError("mine\nand torch's")
