"""What `convert(..., init="keep")` keeps of a model: its outputs, exactly or as nearly as its elements can come."""

import copy
import math
import re
import time
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchdcls import Profile, construct_kernel, convert
from torchdcls.conversion import fit
from torchdcls.profiles import PROFILES

from .small import CONVOLUTIONS, convnext, dcls_layers, depthwise, on_meta
from .test_replace import assert_refused


def everything(name, module):
    return True


def keep(model, size=11, count=49, **options):
    """`model` converted in double precision, and the report."""
    options = {"interpolation": "bilinear", "init": "keep", **options}
    twin = copy.deepcopy(model).double()
    return twin, convert(twin, dilated_kernel_size=size, kernel_count=count, **options)


def assert_same_outputs(model, images, tolerance=1e-13, **options):
    """The converted model's outputs are the model's, up to a share of their norm."""
    with torch.no_grad():
        twin, report = keep(model, **options)
        expected = copy.deepcopy(model).double()(images.double())
        difference = (twin(images.double()) - expected).norm() / expected.norm()
    assert difference <= tolerance
    return report


def smooth_kernels(layers, channels, taps=7):
    """Kernels like trained ones: neighbouring taps alike, large in the middle. (layers, channels, taps, taps)."""
    distance = torch.arange(taps, dtype=torch.float64) - taps // 2
    blur = torch.exp(-distance.square() / 2)
    kernels = torch.randn(layers * channels, 1, 2 * taps - 1, 2 * taps - 1, dtype=torch.float64)
    kernels = F.conv2d(kernels, blur.outer(blur)[None, None]).reshape(layers, channels, taps, taps)
    middle = torch.exp(-distance.square() / 12)
    return kernels * middle.outer(middle)


def one_stage(kernels):
    """A model of one stage of depthwise layers with these kernels, (layers, channels, height, width)."""
    layers, channels, *taps = kernels.shape
    model = nn.Sequential(
        *[depthwise(channels, tuple(taps), padding="same", dtype=torch.float64) for _ in range(layers)]
    )
    with torch.no_grad():
        for layer, kernel in zip(model, kernels, strict=True):
            layer.weight.copy_(kernel.unsqueeze(1))
    return model


def residual(layer, kernel):
    """Norm of the difference of a layer's kernel and an odd one in its middle, over the norm of that; independently."""
    made = layer.kernel().detach().to(kernel)
    expected = torch.zeros_like(made)
    sizes = zip(kernel.shape[1:], made.shape[2:], strict=True)
    at = [slice(new // 2 - old // 2, new // 2 + old // 2 + 1) for old, new in sizes]
    expected[(slice(None), 0, *at)] = kernel
    return ((made - expected).norm() / kernel.norm()).item()


def grid(size, taps, interpolation):
    """Kernels of `taps` x `taps` in the middle of `size` x `size`, both odd."""
    start = (size - taps) // 2
    return fit.Grid((size,) * 2, (start,) * 2, (start + taps,) * 2, PROFILES[interpolation])


# --- Enough elements ---

EXACT = {
    "1-D": ({"dims": 1}, {}),
    "1-D, even taps": ({"dims": 1, "kernel_size": 4, "padding": "same"}, {}),
    "1-D, even size": ({"dims": 1}, {"size": 10}),
    "3-D": ({"dims": 3, "kernel_size": 3}, {"size": 5}),
    "3-D, three sizes": ({"dims": 3, "kernel_size": (3, 2, 5), "padding": "same"}, {"size": (7, 4, 6)}),
    "2-D": ({}, {}),
    "not square": ({"kernel_size": (3, 5), "padding": (1, 2)}, {"size": (9, 5)}),
    "even taps": ({"kernel_size": 4, "padding": "same"}, {"size": 9}),
    "even size": ({"kernel_size": 5}, {"size": 8}),
    "even taps and size": ({"kernel_size": 4, "padding": 1}, {"size": 8}),
    "the same size": ({}, {"size": 7}),
    "surplus elements": ({"kernel_size": 3, "padding": 1}, {"count": 20, "position_init": ("uniform", 5.0)}),
    "stride 2": ({"stride": 2}, {"where": everything}),
    "padding same": ({"padding": "same"}, {}),
    "padding valid": ({"padding": "valid"}, {}),
    "no padding": ({"padding": 0}, {}),
    "more padding": ({"padding": 4}, {}),
    "reflect": ({"padding_mode": "reflect"}, {}),
    "circular": ({"padding_mode": "circular"}, {}),
    "replicate": ({"padding_mode": "replicate"}, {}),
    "no bias": ({"bias": False}, {}),
    "a dense axis": ({}, {"count": 7, "learned_dims": (1,)}),
    "a dense axis, even size": ({"kernel_size": (5, 3), "padding": (2, 1)}, {"size": (8, 8), "learned_dims": (0,)}),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle"])
@pytest.mark.parametrize("case", EXACT)
def test_enough_elements_compute_the_same(case, interpolation):
    """With an element for every tap outputs are the same to rounding, and the report says so."""
    layer, options = EXACT[case]
    model = nn.Sequential(depthwise(**layer))
    images = torch.randn(2, 4, *(12, 13, 11)[: layer.get("dims", 2)])
    report = assert_same_outputs(model, images, interpolation=interpolation, **options)
    assert report.replaced[0].residual < 1e-15


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dense_convolutions_too(groups, dims):
    """Every pair of channels has its own elements."""
    model = nn.Sequential(CONVOLUTIONS[dims](4, 6, 3, padding=1, groups=groups))
    images = torch.randn(2, 4, *(9, 8, 7)[:dims])
    assert_same_outputs(model, images, size=5, count=27, where=everything)


@pytest.mark.parametrize("share", ["stage", "none"])
def test_a_network_computes_the_same(share):
    """timm's ConvNeXt, in single precision too; layers of a stage still share one parameter."""
    model, images = convnext().eval(), torch.randn(2, 3, 32, 32)
    report = assert_same_outputs(model, images, share=share)
    assert all(row.residual < 1e-15 for row in report.replaced)
    expected = model(images)
    convert(model, dilated_kernel_size=11, kernel_count=49, interpolation="bilinear", share=share, init="keep")
    torch.testing.assert_close(model(images), expected)
    blocks = model.stages[2].blocks
    assert (blocks[0].conv_dw.position is blocks[1].conv_dw.position) == (share == "stage")


def test_gaussian_elements_leak_a_little():
    """A Gaussian is never one tap: the difference is small, and it is the reported one."""
    kernels = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    model = one_stage(kernels)
    images = torch.randn(2, 4, 15, 15)
    report = assert_same_outputs(model, images, interpolation="gaussian", tolerance=5e-3)
    twin, _ = keep(model, interpolation="gaussian")
    for layer, kernel, row in zip(twin, kernels, report.replaced, strict=True):
        assert 0 < row.residual < 2e-3
        assert row.residual == pytest.approx(residual(layer, kernel), rel=1e-9)


def test_surplus_elements_wait():
    """Elements beyond the taps have weight 0, start where `position_init` says and with the profile's sigma."""
    twin, _ = keep(nn.Sequential(depthwise(kernel_size=3, padding=1)), count=30, interpolation="gaussian",
                   position_init=("uniform", 5.0))  # fmt: skip
    layer = twin[0]
    assert not layer.weight[..., 9:].any() and layer.weight[..., :9].all()
    assert layer.position[..., 9:].abs().max() > 3 and layer.position[..., :9].abs().max() < 1.01
    assert (layer.sigma[..., 9:] == 0.23).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("count", [49, 20])
@pytest.mark.parametrize("size", [7, 11])
def test_everything_can_learn(interpolation, count, size):
    """No weight, position or sigma starts where its gradient is 0, as a triangle's on a cell or at an edge would."""
    twin, _ = keep(nn.Sequential(depthwise()), count=count, size=size, interpolation=interpolation)
    twin = twin.float()
    twin(torch.randn(4, 4, 15, 15)).pow(3).sum().backward()
    for name, parameter in twin.named_parameters():
        assert parameter.grad.count_nonzero() == parameter.numel(), name


def test_a_single_cell_is_left_a_little():
    """Where an old kernel is one cell wide, elements that can learn along that axis cost a rounding of float16."""
    twin, report = keep(nn.Sequential(depthwise(kernel_size=(7, 1), padding=(3, 0))), count=7)
    assert 0 < report.replaced[0].residual < 2e-5
    assert (twin[0].position % 1 != 0).all()


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_dtype_is_the_layers(dtype, bound):
    """Parameters have the types a converted layer has; the residual is that of the rounded weights."""
    model = nn.Sequential(depthwise(dtype=dtype))
    old = model[0].weight.detach().clone()[:, 0].double()
    report = convert(model, dilated_kernel_size=11, kernel_count=49, interpolation="triangle", init="keep")
    layer = model[0]
    assert (layer.weight.dtype, layer.position.dtype, layer.sigma.dtype) == (dtype, torch.float32, torch.float32)
    assert report.replaced[0].residual == pytest.approx(residual(layer, old), rel=1e-9)
    assert report.replaced[0].residual < bound


def test_what_does_not_fit_is_lost():
    """A new kernel smaller along an axis keeps its middle, and the residual is what lies outside."""
    kernels = torch.randn(1, 4, 7, 5, dtype=torch.float64)
    twin, report = keep(one_stage(kernels), size=(3, 9), count=15)
    torch.testing.assert_close(twin[0].kernel()[:, 0, :, 2:7], kernels[0, :, 2:5])
    lost = kernels.square().sum() - kernels[:, :, 2:5].square().sum()
    assert report.replaced[0].residual == pytest.approx(math.sqrt(lost / kernels.square().sum()), rel=1e-9)


def test_an_old_kernel_of_nothing():
    """A kernel of zeros stays one, with residual 0."""
    for count in (5, 49):
        twin, report = keep(one_stage(torch.zeros(1, 3, 7, 7)), count=count)
        assert not twin[0].weight.any() and twin[0].position.isfinite().all()
        assert report.replaced[0].residual == 0


# --- Fewer elements ---


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("layers", [1, 3])
def test_residuals_are_those_of_the_kernels(interpolation, layers):
    """Each layer has its own residual."""
    kernels = smooth_kernels(layers, 4)
    twin, report = keep(one_stage(kernels), count=12, interpolation=interpolation)
    for layer, kernel, row in zip(twin, kernels, report.replaced, strict=True):
        assert row.residual == pytest.approx(residual(layer, kernel), rel=1e-9)


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_weights_are_the_least_squares_solution(interpolation):
    """No weights for the positions and sigmas found are better: torch's lstsq leaves as much."""
    kernels = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    twin, report = keep(one_stage(kernels), size=9, count=8, interpolation=interpolation)
    for layer, kernel, row in zip(twin, kernels, report.replaced, strict=True):
        unit = torch.ones(3, 1, 1, dtype=torch.float64)
        made = [
            construct_kernel(
                unit,
                layer.position[..., k : k + 1],
                None if layer.sigma is None else layer.sigma[..., k : k + 1],
                9,
                interpolation,
            )
            for k in range(8)
        ]
        columns = torch.stack(made, -1).flatten(1, -2)
        old = F.pad(kernel, (2, 2, 2, 2)).flatten(1).unsqueeze(-1)
        best = torch.linalg.lstsq(columns, old).solution
        least = ((columns @ best - old).norm() / old.norm()).item()
        assert least - 1e-12 <= row.residual <= least * (1 + 1e-4) + 1e-9


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("layers", [1, 3])
def test_better_than_cells(interpolation, layers):
    """Less is left than with the largest taps of the old kernel, one element on each, which are the best cells."""
    kernels = torch.randn(layers, 16, 7, 7, dtype=torch.float64)
    _, report = keep(one_stage(kernels), count=20, interpolation=interpolation)
    energy = kernels.square().sum(0).flatten(1).sort(-1).values
    cells = math.sqrt(energy[:, :-20].sum() / energy.sum())
    found = math.sqrt(
        sum((row.residual * kernel.norm().item()) ** 2 for row, kernel in zip(report.replaced, kernels, strict=True))
    )
    assert found / kernels.norm() < 0.8 * cells


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_descent_never_loses(interpolation):
    """In no row is more left after the descent than at the start, but for the step off the cells; mostly much less."""
    old = torch.randn(2, 24, 7, 7, dtype=torch.float64)
    place = grid(11, 7, interpolation)
    start = fit._choices(old, 15, place)[0]
    before = fit.objective(old, start, place)
    after = fit.objective(old, fit.descended(old, start, place), place)
    assert (after <= before * (1 + 1e-3)).all()
    assert after.sum() < 0.9 * before.sum()


def test_the_start_is_chosen_by_least_squares():
    """Every element chosen is, of all candidates, the one with which least is left, by torch's lstsq."""
    place = grid(5, 3, "gaussian")
    old = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    start = fit._choices(old, 4, place)[0]
    places = place.places(fit.STEP, old.device)
    candidates = [(position, sigma) for sigma in fit.SIGMAS for position in places.T]

    def column(position, sigma):
        position = position.reshape(2, 1, 1, 1)
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        return construct_kernel(one, position, torch.full_like(position, sigma), 5, "gaussian").flatten()

    target = F.pad(old, (1, 1, 1, 1)).reshape(2, 25).T
    taken = []
    for k in range(4):
        left = []
        for candidate in candidates:
            columns = torch.stack([*taken, column(*candidate)], 1)
            left.append((columns @ torch.linalg.lstsq(columns, target).solution - target).square().sum().item())
        taken.append(column(start.position[:, 0, k], start.sigma[0, 0, k].item()))
        columns = torch.stack(taken, 1)
        mine = (columns @ torch.linalg.lstsq(columns, target).solution - target).square().sum().item()
        assert mine <= min(left) * (1 + 1e-6)


def test_slopes_of_the_descent_are_those_of_the_objective():
    """Downhill is minus half the gradient of the objective with its weights held at their best."""
    old = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    place = grid(9, 5, "gaussian")
    position, sigma = torch.rand(2, 3, 4, dtype=torch.float64) * 4 - 2, torch.rand(2, 3, 4, dtype=torch.float64)
    descent = fit._Descent(old, fit.Placement(position, sigma), place)
    leaves = torch.stack([position, sigma]).requires_grad_()
    fit.objective(old, fit.Placement(leaves[0], leaves[1]), place).sum().backward()
    expected = leaves.grad.permute(2, 0, 1, 3).flatten(1)
    torch.testing.assert_close(-2 * descent.downhill, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
@pytest.mark.parametrize("share", ["stage", "none"])
def test_more_elements_leave_less(interpolation, share):
    """The mean residual falls with the count, down to that of an element for every tap."""
    model = one_stage(smooth_kernels(3, 8))
    means = []
    for count in (2, 5, 12, 24, 49):
        _, report = keep(model, count=count, interpolation=interpolation, share=share)
        means.append(sum(row.residual for row in report.replaced) / 3)
    assert means == sorted(means, reverse=True)
    assert means[-1] < 2e-3


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_a_kernel_of_few_elements_is_found(interpolation):
    """Kernels made of three elements between cells, of three layers in the same places, are made of three again."""
    places = torch.tensor([[-2.3, 0.6, 2.2], [1.3, -1.7, 1.4]], dtype=torch.float64)
    position = (places.reshape(2, 1, 1, 3) + 0.2 * torch.rand(2, 12, 1, 3)).double()
    sigma = None if interpolation == "bilinear" else torch.full_like(position, 0.1)
    weights = torch.randn(3, 12, 1, 3, dtype=torch.float64)
    kernels = torch.stack([construct_kernel(weight, position, sigma, 9, interpolation)[:, 0] for weight in weights])
    twin, report = keep(one_stage(kernels), size=15, count=3, interpolation=interpolation)
    assert all(row.residual < 0.02 for row in report.replaced)
    found = twin[0].position.detach()[:, :, 0, :, None]
    nearest = (found - position[:, :, 0, None]).abs().amax(0).amin(1)
    assert nearest.median() < 0.05


def test_weights_stay_bounded():
    """Elements that come to lie on each other do not grow against each other."""
    for interpolation in ("bilinear", "gaussian"):
        model = one_stage(smooth_kernels(1, 32))
        twin, _ = keep(model, count=40, interpolation=interpolation)
        assert twin[0].weight.abs().max() < 20 * model[0].weight.abs().max()
    twice = fit.Placement(torch.zeros(2, 1, 2, dtype=torch.float64), torch.zeros(2, 1, 2, dtype=torch.float64))
    weight = fit.least_squares(torch.ones(1, 1, 3, 3, dtype=torch.float64), twice, grid(7, 3, "bilinear"))
    torch.testing.assert_close(weight, torch.full((1, 1, 2), 0.5, dtype=torch.float64))


def test_layers_that_share_are_fitted_together():
    """Sharing costs: kernels alone in their stage come nearer, and the first layer is not preferred."""
    model = one_stage(torch.randn(4, 8, 7, 7, dtype=torch.float64))
    twin, shared = keep(model, count=20)
    _, alone = keep(model, count=20, share="none")
    assert len({id(layer.position) for layer in dcls_layers(twin).values()}) == 1
    rest = [row.residual for row in shared.replaced]
    assert max(row.residual for row in alone.replaced) < min(rest)
    assert max(rest) < 1.3 * min(rest)


def test_a_profile_of_ones_own():
    """Slopes come from autograd where a profile has no function for them, and wide profiles are refitted."""
    profile = Profile(lambda u: 1 / (1 + u * u), 0.3, 0.2)
    _, report = keep(one_stage(smooth_kernels(1, 4)), count=20, interpolation=profile)
    assert report.replaced[0].residual < 0.3


def test_parts_change_nothing(monkeypatch):
    """Rows fitted in parts are the rows fitted together."""
    model = one_stage(smooth_kernels(2, 6))
    whole, _ = keep(model, count=9, interpolation="gaussian")
    monkeypatch.setattr(fit, "PART_NUMBERS", 2 * (5 * 9) ** 2)
    sizes, descended = [], fit.descended
    monkeypatch.setattr(fit, "descended", lambda old, *more: sizes.append(old.shape[1]) or descended(old, *more))
    parts, _ = keep(model, count=9, interpolation="gaussian")
    assert len(sizes) > 1 and set(sizes) == {2}
    assert whole[1].kernel().abs().max() > 1e-2
    torch.testing.assert_close(parts[1].kernel(), whole[1].kernel(), rtol=1e-6, atol=1e-6)


def test_a_large_stage_takes_seconds():
    """The third stage of ConvNeXt-T, 26 Gaussian elements for 9 layers of 384 channels: seconds, not minutes."""
    model = one_stage(smooth_kernels(9, 384)).float()
    start = time.process_time()
    report = convert(model, dilated_kernel_size=23, kernel_count=26, init="keep")
    assert time.process_time() - start < 60
    assert max(row.residual for row in report.replaced) < 0.1


# --- What is said and refused ---


def test_text():
    """A residual for each layer, their mean, and that it is large; without a warm start, none."""
    with pytest.warns(UserWarning, match=r"^init='keep' keeps too little"):
        _, report = keep(one_stage(smooth_kernels(2, 3)), count=6)
    first, second = (row.residual for row in report.replaced)
    assert str(report).splitlines()[2:] == [
        f"mean residual: {(first + second) / 2:.2g}",
        f"warning: {report.warning}",
        f"  0  7x7 -> 11x11  3 channels, stage (root), residual {first:.2g}",
        f"  1  7x7 -> 11x11  3 channels, stage (root), residual {second:.2g}",
    ]
    _, report = keep(nn.Sequential(depthwise()), init="random")
    assert "residual" not in str(report) and report.replaced[0].residual is None


def broken():
    model = nn.Sequential(depthwise(), depthwise())
    model[1].weight.data[0, 0, 0, 0] = math.nan
    return model


REFUSED = {
    "meta": (lambda: on_meta(convnext), {}, r"init: expected 'random' for a model on the meta device.*stages\.0"),
    "NaN": (broken, {}, "init: expected finite weights for 'keep', got NaN or infinity in 1"),
    "sigma_init": (convnext, {"sigma_init": 1.0}, "sigma_init: expected None with init='keep'"),
    "weight_std": (convnext, {"weight_std": 0.02}, "weight_std: expected None with init='keep'"),
    "position_init": (convnext, {"position_init": torch.zeros(())}, "position_init: .* with init='keep'.*got a tensor"),
    "a word": (convnext, {"init": "kept"}, "init: expected one of 'random', 'keep', got 'kept'"),
}


@pytest.mark.parametrize("case", [name for name in REFUSED if name not in ("meta", "NaN")])
def test_wrong_arguments_are_named(case):
    """What has no effect or no meaning is refused, and the model is as it was."""
    make, options, reason = REFUSED[case]
    assert_refused(make(), reason, **{"init": "keep", **options})


@pytest.mark.parametrize("case", ["meta", "NaN"])
def test_nothing_to_keep(case):
    """Weights without values are refused with the layer's name before anything is replaced."""
    make, options, reason = REFUSED[case]
    model = make()
    with pytest.raises(ValueError, match=reason):
        keep(model, **options)
    assert not dcls_layers(model)


# --- Too few elements ---


def networks():
    """Kernels of 3x3, as most networks have; of three sizes; along a dense axis; dense convolutions."""
    return {
        "3x3": (nn.Sequential(*[depthwise(8, 3, padding=1) for _ in range(3)]), {}),
        "one layer": (nn.Sequential(depthwise(8, 3, padding=1)), {}),
        "three sizes": (nn.Sequential(*[depthwise(4, taps, padding="same") for taps in (3, 5, 7)]), {}),
        "a dense axis": (nn.Sequential(depthwise(4, (3, 7), padding="same")), {"learned_dims": (1,)}),
        "1-D": (nn.Sequential(depthwise(4, 9, dims=1)), {}),
        "dense": (nn.Sequential(nn.Conv2d(4, 6, 3, padding=1)), {"where": everything}),
        "apart": (nn.Sequential(*[depthwise(4, 5, padding=2) for _ in range(2)]), {"share": "none"}),
    }


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
@pytest.mark.parametrize("case", networks())
def test_a_warning_where_little_is_left(case, interpolation):
    """Once for a conversion, with the residual that the report has; the count that it names does, without a warning."""
    model, options = networks()[case]
    with pytest.warns(UserWarning, match=r"^init='keep' keeps too little of the kernels") as caught:
        _, report = keep(model, size=11, count=1, interpolation=interpolation, **options)
    assert len(caught) == 1 and caught[0].filename == __file__
    message = str(caught[0].message)
    assert report.warning == message and f"warning: {message}" in str(report).splitlines()
    mean = sum(row.residual for row in report.replaced) / len(report.replaced)
    assert f"with 1 element for each: mean residual {mean:.2g}, expected 0.3 at most" in message
    enough = int(re.search(r"kernel_count=(\d+) is enough$", message)[1])
    assert 1 < enough <= 49
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, report = keep(model, size=11, count=enough, interpolation=interpolation, **options)
    assert report.warning is None and report.mean_residual <= 0.3
    assert "warning" not in str(report)


def test_iso_of_small_kernels_warns():
    """The count that has no more parameters than 3x3 kernels is one or two."""
    model = nn.Sequential(*[depthwise(16, 3, padding=1) for _ in range(2)])
    with pytest.warns(UserWarning, match=r"with 1 element for each: mean residual 0\.\d+, .*count=\d is enough$"):
        convert(model, dilated_kernel_size=17, kernel_count="iso", init="keep", share="none")


def test_kernels_that_are_too_small_for_the_old_ones():
    """No count is enough."""
    model = nn.Sequential(depthwise(8, 7))
    with pytest.warns(UserWarning, match=r"no kernel_count is enough, .*: give a larger dilated_kernel_size$"):
        keep(model, size=3, count=9)


def test_no_warning_for_new_weights():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = convert(nn.Sequential(depthwise(8, 3, padding=1)), dilated_kernel_size=9, kernel_count=1)
    assert report.warning is None and report.mean_residual is None


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
def test_what_is_left_by_count_is_what_lstsq_leaves(interpolation):
    """The chosen elements' own least squares, for each layer; never more with more elements, nothing at the end."""
    place = grid(7, 3, interpolation)
    old = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    left = fit.left_by_count(old, place)
    assert left.shape == (9, 2) and (left[-1] == 0).all() and (left.diff(dim=0) <= 1e-12).all()
    for count in (1, 4):
        start = fit._choices(old, count, place)[0]
        for layer in range(2):
            total = 0.0
            for row in range(5):
                columns = torch.stack(
                    [
                        construct_kernel(
                            torch.ones(1, 1, 1, dtype=torch.float64),
                            start.position[:, row, k].reshape(2, 1, 1, 1),
                            None if interpolation == "bilinear" else start.sigma[:, row, k].reshape(2, 1, 1, 1),
                            7,
                            interpolation,
                        ).flatten()
                        for k in range(count)
                    ],
                    1,
                )
                target = F.pad(old[layer, row], (2, 2, 2, 2)).flatten().unsqueeze(-1)
                best = torch.linalg.lstsq(columns, target).solution
                total += (columns @ best - target).square().sum().item()
            assert left[count - 1, layer].item() == pytest.approx(total, rel=1e-5)
