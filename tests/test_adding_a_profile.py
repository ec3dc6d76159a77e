"""One record among the profiles is an interpolation: nothing else of the package changes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases import SPREADS, answers, assert_equal_to_rounding, cauchy, make_elements, normal, oracle_convolution
from torch import nn

from torchdcls import Dcls1d, Dcls2d, DclsTranspose2d, Profile, convert
from torchdcls.inspection import inspect_model
from torchdcls.ops.triton import support
from torchdcls.optim import dcls_layers
from torchdcls.profiles import PROFILES
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.models import compared_model

SOURCE = Path(__file__).parent.parent / "src"
TOY = Profile(cauchy, 0.3, 0.2, "toy")


@pytest.fixture
def toy(monkeypatch):
    """The name of a profile that is one of the package's while a test runs."""
    monkeypatch.setitem(PROFILES, "toy", TOY)
    monkeypatch.setitem(SPREADS, "toy", replace(SPREADS["own"], interpolation="toy"))
    return "toy"


@pytest.mark.parametrize(("size", "learned"), [((5,), None), ((4, 3), None), ((2, 3, 4), (1, 2))], ids=str)
def test_kernels_and_gradients_are_the_oracles(toy, size, learned):
    elements = make_elements(toy, size, learned)
    expected = answers(elements.oracle, elements.leaves())
    assert_equal_to_rounding(answers(elements.kernel, elements.leaves()), expected)


@pytest.mark.parametrize("name", [*PROFILES, "toy"])
@pytest.mark.parametrize("layer", [Dcls1d, Dcls2d])
def test_layers_are_the_oracles(toy, layer, name):
    made = layer(4, 4, 3, padding=2, dilated_kernel_size=5, groups=2, interpolation=name, dtype=torch.float64)
    elements = replace(
        make_elements(name, (5,) * made.dims), weight=made.weight, position=made.position, sigma=made.sigma
    )
    leaves = {"input": normal(2, 4, *(7,) * made.dims), **dict(made.named_parameters())}

    def oracle():
        return oracle_convolution(leaves["input"], elements.oracle(), made.bias, padding=2, groups=2)

    assert_equal_to_rounding(answers(lambda: made(leaves["input"]), leaves), answers(oracle, leaves))
    assert f"interpolation={name}" in repr(made)


def test_transposed_layers_take_it(toy):
    layer = DclsTranspose2d(4, 4, 3, dilated_kernel_size=5, groups=4, interpolation=toy)
    assert layer.interpolation is TOY
    layer(torch.randn(1, 4, 6, 6)).square().sum().backward()
    assert layer.sigma.grad.abs().sum() > 0


def test_conversions_take_it(toy):
    model = nn.Sequential(nn.Conv2d(8, 8, 7, padding=3, groups=8))
    info = inspect_model(model, torch.randn(1, 8, 9, 9), dilated_kernel_size=9, interpolation=[toy])
    report = convert(model, dilated_kernel_size=9, kernel_count="iso", interpolation=toy)
    assert model[0].interpolation is TOY and len(report.replaced) == 1
    assert [(found.interpolation, found.iso_kernel_count) for found in info.conversions] == [
        ("toy", model[0].kernel_count)
    ]


def test_comparisons_take_one_without_sigma(monkeypatch):
    monkeypatch.setitem(PROFILES, "toy", replace(TOY, start=None))
    shape = SimpleNamespace(channels=1, num_classes=2, image_size=28)
    for layers, sigmas in (("toy", set()), ("gaussian", {0.4})):
        model, _ = compared_model(CompareConfig(sigma_init=0.4), layers, shape, seed=0)
        found = [layer.sigma for layer in dcls_layers(model) if layer.sigma is not None]
        assert {round(number, 6) for sigma in found for number in sigma.unique().tolist()} == sigmas


def test_on_gpus_it_is_made_by_torchs_operators(toy, monkeypatch):
    monkeypatch.setattr(support, "missing", lambda device: None)
    weight = SimpleNamespace(shape=(8, 1, 5), dtype=torch.float32, device=torch.device("cuda"))
    assert not support.can_construct(weight, (5, 5), PROFILES[toy])
    assert support.can_construct(weight, (5, 5), replace(PROFILES[toy], device_form="triangle"))


def test_a_record_in_the_file_is_in_every_list(tmp_path):
    """The package with one record and its name more in `profiles.py`, all other files as they are."""
    package = tmp_path / "torchdcls"
    package.mkdir()
    for path in (SOURCE / "torchdcls").iterdir():
        (package / path.name).symlink_to(path)
    text = (package / "profiles.py").read_text()
    for before, after in (
        ('Literal["bilinear", ', 'Literal["bilinear", "toy", '),
        ("\n_BUILT_IN = (\n", "\n_BUILT_IN = (\n    Profile(lambda u: 1 / (1 + u * u), 0.3, 0.2, 'toy'),\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (package / "profiles.py").unlink()
    (package / "profiles.py").write_text(text)
    program = """
import inspect, timm, torch, torchdcls, torchdcls.models
from torchdcls.cli import main
from torchdcls.inspection import inspect_model
assert "toy" in inspect.signature(inspect_model).parameters["interpolation"].default
assert timm.is_model("convnext_tiny_dcls_toy")
from studies.config import LAYERS, LEARNED
assert "toy" in LEARNED and "toy" in LAYERS
for command in (["info"], ["compare", "images"]):
    try:
        main([*command, "--help"])
    except SystemExit:
        pass
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, SOURCE, SOURCE.parent)))}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("toy") >= 4  # the choices and the defaults of both commands
