"""What `convert` keeps, what layers share, the counts it promises, and what it refuses."""

import copy
import itertools
import math

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from torchdcls import Dcls1d, Dcls2d, Dcls3d, convert, param_groups
from torchdcls.conversion import parameter_count

from .small import CONVOLUTIONS, convnext, dcls_layers, depthwise, on_meta, unique_parameters


def converted(model, **options):
    """With three elements, or one where there is a single cell for all."""
    size = options.get("dilated_kernel_size", 9)
    count = 1 if size == 1 or (isinstance(size, tuple) and set(size) == {1}) else 3
    return convert(model, **{"dilated_kernel_size": 9, "kernel_count": count, **options})


def everything(name, module):
    return True


# --- Counts ---

BILINEAR, GAUSSIAN = {"dilated_kernel_size": 17, "interpolation": "bilinear"}, {"dilated_kernel_size": 23}
COUNTS = [
    # model, what to, elements, parameters before, parameters after
    ("convnext_tiny", BILINEAR, 34, 28_589_128, 28_587_688),
    ("convnext_tiny", GAUSSIAN, 26, 28_589_128, 28_586_536),
    ("convnext_small", BILINEAR, 40, 50_223_688, 50_217_064),
    ("convnext_small", GAUSSIAN, 26, 50_223_688, 50_062_120),
    ("convnext_base", BILINEAR, 40, 88_591_464, 88_582_632),
    ("convnext_base", GAUSSIAN, 26, 88_591_464, 88_376_040),
    ("convformer_s18", BILINEAR, 34, 26_774_448, 26_763_952),
    ("convformer_s18", GAUSSIAN, 26, 26_774_448, 26_757_808),
    ("caformer_s18", BILINEAR, 34, 26_341_656, 26_350_488),
    ("caformer_s18", GAUSSIAN, 26, 26_341_656, 26_355_096),
]


@pytest.mark.parametrize("name, target, kernel_count, before, after", COUNTS)
def test_parameter_counts_of_the_papers(name, target, kernel_count, before, after):
    """The papers' models have the parameter counts that the method's description gives."""
    model = on_meta(lambda: timm.create_model(name))
    assert unique_parameters(model) == before
    report = convert(model, kernel_count=kernel_count, **target)
    assert unique_parameters(model) == after
    assert (report.parameters_before, report.parameters_after) == (before, after)


ISO = [
    ("convnext_tiny", BILINEAR, 34),
    ("convnext_tiny", GAUSSIAN, 26),
    ("convnext_small", BILINEAR, 40),
    ("convnext_base", BILINEAR, 40),
    ("convformer_s18", BILINEAR, 34),
    ("convformer_s18", GAUSSIAN, 26),
    ("caformer_s18", GAUSSIAN, 21),
]


@pytest.mark.parametrize("name, target, expected", ISO)
def test_iso_counts_of_the_papers(name, target, expected):
    """Where the papers chose the largest count that fits, "iso" finds it."""
    assert convert(on_meta(lambda: timm.create_model(name)), kernel_count="iso", **target).kernel_count == expected


def tied_convolutions():
    first, second = depthwise(), depthwise()
    second.weight = first.weight
    return nn.Sequential(first, second)


def one_convolution_twice():
    layer = depthwise()
    return nn.Sequential(layer, nn.ReLU(), layer)


ISO_MODELS = {
    "ConvNeXt": (convnext, {}),
    "ConvNeXt, nothing shared": (convnext, {"share": "none"}),
    "ConvNeXt, all shared": (convnext, {"share": lambda name, module: "all"}),
    "bilinear": (convnext, {"interpolation": "bilinear"}),
    "triangle": (convnext, {"interpolation": "triangle"}),
    "a dense axis": (lambda: nn.Sequential(depthwise(kernel_size=31)), {"learned_dims": (1,)}),
    "1-D": (lambda: nn.Sequential(*[depthwise(kernel_size=31, dims=1) for _ in range(3)]), {}),
    "3-D": (lambda: nn.Sequential(depthwise(dims=3)), {}),
    "dense": (lambda: nn.Sequential(nn.Conv2d(4, 6, 7, padding=3)), {"where": everything}),
    "one weight for two layers": (tied_convolutions, {}),
    "one layer at two places": (one_convolution_twice, {}),
    "beside a lazy layer": (lambda: nn.Sequential(depthwise(), nn.LazyConv2d(3, 1)), {}),
}


@pytest.mark.parametrize("case", ISO_MODELS)
def test_iso_is_the_largest_that_fits(case):
    """With the "iso" count a model has no more parameters than before; with one element more it has."""
    make, options = ISO_MODELS[case]
    report = converted(make(), kernel_count="iso", **options)
    assert report.parameters_after <= report.parameters_before
    one_more = converted(make(), kernel_count=report.kernel_count + 1, **options)
    assert one_more.parameters_after > one_more.parameters_before


# --- Sharing ---

SHARES = {
    "stage": {"stages.0": "a", "stages.1": "b", "stages.2": "c", "stages.3": "d"},
    "none": None,
    # The first two stages have the same shape.
    "all": {"stages.0": "a", "stages.1": "a", "stages.2": "c", "stages.3": "d"},
}


def share_argument(share):
    return (lambda name, module: "all") if share == "all" else share


def assert_shared(model, share):
    """Positions and sigmas are one object exactly where `share` says so, and weights and biases nowhere."""
    layers = dcls_layers(model)
    for (name, layer), (other_name, other) in itertools.combinations(layers.items(), 2):
        sets = SHARES[share]
        together = sets is not None and sets[name[:8]] == sets[other_name[:8]]
        assert (layer.position is other.position) == together, (name, other_name)
        assert (layer.sigma is other.sigma) == together, (name, other_name)
        assert layer.weight is not other.weight
        assert layer.weight.data_ptr() != other.weight.data_ptr()
        assert layer.bias is not other.bias


@pytest.mark.parametrize("share", SHARES)
def test_sharing_is_one_object(share):
    """Layers of one stage and shape have the same Parameter; of different stages or shapes, never; weights, never."""
    model = convnext()
    converted(model, share=share_argument(share))
    assert_shared(model, share)


def loaded(model):
    other = convnext()
    converted(other)
    other.load_state_dict(model.state_dict())
    return other


SURVIVED = {
    "deepcopy": copy.deepcopy,
    "state dict": loaded,
    "double": lambda model: model.to(torch.float64),
    "bfloat16 and back": lambda model: model.bfloat16().float(),
}


@pytest.mark.parametrize("change", SURVIVED)
def test_sharing_survives(change):
    """Copies, loaded models and models of another dtype share as before, with the same positions."""
    model = convnext()
    converted(model)
    positions = {name: layer.position.detach().clone() for name, layer in dcls_layers(model).items()}
    model = SURVIVED[change](model)
    assert_shared(model, "stage")
    for name, layer in dcls_layers(model).items():
        assert torch.equal(layer.position.to(torch.float32), positions[name])


def test_sharing_trains_together():
    """The gradient of a shared position is the sum over its layers, so that one step moves all of them alike."""
    model = nn.Sequential(depthwise(), depthwise())
    converted(model)
    apart = copy.deepcopy(model)
    apart[1].position = nn.Parameter(apart[1].position.detach().clone())
    image = torch.randn(2, 4, 12, 12)
    for version in (model, apart):
        version(image).square().sum().backward()
    torch.testing.assert_close(model[0].position.grad, apart[0].position.grad + apart[1].position.grad)


def test_share_function_gets_names_and_old_modules():
    """A function of name and module decides, and its answer is the stage in the report."""
    model = nn.Sequential(depthwise(), depthwise(), depthwise())
    expected = [(str(index), module) for index, module in enumerate(model)]
    asked = []
    report = converted(model, share=lambda name, module: asked.append((name, module)) or name == "1")
    assert asked == expected
    assert [row.stage for row in report.replaced] == ["False", "True", "False"]
    assert model[0].position is model[2].position is not model[1].position


@pytest.mark.parametrize(
    "make",
    [
        lambda: depthwise().requires_grad_(False),
        lambda: depthwise(dtype=torch.float64),
        lambda: depthwise(device="meta"),
        lambda: depthwise(kernel_size=5),
        lambda: depthwise(channels=6),
    ],
    ids=["frozen", "dtype", "device", "old kernel", "channels"],
)
def test_only_equals_share(make):
    """Layers that differ in shape, place or requires_grad cannot have one parameter."""
    model = nn.Sequential(depthwise(), make())
    converted(model, share=lambda name, module: "all")
    assert model[0].position is not model[1].position


# --- Where the layers are held ---


class Held(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.again = layer, layer
        self.steps = nn.Sequential(nn.Identity(), layer)
        self.listed = nn.ModuleList([depthwise(), layer])
        self.named = nn.ModuleDict({"first": depthwise(), "second": layer})

    def forward(self, image):
        for step in (self.layer, self.again, self.steps, *self.listed, *self.named.values()):
            image = step(image)
        return image


def test_every_place_gets_the_same_new_layer():
    """A convolution registered at several places, twice in one parent too, becomes one layer at all of them."""
    model = Held(depthwise())
    before = [name for name, _ in model.named_modules(remove_duplicate=False)]
    report = converted(model)
    assert not any(isinstance(module, nn.Conv2d) for module in model.modules())
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == before
    places = [model.layer, model.again, model.steps[1], model.listed[1], model.named["second"]]
    assert len(set(places)) == 1
    assert [row.name for row in report.replaced] == ["layer", "listed.0", "named.first"]
    assert model(torch.randn(1, 4, 9, 9)).shape == (1, 4, 9, 9)


def test_converting_twice_takes_what_is_left():
    """DCLS layers are not convolutions: a second call converts others, and leaves them alone."""
    model = nn.Sequential(depthwise(), depthwise(channels=4, kernel_size=3))
    converted(model, where=lambda name, module: name == "0")
    first = model[0]
    report = converted(model)
    assert [row.name for row in report.replaced] == ["1"]
    assert model[0] is first


# --- What is kept ---

PADDINGS = ["same", "valid", 0, 3, (1, 3), 5]
SIZES = [1, 3, 7, 8, 12, 17, (9, 13), (9, 8)]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_output_size_and_padding_mode_are_kept(padding, padding_mode):
    """For every new size, the output is as large as it was, or the layer is left alone with a reason."""
    image = torch.randn(2, 4, 20, 23)
    for size in SIZES:
        old = depthwise(padding=padding, padding_mode=padding_mode)
        model = nn.Sequential(old, depthwise(padding="same"))
        report = converted(model, dilated_kernel_size=size)
        if model[0] is old:
            assert "no padding keeps its output size" in report.skipped[0].reason
        else:
            assert model[0].padding_mode == padding_mode
            assert model[0](image).shape == old(image).shape
        sizes = size if isinstance(size, tuple) else (size, size)
        if padding in ("same", 3):
            assert model[0] is not old, "a size that was kept can always be kept"
        if padding == 5 and all(cells % 2 for cells in sizes):
            assert model[0] is not old, "more cells around than the kernel needs leave room for any odd kernel"


axis = st.tuples(*[st.integers(1, 7), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9), st.integers(7, 11)])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=150, deadline=None)
@given(axes=st.lists(axis, min_size=1, max_size=2), named=st.sampled_from([None, None, "same", "valid"]))
def test_output_size_is_kept_where_it_can_be(axes, named):
    """Any kernel, padding, stride and new kernel: the output size is kept, or no padding whatever would keep it."""
    taps, pads, stride, size, cells = zip(*axes, strict=True)
    assume(named != "same" or set(stride) == {1})
    old = CONVOLUTIONS[len(axes)](2, 3, taps, stride=stride, padding=pads if named is None else named)
    model = nn.Sequential(old)
    image = torch.randn(1, 2, *cells)
    if named == "valid":
        pads = (0,) * len(axes)
    symmetric = all(
        any(2 * pad - new == 2 * before - k for pad in range(20))
        for k, before, new in zip(taps, pads, size, strict=True)
    )
    kept = named == "same" or (set(stride) == {1} and all(2 * p == k - 1 for k, p in zip(taps, pads, strict=True)))
    if kept or (symmetric and named != "same"):
        converted(model, dilated_kernel_size=size, where=everything)
        assert model[0](image).shape == old(image).shape
        assert model[0].stride == stride
    else:
        with pytest.raises(ValueError, match="no padding keeps its output size"):
            converted(model, dilated_kernel_size=size, where=everything)


@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding, size", [(3, 17), (3, 3), (2, 11), (5, (3, 9)), ("valid", 7), ("valid", 11)])
def test_the_centre_stays_in_place(padding, size, padding_mode, stride):
    """An element at the origin sees what the centre tap of the old kernel saw, at every cell of the output."""
    model = nn.Sequential(depthwise(stride=stride, padding=padding, padding_mode=padding_mode, bias=False))
    old = model[0]
    with torch.no_grad():
        old.weight.zero_()[:, :, 3, 3] = torch.tensor([1.0, -2.0, 3.0, 0.5]).unsqueeze(-1)
    converted(
        model,
        dilated_kernel_size=size,
        kernel_count=1,
        interpolation="bilinear",
        where=everything,
        position_init=torch.zeros(()),
    )
    with torch.no_grad():
        model[0].weight.copy_(old.weight[:, :, 3, 3].unsqueeze(-1))
    image = torch.randn(2, 4, 20, 23)
    torch.testing.assert_close(model[0](image), old(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims, kind", [(1, Dcls1d), (2, Dcls2d), (3, Dcls3d)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_state_of_the_layer_is_kept(dims, kind, bias, trained, frozen):
    """Kind, stride, bias (the object itself), training flag and requires_grad are the old layer's."""
    old = depthwise(dims=dims, stride=2, bias=bias).train(trained)
    old.weight.requires_grad_(not frozen)
    model = nn.Sequential(old)
    converted(model, where=everything)
    new = model[0]
    assert type(new) is kind
    assert new.stride == old.stride
    assert new.bias is old.bias
    assert new.training is trained
    assert {p.requires_grad for p in (new.weight, new.position, new.sigma)} == {not frozen}
    assert not bias or new.bias.requires_grad


@pytest.mark.parametrize(
    "dtype, position_dtype",
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_dtype_is_kept(dtype, position_dtype):
    """Weight and bias have the old dtype; positions and sigmas float32 at least."""
    model = nn.Sequential(depthwise(dtype=dtype))
    converted(model)
    assert model[0].weight.dtype == model[0].bias.dtype == dtype
    assert model[0].position.dtype == model[0].sigma.dtype == position_dtype


def test_bfloat16_model_runs():
    """A model in bfloat16 stays one: input and output in bfloat16, forward and backward."""
    model = convnext().bfloat16()
    converted(model, dilated_kernel_size=11)
    output = model(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16))
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(layer.position.grad is not None for layer in dcls_layers(model).values())


def test_device_is_kept():
    """On the meta device a conversion allocates nothing, with truncated normal weights and given positions too."""
    model = on_meta(convnext)
    converted(model, weight_std=0.02, position_init=torch.zeros(()))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("learned_dims", [(0,), (1,), (0, 1), None])
def test_learned_dims_pass_through(learned_dims):
    """The axes that are asked for are learned, and the model runs as before."""
    model = convnext()
    converted(model, learned_dims=learned_dims)
    image = torch.randn(2, 3, 32, 32)
    assert model(image).shape == (2, 5)
    expected = (0, 1) if learned_dims is None else learned_dims
    for layer in dcls_layers(model).values():
        assert layer.learned_dims == expected
        assert layer.position.shape[0] == len(expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_features_keep_their_shapes(interpolation):
    """Every module of a converted model gives an output of the shape it gave before."""

    def shapes(model):
        seen = {}
        for name, module in model.named_modules():
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.shape}))
        model(torch.randn(2, 3, 32, 32))
        return seen

    model = convnext()
    before = shapes(copy.deepcopy(model))
    converted(model, interpolation=interpolation, dilated_kernel_size=17)
    assert shapes(model) == before


# --- How elements start ---


@pytest.mark.parametrize("weight_std", [0.02, 1.0])
def test_weight_std(weight_std):
    """Weights are normal, truncated at two standard deviations, of which 0.88 is left."""
    model = nn.Sequential(depthwise(channels=256))
    converted(model, weight_std=weight_std, kernel_count=26)
    weight = model[0].weight
    assert weight.abs().max() <= 2 * weight_std
    assert weight.abs().max() > 1.9 * weight_std
    # 6656 draws: the standard error of their deviation is below one per cent.
    assert weight.std().item() == pytest.approx(0.88 * weight_std, rel=0.04)
    assert abs(weight.mean().item()) < 0.05 * weight_std


def test_default_weights_are_torchs():
    """Without a standard deviation weights are uniform within 1 / sqrt(fan-in), the elements being the fan-in."""
    model = nn.Sequential(depthwise(channels=256))
    converted(model, kernel_count=16)
    assert 0.24 < model[0].weight.abs().max() <= 0.25


def test_sigma_init_passes_through():
    model = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4))
    converted(model, sigma_init=2.0)
    assert (model[0].sigma == 2.0).all()


@pytest.mark.parametrize(
    "position_init, low, high",
    [
        (("uniform", 3.0), 2.9, 3.0),
        (("uniform", 100.0), 4.0, 4.0),
        (torch.tensor(1.25), 1.25, 1.25),
        (("normal", 0.0), 0.0, 0.0),
    ],
    ids=["uniform", "clamped", "tensor", "normal of no width"],
)
def test_position_init_passes_through(position_init, low, high):
    """Positions start where they are told to, on the grid."""
    model = nn.Sequential(depthwise(channels=64), depthwise(channels=64))
    converted(model, position_init=position_init)
    for layer in model:
        assert low <= layer.position.abs().max() <= high


def test_positions_start_as_in_the_papers():
    """The default is a normal distribution of half a cell around the middle."""
    model = nn.Sequential(depthwise(channels=256))
    converted(model, kernel_count=26, dilated_kernel_size=23)
    # 13312 draws: their deviation has a standard error of 0.6 per cent.
    assert model[0].position.std().item() == pytest.approx(0.5, rel=0.03)
    assert abs(model[0].position.mean().item()) < 0.02


def test_method_and_interpolation_pass_through():
    """How layers convolve and interpolate is what was asked for."""
    model = nn.Sequential(depthwise())
    converted(model, method="fft", interpolation="triangle")
    assert (model[0].method, model[0].interpolation.name) == ("fft", "triangle")


# --- What is refused ---

WRONG = [
    ("kernel_count", 0),
    ("kernel_count", -3),
    ("kernel_count", math.nan),
    ("kernel_count", 2.5),
    ("kernel_count", True),
    ("kernel_count", "isoo"),
    ("share", "stages"),
    ("share", None),
    ("weight_std", 0.0),
    ("weight_std", -0.02),
    ("weight_std", math.nan),
    ("weight_std", math.inf),
    ("dilated_kernel_size", 0),
    ("dilated_kernel_size", -7),
    ("dilated_kernel_size", math.nan),
    ("dilated_kernel_size", "17"),
    ("dilated_kernel_size", (9, 0)),
    ("dilated_kernel_size", (9, 9, 9)),
    ("dilated_kernel_size", None),
    ("interpolation", "gauss"),
    ("learned_dims", (2,)),
    ("learned_dims", ()),
    ("position_init", ("normal", -1.0)),
    ("sigma_init", -1.0),
    ("position_init", torch.zeros(7, 7)),
    ("method", "fastest"),
]


def assert_refused(model, match, **options):
    """A ValueError that says `match`, and a model that is what it was: modules, parameters and their values."""
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        converted(model, **options)
    assert dict(model.named_modules(remove_duplicate=False)) == modules
    assert all(now is parameters[name] for name, now in model.named_parameters(remove_duplicate=False))
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("argument, value", WRONG)
def test_wrong_arguments_are_named(argument, value):
    """A bad value gives a ValueError that names its argument; the model is as it was."""
    assert_refused(convnext(), argument, **{argument: value})


def test_an_error_in_the_middle_changes_nothing():
    """When only a later layer cannot be made, the earlier ones are not replaced either."""
    model = nn.Sequential(depthwise(channels=4), depthwise(channels=8))
    assert_refused(model, "position_init", position_init=torch.zeros(2, 4, 1, 3))


def test_iso_without_room():
    """Where even one element is more than the old kernel, "iso" says so and asks for a number."""
    model = nn.Sequential(depthwise(kernel_size=2, padding="same"))
    reason = "kernel_count: .*'iso' with 16 weights to replace and 20 parameters for one element each; give a number"
    assert_refused(model, reason, kernel_count="iso")


NOTHING = {
    "no convolutions": (lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()), {}, "got Sequential without any"),
    "none depthwise": (
        lambda: timm.create_model("resnet18"),
        {},
        r"conv1: not depthwise \(3 to 64 channels in 1 group\)",
    ),
    "only one tap": (lambda: nn.Sequential(depthwise(kernel_size=1)), {}, "0: its kernel has one tap"),
    "where refuses": (lambda: nn.Sequential(depthwise()), {"where": lambda *_: False}, "0: not picked by where"),
    "already converted": (lambda: nn.Sequential(Dcls2d(4, 4, 3, 1, 2, 5, 4)), {}, "got Sequential without any"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_replacing_nothing_is_an_error(case):
    """Nothing to replace is an error that gives reasons, for some of the convolutions at least."""
    make, options, reason = NOTHING[case]
    assert_refused(make(), f"model: expected at least one convolution to replace.*{reason}", **options)


@pytest.mark.parametrize(
    ("layer", "hinted"),
    [
        (lambda: nn.Conv2d(4, 8, 3), True),
        (lambda: nn.LazyConv2d(4, 3), False),
        (lambda: nn.ConvTranspose2d(4, 4, 3), False),
        (lambda: depthwise(kernel_size=3, dilation=2), False),
    ],
    ids=["dense", "lazy", "transposed", "dilated"],
)
def test_where_is_named_only_where_it_helps(layer, hinted):
    """The error points to where= for what the default leaves alone, and not for what nothing can convert."""
    with pytest.raises(ValueError, match="none can be") as raised:
        converted(nn.Sequential(layer()))
    assert ("where=" in str(raised.value)) == hinted


@pytest.mark.parametrize(
    "make",
    [
        depthwise,
        lambda: nn.Conv2d(4, 8, 3),
        lambda: nn.ConvTranspose1d(4, 4, 3),
        lambda: nn.utils.parametrizations.weight_norm(depthwise()),
    ],
    ids=["depthwise", "dense", "transposed", "weight norm"],
)
def test_a_convolution_cannot_replace_itself(make):
    """The root being a convolution is refused whatever its kind, as nothing holds it."""
    assert_refused(make(), "model: .*got a convolution itself")


# --- Converted models at work ---


@pytest.mark.compiles
def test_converted_model_compiles():
    """A converted model is one graph, and compiled it gives the outputs and gradients that it gives in eager mode."""
    model = convnext(depths=(1, 1, 1, 1))
    converted(model, dilated_kernel_size=11)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    image = torch.randn(2, 3, 32, 32)
    expected, output = model(image), compiled(image)
    torch.testing.assert_close(output, expected)
    expected.square().sum().backward()
    output.square().sum().backward()
    for (name, parameter), twin_parameter in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(twin_parameter.grad, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
def test_converted_model_learns(interpolation):
    """Training steps on a converted model lower the loss and move weights, positions and sigmas of every layer."""
    model = convnext(depths=(1, 2, 1, 1))
    converted(model, interpolation=interpolation, dilated_kernel_size=11)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters(remove_duplicate=False)}
    optimizer = torch.optim.AdamW(param_groups(model, lr=5e-3, weight_decay=0.05))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    for name in dcls_layers(model):
        for part in ("weight", "position", "sigma")[: 2 if interpolation == "bilinear" else 3]:
            assert not torch.equal(start[f"{name}.{part}"], model.get_parameter(f"{name}.{part}")), (name, part)


def test_parameter_count_leaves_lazy_parameters_out():
    """Parameters without a size yet count nothing; shared ones count once."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(5), nn.Linear(3, 4))
    model[2].weight = model[0].weight
    assert parameter_count(model) == 12 + 4 + 4
