"""What `inspect_model` tells against what `convert` does and what can be counted by hand."""

import io
from copy import deepcopy

import pytest
import timm
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import torchdcls.models  # noqa: F401  registers models
from torchdcls import Dcls2d, DclsTranspose2d, Profile, convert
from torchdcls.inspection import ModelInfo, inspect_model
from torchdcls.inspection.tables import print_info


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.Conv2d(8, 8, 7, padding=3, groups=8),
        nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
    )


def test_counts_by_hand() -> None:
    info = inspect_model(small(), torch.randn(2, 3, 32, 32), dilated_kernel_size=(9, 17), interpolation=["bilinear"])
    assert info.parameters == (3 * 16 + 1) * 8 + 8 * 50 + 8 * 49 + 8 * 10
    # Two for a product; the maps are 8x8, the last 4x4.
    assert info.operations == 2 * 2 * 8 * (48 * 64 + 2 * 49 * 64 + 9 * 16)
    assert [conversion.operations for conversion in info.conversions] == [
        2 * 2 * 8 * (48 * 64 + 2 * size**2 * 64 + 9 * 16) for size in (9, 17)
    ]
    assert info.receptive_field.size == (4 + 2 * 6 * 4 + 2 * 4,) * 2
    assert info.conversions[1].receptive_field.size == (4 + 2 * 16 * 4 + 2 * 4,) * 2
    assert [(layer.name, layer.stage, layer.map_size) for layer in info.layers] == [
        ("1", "(root)", (8, 8)),
        ("2", "(root)", (8, 8)),
    ]
    assert [skip.name for skip in info.skipped] == ["0", "3"]
    # 2 * 49 taps; an element has a weight in each layer and a shared position of two numbers: 98 // 4.
    assert [conversion.iso_kernel_count for conversion in info.conversions] == [24, 24]


@pytest.mark.parametrize("kernel_count", ["iso", 5])
def test_parameters_are_those_of_converting(kernel_count: int | str) -> None:
    model = timm.create_model("convnext_atto")
    weights = deepcopy(model.state_dict())
    info = inspect_model(
        model, torch.randn(1, 3, 64, 64), dilated_kernel_size=[13, 23], kernel_count=kernel_count, name="atto"
    )
    assert info.name == "atto"
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.training
    sizes = [(size, name) for size in (13, 23) for name in ("bilinear", "triangle", "gaussian")]
    assert [(row.dilated_kernel_size, row.interpolation) for row in info.conversions] == sizes
    for row in info.conversions:
        options = {"dilated_kernel_size": row.dilated_kernel_size, "interpolation": row.interpolation}
        report = convert(deepcopy(model), kernel_count=kernel_count, **options)
        assert (row.kernel_count, row.parameters) == (report.kernel_count, report.parameters_after)
        assert row.replaced == len(report.replaced)
        assert row.iso_kernel_count == convert(deepcopy(model), kernel_count="iso", **options).kernel_count


def test_dcls_layers_are_described_as_they_are() -> None:
    with torch.device("meta"):
        model = timm.create_model("convnext_tiny_dcls_gaussian")
        plain = timm.create_model("convnext_tiny")
    images = torch.randn(1, 3, 224, 224)
    info = inspect_model(model, images, dilated_kernel_size=17)
    assert info.parameters == 28_586_536
    assert len(info.layers) == 18
    assert {(layer.kernel_count, layer.kernel_size, layer.interpolation) for layer in info.layers} == {
        (26, (23, 23), "gaussian")
    }
    assert sorted({layer.stage for layer in info.layers}) == [f"stages.{stage}" for stage in range(4)]
    assert {conversion.reason for conversion in info.conversions} == {"nothing can be replaced"}
    same = inspect_model(plain, images, dilated_kernel_size=23, interpolation=["gaussian"]).conversions[0]
    assert (same.parameters, same.operations) == (info.parameters, info.operations)
    assert same.receptive_field == info.receptive_field
    # A Gaussian layer that reads spectra or matrices counts as the plain convolution.
    assert info.receptive_field.size == (6104, 6104)


def test_transposed_layers_and_profiles_of_the_users_own() -> None:
    cosine = Profile(torch.cos, 0.7, None, "cosine")
    model = nn.Sequential(
        Dcls2d(3, 4, 2, padding="same", dilated_kernel_size=(3, 9), learned_dims=(1,), interpolation=cosine),
        DclsTranspose2d(4, 3, 2, stride=2, dilated_kernel_size=4, padding=1),
    )
    first, second = inspect_model(model, torch.randn(1, 3, 16, 16)).layers
    assert (first.kernel_size, first.interpolation) == (
        (3, 9),
        "cosine (own profile, smallest scale 0.7, not learned)",
    )
    assert (second.kernel_size, second.map_size, second.channels) == ((4, 4), (32, 32), 3)


def test_no_room_for_an_element() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 2, padding="same", groups=4))
    row, given = (
        inspect_model(model, torch.randn(1, 4, 8, 8), dilated_kernel_size=5, interpolation=["gaussian"], kernel_count=n)
        for n in ("iso", 2)
    )
    assert row.conversions[0].iso_kernel_count is None
    assert "even one element" in row.conversions[0].reason
    assert (given.conversions[0].parameters, given.conversions[0].reason) == (4 * 2 * 5 + 4, None)


def test_models_without_a_layer_to_replace() -> None:
    info = inspect_model(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.randn(1, 3, 4, 4), dilated_kernel_size=5)
    assert info.layers == info.skipped == ()
    assert info.conversions[0].reason == "it has no convolutions"
    assert info.operations == 2 * 48 * 2


class AsksForValues(nn.Module):
    """Cannot be run without its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 5, padding=2, groups=3)

    def forward(self, images: Tensor, scale: Tensor) -> Tensor:
        return self.conv(images) if float(scale) > 0 else images


def test_a_model_that_asks_for_values_runs_where_it_is() -> None:
    example = torch.randn(1, 3, 9, 9), torch.ones(())
    info = inspect_model(AsksForValues(), example, dilated_kernel_size=7)
    assert info.receptive_field.size == (5, 5)
    assert info.conversions[0].receptive_field.size == (7, 7)


def test_an_example_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^example: expected an input that Sequential can be run on, got \(1, 5, 32"):
        inspect_model(small(), torch.randn(1, 5, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilated_kernel_size": 0}, "dilated_kernel_size: expected at least 1"),
        ({"interpolation": ["gauss"]}, "interpolation: expected"),
        ({"kernel_count": "most"}, "kernel_count: expected an integer or 'iso', got 'most'"),
        ({"kernel_count": 0}, "kernel_count: expected at least 1"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        inspect_model(small(), torch.randn(1, 3, 32, 32), **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("example", [torch.randn(1, 3, 32, 32)]),
        ("example", (1,)),
        ("dilated_kernel_size", "7"),
        ("interpolation", [7]),
        ("kernel_count", 1j),
        ("model", "convnext"),
    ],
)
def test_wrong_types(name: str, value: object) -> None:
    arguments = {"model": small(), "example": torch.randn(1, 3, 32, 32), name: value}
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        inspect_model(**arguments)


def test_one_interpolation() -> None:
    info = inspect_model(small(), torch.randn(1, 3, 32, 32), dilated_kernel_size=9, interpolation="triangle")
    assert [row.interpolation for row in info.conversions] == ["triangle"]


def printed(info: ModelInfo, width: int) -> str:
    text = io.StringIO()
    print_info(info, Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize("name", ["convnext_tiny", "fastvit_sa24", "convnext_tiny_dcls_triangle"])
@pytest.mark.parametrize("kernel_count", ["iso", 12])
def test_tables_fit_the_terminal(name: str, kernel_count: int | str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    info = inspect_model(model, torch.empty(1, 3, 256, 256), dilated_kernel_size=(13, 23), kernel_count=kernel_count)
    for width in (80, 120):
        text = printed(info, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert "28,586,536" in text or name != "convnext_tiny_dcls_triangle"


def test_tables_of_nothing_to_replace() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    text = printed(inspect_model(model, torch.randn(1, 3, 8, 8), dilated_kernel_size=9), 120)
    assert "No conversion: nothing can be replaced; where= of torchdcls.convert picks others." in text
    assert "not depthwise" in text


def test_computed_positions() -> None:
    """A layer whose positions a parametrization computes is told of like others."""
    model = nn.Sequential(*[Dcls2d(4, 4, 3, dilated_kernel_size=7, padding=3, groups=4) for _ in range(2)])
    plain = inspect_model(model, torch.randn(1, 4, 9, 9))
    parametrizations.weight_norm(model[1], "position")
    assert inspect_model(model, torch.randn(1, 4, 9, 9)).layers == plain.layers
