"""Models saved in folders and pushed to a Hub that is not there: nothing here needs a network."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, new_class
from typing import Any, Optional

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torchdcls import Dcls1d, Dcls2d, DclsTranspose2d, Profile, convert
from torchdcls.deployment.hub import DclsHubMixin, Result, TimmModel, repository, timm_model
from torchdcls.profiles import PROFILES


class Net(nn.Module, DclsHubMixin, license="apache-2.0"):
    """Two layers that share positions, and one that is plain."""

    def __init__(self, width: int = 4, interpolation: str | Profile = "gaussian", scale: Tensor | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.layers = nn.ModuleList(
            Dcls2d(width, width, 3, padding="same", dilated_kernel_size=9, groups=width, interpolation=interpolation)
            for _ in range(2)
        )
        self.layers[1].position, self.layers[1].sigma = self.layers[0].position, self.layers[0].sigma
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for layer in self.layers:
            features = features + layer(features)
        return features if self.scale is None else self.scale * features


class Other(nn.Module, DclsHubMixin):
    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(depth)))


def shaken(model: nn.Module) -> nn.Module:
    """In evaluation, with no parameter or buffer where it starts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def saved(tmp_path: Path, model: Any = None, **arguments: Any) -> Path:
    model = shaken(Net()) if model is None else model
    model.save_pretrained(tmp_path / "net", **arguments)
    return tmp_path / "net"


@pytest.mark.parametrize("arguments", [{}, {"width": 6}, {"interpolation": "bilinear"}])
def test_a_class_of_the_users_own_comes_back(tmp_path: Path, arguments: dict[str, Any]) -> None:
    net, images = shaken(Net(**arguments)), torch.randn(2, 3, 16, 16)
    folder = saved(tmp_path, net)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    back = Net.from_pretrained(folder)
    assert torch.equal(back(images), net(images))
    assert not back.training
    assert back.layers[1].position is back.layers[0].position
    assert back.layers[1].sigma is back.layers[0].sigma
    assert back._hub_mixin_config == net._hub_mixin_config


def test_it_can_be_saved_again(tmp_path: Path) -> None:
    first = saved(tmp_path, shaken(Net(5)))
    Net.from_pretrained(first).save_pretrained(tmp_path / "again")
    for name in ("config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes()
    again, weights = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", first))
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_profile_of_the_package_is_stored_by_its_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, Net(interpolation=PROFILES["triangle"]))
    assert json.loads((folder / "config.json").read_text())["interpolation"] == "triangle"
    assert Net.from_pretrained(folder).layers[0].interpolation is PROFILES["triangle"]


def test_what_json_cannot_hold_is_asked_for(tmp_path: Path) -> None:
    scale = torch.tensor(2.0)
    net, images = shaken(Net(scale=scale)), torch.randn(1, 3, 12, 12)
    folder = saved(tmp_path, net)
    with pytest.raises(ValueError, match=r"^scale: expected to be given to from_pretrained, as JSON could not"):
        Net.from_pretrained(folder)
    assert torch.equal(Net.from_pretrained(folder, scale=scale)(images), net(images))
    assert "from_pretrained(" in (folder / "README.md").read_text()
    assert ", scale=...)" in (folder / "README.md").read_text()


def test_a_profile_or_dataclass_that_json_cannot_hold_is_asked_for(tmp_path: Path) -> None:
    profile = Profile(torch.cos, 1.0, None, "cosine")
    folder = saved(tmp_path, Net(interpolation=profile))
    with pytest.raises(ValueError, match=r"^interpolation: expected to be given"):
        Net.from_pretrained(folder)
    assert Net.from_pretrained(folder, interpolation=profile).layers[0].interpolation == profile


@dataclass
class Width:
    value: int


class OfDataclass(nn.Module, DclsHubMixin):
    def __init__(self, width: Width) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width.value, 1)


def test_a_dataclass_of_plain_values_is_stored(tmp_path: Path) -> None:
    folder = saved(tmp_path, OfDataclass(Width(7)))
    assert OfDataclass.from_pretrained(folder).conv.out_channels == 7


@dataclass
class Shape:
    width: int
    scale: float = 1.0


class OfConfig(nn.Module, DclsHubMixin):
    """A constructor as the Hub's own pages have it."""

    def __init__(self, config: Shape, depth: int = 1) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        self.convs = nn.Sequential(*(nn.Conv2d(3, config.width, 1) for _ in range(depth)))


class OfDict(nn.Module, DclsHubMixin):
    def __init__(self, config: dict[str, Any], depth: int = 1) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        self.convs = nn.Sequential(*(nn.Conv2d(3, **config) for _ in range(depth)))


class Perhaps(nn.Module, DclsHubMixin):
    def __init__(self, config: Shape | None = None, depth: int = 1) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        self.conv = nn.Conv2d(3, 1 if config is None else config.width, depth)


class OfNothing(nn.Module, DclsHubMixin):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Dcls2d(3, 4, 2, dilated_kernel_size=5)


@pytest.mark.parametrize(
    "model",
    [
        OfConfig(Shape(3, 0.5)),
        OfConfig(Shape(3), depth=2),
        OfConfig(depth=2, config=Shape(2)),
        OfDict({"out_channels": 2, "kernel_size": 3}),
        OfDict({"out_channels": 2, "kernel_size": 1, "bias": False}, 2),
        Perhaps(),
        Perhaps(depth=3),
        Perhaps(Shape(3), 2),
        OfNothing(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_the_hub_itself_can_store(tmp_path: Path, model: Any) -> None:
    folder = saved(tmp_path, shaken(model))
    back = type(model).from_pretrained(folder)
    assert vars(back).get("config") == vars(model).get("config")
    assert vars(back).get("depth") == vars(model).get("depth")
    weights = back.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    back.save_pretrained(tmp_path / "again")
    assert [path.name for path in sorted((tmp_path / "again").iterdir())] == sorted(
        path.name for path in folder.iterdir()
    )
    if (folder / "config.json").exists():
        assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_config_may_be_given_in_place_of_the_stored_one(tmp_path: Path) -> None:
    folder = saved(tmp_path, OfConfig(Shape(3), 2))
    assert OfConfig.from_pretrained(folder, config=Shape(3, 7.0)).config == Shape(3, 7.0)
    (folder / "config.json").write_text('{"width": 3, "depth": 2, "colour": 1}')
    with pytest.raises(ValueError, match=r"config.json has 'colour', which OfConfig does not take$"):
        OfConfig.from_pretrained(folder)


def test_a_repository_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, OfNothing())
    (folder / "config.json").unlink()  # the Hub's own class writes none
    monkeypatch.setattr(repository, "_unreachable", lambda *asked: None)

    def download(repo_id: str, filename: str, **arguments: Any) -> str:
        if not (folder / filename).exists():
            raise EntryNotFoundError("404")
        return str(folder / filename)

    monkeypatch.setattr(repository, "hf_hub_download", download)
    assert isinstance(OfNothing.from_pretrained("me/net"), OfNothing)
    with pytest.raises(ValueError, match=r"a repository on the Hub with config.json, got 'me/net': 404$"):
        Net.from_pretrained("me/net")


class Anything(nn.Module, DclsHubMixin):
    def __init__(self, *sizes: int, **more: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, more.get("width", 2), 1)


class Inherited(nn.Sequential, DclsHubMixin):
    pass


@pytest.mark.parametrize("make", [OfNothing, Anything, Inherited, lambda: Anything(width=3)])
def test_a_constructor_without_arguments(
    tmp_path: Path, make: Callable[[], Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = shaken(make())
    folder = saved(tmp_path, model)
    configured = json.loads((folder / "config.json").read_text())
    assert configured == ({"width": 3} if model._hub_mixin_config else {})
    for there in (True, False):
        if there or not configured:
            if not there:
                (folder / "config.json").unlink()
            back = type(model).from_pretrained(folder)
            weights = back.state_dict()
            assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


class Required(nn.Module, DclsHubMixin):
    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.clone())


def test_all_that_it_was_made_with_is_given_again(tmp_path: Path) -> None:
    folder = saved(tmp_path, Required(torch.tensor(2.0)))
    with pytest.raises(ValueError, match=r"^scale: expected to be given to from_pretrained"):
        Required.from_pretrained(folder)
    assert Required.from_pretrained(folder, scale=torch.tensor(1.0)).scale == 2


class Twice(nn.Module, DclsHubMixin):
    def __init__(self, width: int, config: Shape | dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__()
        self.config, self.more = config, more
        self.conv = nn.Conv2d(3, width, 1)


class TwiceByDefault(nn.Module, DclsHubMixin):
    def __init__(self, width: int, config: Shape = Shape(3)) -> None:  # noqa: B008
        super().__init__()
        self.config, self.more = config, {}
        self.conv = nn.Conv2d(3, width, 1)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (Twice(4), None),
        (Twice(4, Shape(3)), {"width": 3, "scale": 1.0}),
        (Twice(config={"width": 3}, width=4), {"width": 3}),
        (Twice(4, {"depth": 3}, depth=2), {"depth": 3}),
        (Twice(4, {"config": 3}), {"config": 3}),
        (Twice(4, {}, depth=2), {}),
        (TwiceByDefault(4), Shape(3)),
        (TwiceByDefault(4, Shape(5)), Shape(5)),
    ],
)
def test_an_entry_of_config_and_an_argument_of_one_name(tmp_path: Path, model: Any, config: Any) -> None:
    back = type(model).from_pretrained(saved(tmp_path, model))
    assert back.conv.out_channels == 4
    assert back.config == config
    assert back.more == model.more


def test_a_dataclass_among_other_keywords_comes_back_plain(tmp_path: Path) -> None:
    back = Twice.from_pretrained(saved(tmp_path, Twice(4, extra=Shape(3))))
    assert back.more == {"extra": {"width": 3, "scale": 1.0}}


class Worded(nn.Module, DclsHubMixin):
    def __init__(self, config: str = "small") -> None:
        super().__init__()
        self.config = config


def test_a_config_that_is_a_word(tmp_path: Path) -> None:
    assert Worded.from_pretrained(saved(tmp_path, Worded("large"))).config == "large"


class Known(nn.Module):
    """Remembers what it was made with; has constructors below that the Hub's own mixin can store and load."""

    def __init__(self, *known: Any) -> None:
        super().__init__()
        self.known, self.weight = known, nn.Parameter(torch.randn(3))


class ByDefault(Known):
    def __init__(self, width: int = 2, scale: float | None = None, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(width, scale, act)


class ByConfig(Known):
    def __init__(self, config: Shape) -> None:
        super().__init__(config)


class ByDict(Known):
    def __init__(self, config: dict[str, Any], depth: int = 1) -> None:
        super().__init__(config["width"], depth)


class ByDataclass(Known):
    def __init__(self, *, shape: Shape, other: Shape | None = None) -> None:
        super().__init__(shape, other)


class ByKeywords(Known):
    def __init__(self, width: int, **more: Any) -> None:
        super().__init__(width, more)


class ByNothing(Known):
    def __init__(self) -> None:
        super().__init__()


class ByCoder(Known):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)


CODERS = {torch.dtype: (lambda dtype: str(dtype).removeprefix("torch."), lambda name: getattr(torch, name))}


@pytest.mark.parametrize("writer", [DclsHubMixin, PyTorchModelHubMixin])
@pytest.mark.parametrize("reader", [DclsHubMixin, PyTorchModelHubMixin])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ByDefault, {}),
        (ByDefault, {"width": 3, "scale": 0.5}),
        (ByConfig, {"config": Shape(3, 0.5)}),
        (ByDict, {"config": {"width": 3}, "depth": 2}),
        (ByDataclass, {"shape": Shape(3, 0.5)}),
        (ByDataclass, {"shape": Shape(3, 0.5), "other": Shape(2)}),
        (ByKeywords, {"width": 3, "depth": 2}),
        (ByNothing, {}),
        (ByCoder, {"dtype": torch.float16}),
    ],
)
def test_the_hubs_own_mixin_and_this_one_read_each_others_folders(
    tmp_path: Path, kind: type[Any], arguments: dict[str, Any], writer: type, reader: type
) -> None:
    stores, loads = (
        new_class(kind.__name__, (kind, mixin), {"coders": CODERS}, lambda body: None) for mixin in (writer, reader)
    )
    model = stores(**arguments)
    back = loads.from_pretrained(saved(tmp_path, model))
    assert back.known == model.known
    assert torch.equal(back.weight, model.weight)


@dataclass(eq=False)
class Fields(nn.Module, DclsHubMixin):
    width: int
    depth: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.width, 1)


def test_a_model_that_is_a_dataclass_itself(tmp_path: Path) -> None:
    back = Fields.from_pretrained(saved(tmp_path, Fields(4, depth=2)))
    assert (back.width, back.depth) == (4, 2)


@dataclass
class Layout:
    profile: Profile
    interpolation: str | Profile = "bilinear"


class Profiled(nn.Module, DclsHubMixin):
    def __init__(self, profile: Profile, layout: Layout | None = None, default: Profile = PROFILES["gaussian"]) -> None:
        super().__init__()
        self.profile, self.layout, self.default = profile, layout, default


def test_profiles_come_back_wherever_they_stand(tmp_path: Path) -> None:
    triangle, bilinear = PROFILES["triangle"], PROFILES["bilinear"]
    folder = saved(tmp_path, Profiled(triangle, Layout(bilinear, triangle), bilinear))
    back = Profiled.from_pretrained(folder)
    assert (back.profile, back.default) == (triangle, bilinear)
    assert back.layout == Layout(bilinear, "triangle")
    _with_config(folder, {"profile": "triangel", "layout": None})
    with pytest.raises(ValueError, match=r"^pretrained_model_name_or_path: profile cannot be made from config.json in"):
        Profiled.from_pretrained(folder)


class ByPlace(nn.Module, DclsHubMixin):
    def __init__(self, width: int, /, depth: int = 1) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: Anything(3, 5), "sizes"), (lambda: Inherited(nn.ReLU()), "args"), (lambda: ByPlace(3), "width")],
)
def test_arguments_without_names_are_refused(tmp_path: Path, make: Callable[[], Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected arguments that \w+ takes by name, as config.json"):
        saved(tmp_path, make())
    assert not (tmp_path / "net").exists()


def test_a_copy_is_saved_as_the_model_is(tmp_path: Path) -> None:
    model = shaken(Net(5))
    assert Net.from_pretrained(saved(tmp_path, deepcopy(model))).stem.out_channels == 5


@dataclass
class Outer:
    inner: "Shape"
    other: "Shape | None" = None
    name: str = "outer"


class Quoted(nn.Module, DclsHubMixin):
    def __init__(self, config: "Shape | None" = None, outer: Optional["Outer"] = None, unknown: "Nowhere" = 1) -> None:  # type: ignore[name-defined] # noqa: F821
        super().__init__()
        self.config, self.outer = config, outer
        self.conv = nn.Conv2d(3, 1 if config is None else config.width, 1 if outer is None else outer.inner.width)


class Nested(nn.Module, DclsHubMixin):
    def __init__(self, config: Outer) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(3, config.inner.width, 1)


@pytest.mark.parametrize(
    "model",
    [
        Quoted(),
        Quoted(Shape(3)),
        Quoted(outer=Outer(Shape(3))),
        Quoted(Shape(2), Outer(Shape(3), Shape(1))),
        Nested(Outer(Shape(4))),
        Nested(Outer(Shape(4), Shape(5, 2.0), "x")),
    ],
)
def test_annotations_that_are_strings_and_nested_dataclasses(tmp_path: Path, model: Any) -> None:
    back = type(model).from_pretrained(saved(tmp_path, model))
    assert back.config == model.config
    assert vars(back).get("outer") == vars(model).get("outer")
    assert torch.equal(back.conv.weight, model.conv.weight)


@dataclass
class Listed:
    shapes: list[Shape]


class Several(nn.Module, DclsHubMixin):
    def __init__(self, first: "Nowhere" = None, second: Listed | None = None, third: Any = None) -> None:  # type: ignore[name-defined] # noqa: F821
        super().__init__()
        self.first, self.second, self.third = first, second, third


@pytest.mark.parametrize(
    ("arguments", "where", "annotation"),
    [({"first": Shape(3)}, "first", "'Nowhere'"), ({"second": Listed([Shape(3)])}, "second.shapes[0]", "")],
)
def test_a_dataclass_that_would_not_come_back(
    tmp_path: Path, arguments: dict[str, Any], where: str, annotation: str
) -> None:
    with pytest.raises(ValueError) as refused:
        saved(tmp_path, Several(**arguments))
    assert str(refused.value).startswith(f"{where}: expected an annotation that says which dataclass")
    assert f"got {annotation}" in str(refused.value)
    assert not (tmp_path / "net").exists()


@dataclass
class Sizes:
    """Takes no list, which JSON makes of its tuple."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        hash(self.sizes)


class OfSizes(nn.Module, DclsHubMixin):
    def __init__(self, path: Sizes) -> None:
        super().__init__()


def test_a_dataclass_that_refuses_what_json_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: expected a dataclass that can be made again from .*unhashable"):
        saved(tmp_path, OfSizes(Sizes((1, 2))))


def test_a_constructor_that_takes_plain_objects_is_given_one(tmp_path: Path) -> None:
    back = Several.from_pretrained(saved(tmp_path, Several(third=Shape(3))))
    assert back.third == {"width": 3, "scale": 1.0}


CONVERSION = {"dilated_kernel_size": 11, "kernel_count": "iso", "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("name", "conversion"),
    [
        ("convnext_atto", CONVERSION),
        ("convnext_atto", {**CONVERSION, "init": "keep"}),
        ("convnext_atto", {**CONVERSION, "share": "none", "position_init": ("uniform", 4.0)}),
        ("convnext_atto", None),
        ("resnet10t", {"dilated_kernel_size": 7, "kernel_count": 3, "where": ["layer[12]*.conv2"]}),
    ],
)
def test_a_model_of_timm_comes_back(tmp_path: Path, name: str, conversion: dict[str, Any] | None) -> None:
    model = shaken(TimmModel(name, conversion=conversion, num_classes=3, model_args={"drop_path_rate": 0.1}))
    images = torch.randn(1, 3, 32, 32)
    back = TimmModel.from_pretrained(saved(tmp_path, model))
    assert torch.equal(back(images), model(images))
    assert back.model.num_classes == 3
    kinds = [type(module) for module in model.modules()]
    assert [type(module) for module in back.modules()] == kinds
    layers = [module for module in back.modules() if isinstance(module, Dcls2d)]
    own = [module for module in model.modules() if isinstance(module, Dcls2d)]
    assert bool(layers) is (conversion is not None)
    assert len({layer.position for layer in layers}) == len({layer.position for layer in own})


def test_fitting_to_old_kernels_is_not_repeated(tmp_path: Path) -> None:
    model = TimmModel("convnext_atto", conversion={**CONVERSION, "init": "keep"}, num_classes=3)
    config = json.loads((saved(tmp_path, model) / "config.json").read_text())
    assert config["conversion"] == {"dilated_kernel_size": 11, "kernel_count": 29, "interpolation": "bilinear"}
    assert "pretrained" not in config


def test_a_registered_model_comes_back(tmp_path: Path) -> None:
    model = TimmModel("convnext_tiny_dcls_bilinear", num_classes=3)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(TimmModel.from_pretrained(saved(tmp_path, shaken(model)))(images), model(images))


class Fixed(TimmModel):
    def __init__(self, classes: int = 3, model_args: dict[str, Any] | None = None) -> None:
        super().__init__("convnext_atto", num_classes=classes, model_args=model_args, pretrained=True)


@pytest.mark.parametrize("kind", [TimmModel, Fixed])
@pytest.mark.parametrize("given", [{}, {"model_name": "convnext_atto"}, {"num_classes": 3}])
def test_a_file_names_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[TimmModel], given: dict[str, Any]
) -> None:
    folder = saved(tmp_path, TimmModel("convnext_atto", num_classes=3))
    weights = {"checkpoint_path": str(tmp_path / "weights.pth")}
    if kind is TimmModel:
        _with_config(folder, {"model_name": "convnext_atto", "num_classes": 3, "model_args": weights})
    else:
        _with_config(folder, {"classes": 3, "model_args": weights})
        given = {}
    monkeypatch.setattr(torch, "load", lambda *asked, **more: pytest.fail("opens another file"))
    monkeypatch.setattr(timm_model, "timm_model", lambda *asked, **more: pytest.fail("makes it"))
    with pytest.raises(ValueError, match=r"_path: convnext_atto does not take checkpoint_path=.* from '.*config.json'"):
        kind.from_pretrained(folder, **given)


def test_arguments_of_the_caller_may_be_more_than_words(tmp_path: Path) -> None:
    folder = saved(tmp_path, TimmModel("convnext_atto", num_classes=3))
    assert TimmModel.from_pretrained(folder, model_args={"norm_layer": "layernorm2d"}).model.num_classes == 3
    back = TimmModel.from_pretrained(folder, model_args={"act_layer": nn.ReLU})
    assert any(isinstance(module, nn.ReLU) for module in back.modules())


def test_arguments_of_the_model_that_json_cannot_hold_are_asked_for(tmp_path: Path) -> None:
    model_args = {"act_layer": nn.ReLU}
    model = shaken(TimmModel("convnext_atto", num_classes=3, model_args=model_args))
    folder, images = saved(tmp_path, model), torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"^model_args: expected to be given to from_pretrained"):
        TimmModel.from_pretrained(folder)
    assert torch.equal(TimmModel.from_pretrained(folder, model_args=model_args)(images), model(images))


def test_a_subclass_reads_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _with_config(saved(tmp_path, TimmModel("convnext_atto", num_classes=2)), {"classes": 2})
    asked = []
    make = timm_model.timm_model
    monkeypatch.setattr(
        timm_model, "timm_model", lambda name, **how: (asked.append(how["pretrained"]), make(name, **how))[1]
    )
    assert Fixed.from_pretrained(folder).model.num_classes == 2
    assert asked == [False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "convnext_atta"}, "model_name: expected a name that timm knows, .* mean 'convnext_atto'"),
        ({"conversion": {"kernel_size": 7}}, "conversion: expected arguments of torchdcls.convert, got 'kernel_size'"),
        ({"conversion": {"where": print}}, "conversion: expected plain values.* got where of type builtin_"),
        ({"model_args": {"depht": 3}}, "model_args: convnext_atto does not take .*depht"),
        ({"conversion": {**CONVERSION, "where": "*.conv9"}}, "model: expected at least one convolution to replace"),
    ],
)
def test_wrong_arguments_of_a_model_of_timm(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        TimmModel(**{"model_name": "convnext_atto", **arguments})


@pytest.mark.parametrize("arguments", [{"model_name": 3}, {"conversion": "iso"}, {"model_args": [1]}])
def test_wrong_types_for_a_model_of_timm(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(arguments))}: expected"):
        TimmModel(**{"model_name": "convnext_atto", **arguments})


@pytest.mark.parametrize("results", [[3], {"CIFAR-10 accuracy": "high"}])
def test_results_of_a_wrong_type(tmp_path: Path, results: Any) -> None:
    with pytest.raises(TypeError, match=r"^results: expected"):
        saved(tmp_path, results=results)


def test_the_card_is_a_valid_one(tmp_path: Path) -> None:
    results = {"ImageNet-1k top-1": 82.5, "ImageNet-1k top-5": 96.1}
    folder = saved(tmp_path, TimmModel("convnext_atto", conversion=CONVERSION), results=results, license="mit")
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "torchdcls"
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "image-classification"
    assert {"torchdcls", "dcls", "timm"} <= set(card.data.tags)
    found = [(r.task_type, r.dataset_type, r.dataset_name, r.metric_type, r.metric_name, r.metric_value)
             for r in card.data.eval_results]  # fmt: skip
    task = ("image-classification", "imagenet-1k", "ImageNet-1k", "accuracy")
    assert found == [(*task, "top-1", 82.5), (*task, "top-5", 96.1)]
    assert "| ImageNet-1k | top-1 | 82.5 |" in card.text
    assert "| model.stages.2 | 6 | Dcls2d | 160 | 11x11 | 29 | bilinear | all |" in card.text
    assert "TimmModel.from_pretrained(" in card.text
    assert "arXiv" in card.text or "arxiv.org/abs/2112.03740" in card.text
    assert "@inproceedings{khalfaouihassani2023dcls" in card.text


def test_results_in_full_and_a_licence_of_the_class(tmp_path: Path) -> None:
    result = Result("ade20k", "mean_iou", 45.1, dataset_name="ADE20K", split="validation", task="image-segmentation")
    card = ModelCard.load(saved(tmp_path, results=[result], description="A small one.") / "README.md")
    (found,) = card.data.eval_results
    assert (found.task_type, found.dataset_split, found.metric_type) == ("image-segmentation", "validation", "mean_iou")
    assert card.data.license == "apache-2.0"
    assert "A small one." in card.text
    assert "| ADE20K (validation) | mean_iou | 45.1 |" in card.text


def test_results_that_name_no_metric(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^results: expected names of data and metric, .* got 'accuracy'$"):
        saved(tmp_path, results={"accuracy": 1.0})


class Unusual(nn.Module, DclsHubMixin):
    def __init__(self) -> None:
        super().__init__()
        cosine = Profile(torch.cos, 0.7, 0.2, "cosine")
        self.delays = Dcls1d(4, 6, 1, dilated_kernel_size=31, interpolation=cosine)
        self.rows = Dcls2d(4, 4, 2, dilated_kernel_size=(3, 9), learned_dims=(1,), interpolation="triangle")
        self.up = DclsTranspose2d(4, 8, 5, stride=2, dilated_kernel_size=(6, 7), interpolation="bilinear")


def test_unusual_layers_are_described_as_they_are() -> None:
    text = Unusual().generate_model_card().text
    own = "cosine (own profile, smallest scale 0.7, sigma starts at 0.2)"
    assert f"| (root) | 1 | Dcls1d | 6 | 31 | 1 | {own} | all | 78 |" in text
    assert "| (root) | 1 | Dcls2d | 4 | 3x9 | 2 | triangle | 1 | 292 |" in text
    assert "| (root) | 1 | DclsTranspose2d | 8 | 6x7 | 5 | bilinear | all | 488 |" in text
    assert "share the positions" not in text
    assert "share the positions" in Net().generate_model_card().text
    computed = Unusual()
    for layer in (computed.delays, computed.rows, computed.up):
        parametrizations.weight_norm(layer, "position")
    assert "share the positions" not in computed.generate_model_card().text


class Described(nn.Module, DclsHubMixin, model_card_template="{{ card_data }}\n{{ name }} by {{ paper_url }}"):
    pass


def test_a_class_may_have_a_card_of_its_own(tmp_path: Path) -> None:
    text = (saved(tmp_path, Described()) / "README.md").read_text()
    assert text.endswith("Described by https://arxiv.org/abs/2112.03740")


def test_a_card_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "README.md").write_text("mine")
    assert (saved(tmp_path) / "README.md").read_text() == "mine"


def test_what_is_pushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def create_repo(self: HfApi, repo_id: str, **arguments: Any) -> Any:
        seen["repo"] = (repo_id, arguments["private"], arguments["exist_ok"])
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self: HfApi, *, folder_path: Path, **arguments: Any) -> str:
        seen["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        seen["commit"] = (arguments["repo_id"], arguments["commit_message"], arguments["revision"])
        return "https://hub/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    net, images = shaken(Net()), torch.randn(1, 3, 12, 12)
    address = net.push_to_hub("me/net", results={"CIFAR-10 accuracy": 90.0}, license="mit", private=True, branch="b")
    assert address == "https://hub/commit/1"
    assert seen["repo"] == ("me/net", True, True)
    assert seen["commit"] == ("me/net", "Model made with torchdcls", "b")
    assert sorted(seen["files"]) == ["README.md", "config.json", "model.safetensors"]
    assert b'Net.from_pretrained("me/net")' in seen["files"]["README.md"]
    assert b"type: cifar-10" in seen["files"]["README.md"]
    for name, content in seen["files"].items():
        (tmp_path / name).write_bytes(content)
    assert torch.equal(Net.from_pretrained(tmp_path)(images), net(images))


def test_what_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, asked = saved(tmp_path), []

    def download(repo_id: str, filename: str, **arguments: Any) -> str:
        asked.append((repo_id, filename, arguments["revision"]))
        return str(folder / filename)

    monkeypatch.setattr(repository, "hf_hub_download", download)
    monkeypatch.setattr(repository, "_unreachable", lambda *asked: None)
    assert isinstance(Net.from_pretrained("me/net", revision="v1"), Net)
    assert asked == [("me/net", "config.json", "v1"), ("me/net", "model.safetensors", "v1")]


def broken(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "no config":
        config.unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "cut in its header":
        weights.write_bytes(weights.read_bytes()[:20])
    elif how == "no JSON":
        config.write_text("{'width': 4")
    elif how == "no object":
        config.write_text("[1]")
    elif how == "another size":
        config.write_text('{"width": 5}')


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "expected a folder with config.json, got "),
        ("no weights", "expected a folder with model.safetensors, got "),
        ("cut short", "'.*model.safetensors' cannot be read (.*); it is cut short"),
        ("cut in its header", "'.*model.safetensors' cannot be read (.*); it is cut short"),
        ("no JSON", "'.*config.json' is no JSON"),
        ("no object", "expected an object in '.*config.json', got"),
        ("another size", "the weights in '.*' do not fit the model that Net makes from config.json .*size mismatch"),
    ],
)
def test_broken_folders_are_told_in_a_sentence(tmp_path: Path, how: str, message: str) -> None:
    folder = saved(tmp_path)
    broken(folder, how)
    with pytest.raises(ValueError, match=f"^pretrained_model_name_or_path: {message}") as error:
        Net.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_folder_of_another_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a model that Net saved, got '.*', whose config.json has 'depth'"):
        Net.from_pretrained(saved(tmp_path, Other()))
    with pytest.raises(ValueError, match=r"the model that Other makes from config.json .*; calls that change layers"):
        Other.from_pretrained(_with_config(saved(tmp_path), {}))


def _with_config(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_layers_changed_after_the_constructor_are_noticed(tmp_path: Path) -> None:
    model = TimmModel("convnext_atto", num_classes=3)
    convert(model, dilated_kernel_size=9, kernel_count=4)
    with pytest.raises(ValueError, match=r"such as torchdcls.convert, belong in __init__$"):
        TimmModel.from_pretrained(saved(tmp_path, model))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a folder, or a repository on the Hub, got '.*', which does not"):
        Net.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("runs/first_nett", "exist (if the Hub's repository is meant, give its revision, such as 'main'); did you mean "
         "'runs/first_net'?"),
        ("runs/deep/nett", "which does not exist; did you mean 'runs/deep/net'?"),
        ("./run", "which does not exist; did you mean 'runs'?"),
        ("rums", "which does not exist; did you mean 'runs'?"),
        ("nowhere/deep/net", "which does not exist; a repository has a name such as 'user/name'"),
        ("runs/weights", "which is a file; give the folder that it is in"),
    ],
)  # fmt: skip
def test_a_local_name_is_not_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/first_net", "runs/deep/net", "other"):
        Path(folder).mkdir(parents=True)
    Path("runs/weights").touch()
    monkeypatch.setattr(repository, "get_hf_file_metadata", lambda *asked, **more: pytest.fail("asks the Hub"))
    with pytest.raises(ValueError) as refused:
        Net.from_pretrained(name)
    assert str(refused.value).startswith("pretrained_model_name_or_path: expected a folder, or a repository on the Hub")
    assert str(refused.value).endswith(hint)


def test_a_revision_says_that_it_is_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me").mkdir()
    folder = saved(tmp_path)
    monkeypatch.setattr(repository, "_unreachable", lambda *asked: None)
    monkeypatch.setattr(repository, "hf_hub_download", lambda repo_id, file, **arguments: str(folder / file))
    assert isinstance(Net.from_pretrained("me/net", revision="main"), Net)


def test_a_network_that_is_not_there_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nobody(address: str, **arguments: Any) -> Any:
        asked.append(arguments["timeout"])
        raise OSError("no route to host\nand more")

    def download(repo_id: str, filename: str, *, local_files_only: bool, **arguments: Any) -> str:
        assert local_files_only
        if not (cached / filename).exists():
            raise LocalEntryNotFoundError("not in the cache")
        return str(cached / filename)

    monkeypatch.setattr(repository, "get_hf_file_metadata", nobody)
    monkeypatch.setattr(repository, "hf_hub_download", download)
    cached = tmp_path / "nowhere"
    with pytest.raises(ValueError, match=r"got 'me/net': the Hub cannot be reached \(no route to host\), and it is "):
        Net.from_pretrained("me/net")
    assert asked == [5.0]
    cached = saved(tmp_path)  # downloaded before
    assert isinstance(Net.from_pretrained("me/net"), Net)


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a folder, or a repository on the Hub with config.json, got 'me/n"):
        Net.from_pretrained("me/net", local_files_only=True, cache_dir=tmp_path)


def test_an_error_without_words_is_told_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*asked: Any, **more: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(repository, "hf_hub_download", refused)
    with pytest.raises(ValueError, match=r"got 'me/net': PermissionError$"):
        Net.from_pretrained("me/net", local_files_only=True)


def test_an_argument_that_is_none_of_the_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^widht: expected an argument of Net; did you mean 'width'"):
        Net.from_pretrained(saved(tmp_path), widht=3)


@pytest.mark.parametrize(
    ("package", "room"), [("huggingface_hub", "deployment.hub"), ("safetensors", "deployment.hub"), ("timm", "models")]
)
def test_without_its_packages_it_says_what_to_install(package: str, room: str) -> None:
    code = f"import sys\nsys.modules[{package!r}] = None\nimport torchdcls.deployment.hub"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    sentence = f"torchdcls.{room} needs the packages of the train extra ({package} is missing): pip install "
    assert f"MissingExtraError: {sentence}" in last
