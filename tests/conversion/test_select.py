"""Which convolutions are converted, what is said about the others, and which layers are one stage."""

from collections import Counter
from functools import partial

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils import prune

from torchdcls import Dcls2d, convert
from torchdcls.conversion.select import stages

from .small import dcls_layers, depthwise, on_meta


def converted(model, **options):
    return convert(model, **{"dilated_kernel_size": 9, "kernel_count": 3, **options})


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.backbone = model


def four_stages(*depths, form="stages.{}"):
    return {form.format(stage): depth for stage, depth in enumerate(depths)}


# The layers of each stage follow from the depths in the models' definitions.
CONVNEXT = partial(timm.create_model, "convnext_tiny")
MODELS = {
    "convnext": (CONVNEXT, four_stages(3, 3, 9, 3)),
    "convnext in Sequential": (
        lambda: nn.Sequential(CONVNEXT(), nn.Softmax(-1)),
        four_stages(3, 3, 9, 3, form="0.stages.{}"),
    ),
    "convnext in an attribute": (lambda: Wrapper(CONVNEXT()), four_stages(3, 3, 9, 3, form="backbone.stages.{}")),
    "torchvision's convnext": (
        torchvision.models.convnext_tiny,
        {"features.1": 3, "features.3": 3, "features.5": 9, "features.7": 3},
    ),
    "convformer": (partial(timm.create_model, "convformer_s18"), four_stages(3, 3, 9, 3)),
    "caformer, convolutions in two stages": (partial(timm.create_model, "caformer_s18"), four_stages(3, 3)),
    "mambaout": (partial(timm.create_model, "mambaout_femto"), four_stages(3, 3, 9, 3)),
    "starnet, two layers a block": (partial(timm.create_model, "starnet_s1"), four_stages(4, 4, 16, 6)),
    "repvit, one more at each downsampling": (partial(timm.create_model, "repvit_m0_9"), four_stages(2, 3, 15, 3)),
    "convmixer, one stage": (partial(timm.create_model, "convmixer_768_32"), {"blocks": 32}),
    "fastvit, kernels of two sizes": (partial(timm.create_model, "fastvit_sa12"), four_stages(4, 4, 12, 3)),
    "rdnet": (partial(timm.create_model, "rdnet_tiny"), four_stages(*[3] * 7, form="dense_stages.{}")),
}


@pytest.mark.parametrize("model", MODELS)
def test_stages_of_models(model):
    """A stage is what the model's author calls one, and layers of one shape in it have one set of positions."""
    make, expected = MODELS[model]
    model = on_meta(make)
    report = converted(model)
    assert Counter(row.stage for row in report.replaced) == expected
    kinds = {(row.stage, row.channels, row.old_kernel_size) for row in report.replaced}
    assert len({id(layer.position) for layer in dcls_layers(model).values()}) == len(kinds)


STAGE_NAMES = {
    "the original ConvNeXt": (
        ["stages.0.0.dwconv", "stages.0.1.dwconv", "stages.1.0.dwconv"],
        ["stages.0"] * 2 + ["stages.1"],
    ),
    "a flat Sequential": (["0", "3", "6"], ["(root)"] * 3),
    "one layer": (["0"], ["(root)"]),
    "attributes of the model": (["conv1", "conv2"], ["(root)"] * 2),
    "a Sequential in an attribute": (["body.0", "body.3"], ["body"] * 2),
    "one block a stage": (["stages.0.0.conv", "stages.1.0.conv"], ["stages"] * 2),
    "a stage of one block among others": (
        ["stages.0.0.conv", "stages.1.0.conv", "stages.1.1.conv"],
        ["stages.0", "stages.1", "stages.1"],
    ),
    "a single layer of its kind joins its stage": (
        ["stages.0.0.conv", "stages.1.0.conv", "stages.1.1.conv", "stages.1.down.conv"],
        ["stages.0", "stages.1", "stages.1", "stages.1"],
    ),
    "layers of a kind that one stage has alone": (
        [
            "stages.0.0.c",
            "stages.0.1.c",
            "stages.1.0.c",
            "stages.1.1.c",
            "stages.1.1.b.0",
            "stages.1.1.b.1",
            "stages.1.2.b.0",
        ],
        ["stages.0"] * 2 + ["stages.1"] * 5,
    ),
    "two networks": (
        ["left.0.0.c", "left.1.1.c", "right.0.0.c", "right.1.1.c"],
        ["left.0", "left.1", "right.0", "right.1"],
    ),
    "named blocks": (["down.conv", "up.conv"], ["down", "up"]),
    "more than nine": ([f"stages.{s}.{b}.c" for s in (9, 10) for b in (0, 1)], ["stages.9"] * 2 + ["stages.10"] * 2),
    "none": ([], []),
}


@pytest.mark.parametrize("case", STAGE_NAMES)
def test_stages_of_names(case):
    """The first number that varies counts stages if a later one varies too, and blocks of one stage otherwise."""
    names, expected = STAGE_NAMES[case]
    assert stages(names) == dict(zip(names, expected, strict=True))


@given(
    case=st.sampled_from([case for case in STAGE_NAMES if case != "none"]),
    wrapper=st.lists(st.sampled_from(["0", "7", "module", "backbone"]), min_size=1, max_size=3).map(".".join),
)
def test_a_wrapper_moves_stages_along(case, wrapper):
    """Stages do not depend on what a model is wrapped in: their names get the same prefix as the layers' names."""
    names, expected = STAGE_NAMES[case]
    prefixed = [wrapper if stage == "(root)" else f"{wrapper}.{stage}" for stage in expected]
    assert stages(f"{wrapper}.{name}" for name in names) == {
        f"{wrapper}.{name}": stage for name, stage in zip(names, prefixed, strict=True)
    }


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [2, 3, 5])
def test_default_picks_depthwise(dims, kernel_size):
    """Depthwise, as many channels out as in, stride 1, more than one tap: replaced, in 1-D, 2-D and 3-D."""
    model = nn.Sequential(depthwise(kernel_size=kernel_size, dims=dims, padding="same"))
    assert converted(model).replaced[0].old_kernel_size == (kernel_size,) * dims
    assert type(model[0]).__name__ == f"Dcls{dims}d"


def test_default_picks_one_by_many():
    """A kernel of one cell along one axis only has more than one tap."""
    model = nn.Sequential(nn.Conv2d(4, 4, (1, 11), padding=(0, 5), groups=4))
    converted(model)
    assert isinstance(model[0], Dcls2d)


COMPUTED = "its weight or bias is computed by a parametrization, which has to be removed first"
SKIPPED = {
    "dense": (lambda: nn.Conv2d(4, 8, 3), "not depthwise (4 to 8 channels in 1 group)"),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, groups=4), "not depthwise (8 to 8 channels in 4 groups)"),
    "multiplier": (lambda: nn.Conv2d(4, 8, 3, groups=4), "not depthwise (4 to 8 channels in 4 groups)"),
    "stride": (lambda: depthwise(stride=2), "stride (2, 2)"),
    "stride along one axis": (lambda: depthwise(stride=(1, 2)), "stride (1, 2)"),
    "one tap": (lambda: depthwise(kernel_size=1), "its kernel has one tap"),
    "subclass": (lambda: Conv2dSame(4, 4, 3, groups=4), "Conv2dSame is a subclass with a behavior of its own"),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 4, 3, groups=4),
        "ConvTranspose2d is not converted: make a torchdcls.DclsTranspose2d instead",
    ),
    "lazy": (lambda: nn.LazyConv2d(4, 3), "LazyConv2d has no sizes yet: run the model once first"),
    "dilated": (
        lambda: depthwise(kernel_size=3, dilation=2),
        "it has dilation (2, 2), and DCLS layers have none",
    ),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(depthwise()), COMPUTED),
    "parametrized bias": (
        lambda: nn.utils.parametrize.register_parametrization(depthwise(), "bias", nn.Softplus()),
        COMPUTED,
    ),
    "pruned": (lambda: prune.identity(depthwise(), "weight"), COMPUTED),
    "pruned bias": (lambda: prune.identity(depthwise(), "bias"), COMPUTED),
    "spectral norm by a hook": (lambda: nn.utils.spectral_norm(depthwise()), COMPUTED),
    "even kernel, odd size": (
        lambda: depthwise(kernel_size=4, padding=1),
        "no padding keeps its output size with kernel (9, 9) instead of (4, 4), "
        "unless both are odd or both are even and the new one is not smaller",
    ),
    "fewer axes than the size has": (
        lambda: depthwise(dims=1),
        "dilated_kernel_size has another number of axes than its kernel (7,)",
    ),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_skipped_with_a_reason(case):
    """What is not converted stays the same object, and the report says why."""
    make, reason = SKIPPED[case]
    odd_one = make()
    model = nn.Sequential(depthwise(), odd_one)
    report = converted(model, dilated_kernel_size=(9, 9))
    assert [(skip.name, skip.reason) for skip in report.skipped] == [("1", reason)]
    assert model[1] is odd_one
    assert [row.name for row in report.replaced] == ["0"]


@pytest.mark.parametrize(
    "case", ["subclass", "transposed", "lazy", "dilated", "weight norm", "pruned bias", "even kernel, odd size"]
)
def test_where_cannot_pick_the_impossible(case):
    """A predicate chooses among what can be replaced; the rest keeps its reason."""
    make, reason = SKIPPED[case]
    model = nn.Sequential(depthwise(), make())
    report = converted(model, where=lambda name, module: True)
    assert [(skip.name, skip.reason) for skip in report.skipped] == [("1", reason)]


@pytest.mark.parametrize(
    "make, size",
    [
        (lambda: nn.Conv2d(4, 8, 3, padding=1), 9),
        (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2), 9),
        (lambda: depthwise(stride=2), 9),
        (lambda: depthwise(kernel_size=1), 9),
        (lambda: nn.Conv1d(4, 6, 5), 7),
    ],
    ids=["dense", "grouped", "strided", "one tap", "1-D"],
)
def test_where_picks_any_other(make, size):
    """A predicate takes the place of the default choice; channels and groups are kept."""
    old = make()
    model = nn.Sequential(old)
    converted(model, dilated_kernel_size=size, where=lambda name, module: True)
    new = model[0]
    assert (new.in_channels, new.out_channels, new.groups) == (old.in_channels, old.out_channels, old.groups)
    image = torch.randn(2, 4, *[16] * len(old.kernel_size))
    assert new(image).shape == old(image).shape


def test_where_is_asked_about_every_convolution():
    """The predicate gets each convolution's name and module once, and nothing else; what it refuses is listed."""
    model = nn.Sequential(
        depthwise(), nn.ReLU(), nn.Sequential(depthwise(), nn.Conv2d(4, 4, 1)), nn.ConvTranspose2d(4, 4, 1)
    )
    expected = [("0", model[0]), ("2.0", model[2][0]), ("2.1", model[2][1]), ("3", model[3])]
    asked = []
    report = converted(model, where=lambda name, module: asked.append((name, module)) or name == "2.0")
    assert asked == expected
    assert [row.name for row in report.replaced] == ["2.0"]
    assert {skip.name: skip.reason for skip in report.skipped} == dict.fromkeys(
        ["0", "2.1", "3"], "not picked by where"
    )
