"""The layers: drop-in for torch's convolutions, whatever torch does to a module."""

import copy
import io
import math
import pickle
import warnings
from typing import ClassVar

import numpy
import pytest
import torch
from cases import (
    CONVOLUTIONS,
    CPU_METHODS,
    SPREADS,
    Elements,
    answers,
    assert_as_exact_as,
    assert_equal_to_rounding,
    cauchy,
    largest,
    normal,
)
from torch import nn

from torchdcls import Dcls1d, Dcls2d, Dcls3d, Profile, dcls_conv2d

LAYERS = {1: Dcls1d, 2: Dcls2d, 3: Dcls3d}
TORCH_LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
every_method = pytest.mark.parametrize("method", CPU_METHODS)
every_spread = pytest.mark.parametrize("spread", SPREADS)
every_dimension = pytest.mark.parametrize("dims", LAYERS)


def make_layer(dims=2, spread="gaussian", dtype=torch.float64, **options):
    """A small depthwise layer with elements over the whole grid and on its edges, and sigmas that differ."""
    size = options.pop("dilated_kernel_size", (4, 5, 3)[:dims])
    arguments = {"kernel_count": 3, "padding": "same", "groups": 4, "position_init": ("uniform", 20.0), **options}
    interpolation = SPREADS[spread].interpolation
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of positions beyond the kernel
        layer = LAYERS[dims](4, 4, **arguments, dilated_kernel_size=size, interpolation=interpolation, dtype=dtype)
    if layer.sigma is not None:
        nn.init.uniform_(layer.sigma, 0.05, 0.4)
    layer.spread = SPREADS[spread]
    return layer


def oracle_kernel(layer):
    """The dense kernel in float64, by the oracle, of the parameters as they are."""
    leaves = [None if leaf is None else leaf.double() for leaf in (layer.weight, layer.position, layer.sigma)]
    return Elements(layer.spread, layer.dilated_kernel_size, layer.learned_dims, *leaves).oracle()


def layer_answers(layer, input, call=None):
    call = layer if call is None else call
    return answers(lambda: call(input), {"input": input, **dict(layer.named_parameters())})


def make_input(dims=2, batch=2, dtype=torch.float64, size=None):
    return normal(batch, 4, *(size or (7, 6, 5)[:dims]), dtype=dtype)


# Parameters


@every_dimension
@every_spread
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict(dims, spread, bias):
    """`sigma` is absent where the scale is not learned, `bias` where there is none; all are parameters."""
    layer = LAYERS[dims](
        4, 6, 3, dilated_kernel_size=5, groups=2, bias=bias, interpolation=SPREADS[spread].interpolation
    )
    expected = {"weight": (6, 2, 3), "position": (dims, 6, 2, 3)}
    if SPREADS[spread].start is not None:
        expected["sigma"] = (dims, 6, 2, 3)
    if bias:
        expected["bias"] = (6,)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == expected
    assert [name for name, _ in layer.named_parameters()] == list(expected)
    assert not list(layer.buffers())


@pytest.mark.parametrize(
    ("learned", "weight"),
    [
        ((0,), (4, 1, 5, 7, 2)),
        ((1,), (4, 1, 3, 7, 2)),
        ((2,), (4, 1, 3, 5, 2)),
        ((2, 0), (4, 1, 5, 2)),
        (None, (4, 1, 2)),
    ],
    ids=str,
)
def test_dense_axes_have_elements_at_every_tap(learned, weight):
    layer = Dcls3d(4, 4, 2, dilated_kernel_size=(3, 5, 7), groups=4, learned_dims=learned)
    assert layer.weight.shape == weight
    assert layer.position.shape == layer.sigma.shape == (3 if learned is None else len(learned), *weight)
    assert layer.kernel().shape == (4, 1, 3, 5, 7)


@every_dimension
def test_position_axes_are_torchs(dims):
    """Position axis d moves along spatial axis d: one cell from the origin `size // 2`, sizes even and odd."""
    size = (4, 7, 6)[:dims]
    for axis in range(dims):
        start = torch.zeros(dims, 1, 1, 1)
        start[axis] = -1
        layer = LAYERS[dims](1, 1, 1, dilated_kernel_size=size, interpolation="bilinear", position_init=start)
        origin = [cells // 2 for cells in size]
        origin[axis] -= 1
        assert layer.kernel()[0, 0].nonzero().tolist() == [origin]


def test_clamping_brings_positions_back_after_a_step():
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=(4, 7), groups=4)
    with torch.no_grad():
        layer.position.mul_(100)
    layer.clamp_position_()
    assert [(row.min().item(), row.max().item()) for row in layer.position] == [(-2, 1), (-3, 3)]
    assert layer.position.requires_grad
    assert layer.position.grad_fn is None


def test_clamping_knows_which_axes_are_learned():
    layer = Dcls3d(1, 1, 8, dilated_kernel_size=(3, 5, 9), learned_dims=(0, 2), position_init=("uniform", 100))
    assert layer.learned_size == (3, 9)
    assert [row.abs().max().item() for row in layer.position] == [1, 4]


def test_clamping_fits_in_a_training_loop():
    """Positions stay on the grid and the triangle's sigma leaves its start at 0."""
    layer = Dcls2d(2, 2, 3, padding="same", dilated_kernel_size=5, interpolation="triangle")
    assert layer.sigma.count_nonzero() == 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=3.0)
    input, target = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(input) - target).square().mean().backward()
        optimizer.step()
        layer.clamp_position_()
        assert layer.position.abs().max() <= 2
    assert (layer.sigma != 0).any()


# Forward


@every_dimension
@every_spread
@every_method
def test_forward_and_every_gradient(dims, spread, method):
    layer, input = make_layer(dims, spread, method=method), make_input(dims)
    convolve = CONVOLUTIONS[dims]
    pads = [pad for cells in reversed(layer.dilated_kernel_size) for pad in ((cells - 1) // 2, cells // 2)]

    def oracle(input):
        return convolve(nn.functional.pad(input, pads), oracle_kernel(layer), layer.bias, groups=4)

    assert_equal_to_rounding(layer_answers(layer, input), layer_answers(layer, input, oracle))


@every_dimension
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("padding", "stride"), [(2, 1), ("each", 1), ("same", 1), ("valid", 1), (2, 2), ("each", 2), ("valid", 2)]
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_padding_is_torchs(dims, padding_mode, padding, stride):
    """A torch layer with the dense kernel in place of its weight gives the same, even sizes included."""
    padding = (1, 0, 2)[:dims] if padding == "each" else padding
    options = {"stride": stride, "padding": padding, "groups": 4, "padding_mode": padding_mode, "bias": False}
    layer, input = make_layer(dims, **options), make_input(dims)
    dense = TORCH_LAYERS[dims](4, 4, layer.dilated_kernel_size, **options)
    del dense.weight

    def oracle(input):
        dense.weight = oracle_kernel(layer)
        return dense(input)

    assert_equal_to_rounding(layer_answers(layer, input), layer_answers(layer, input, oracle))


@every_dimension
@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [(7, 2, 3), (2, 3, 4), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("padding", [(9, 8, 7), "same"], ids=str)
def test_padding_larger_than_the_map(dims, padding_mode, size, padding):
    """As `numpy.pad` continues the map; the gradient too, through the oracle's kernel on the map continued by index."""
    options = {"padding": padding if padding == "same" else padding[:dims], "padding_mode": padding_mode}
    layer, input = (
        make_layer(dims, **options, dilated_kernel_size=(12, 11, 8)[:dims]),
        make_input(dims, size=size[:dims]),
    )
    before = [(cells - 1) // 2 for cells in layer.dilated_kernel_size] if padding == "same" else padding[:dims]
    after = [cells // 2 for cells in layer.dilated_kernel_size] if padding == "same" else padding[:dims]
    pads = list(zip(before, after, strict=True))
    mode = {"replicate": "edge", "circular": "wrap"}.get(padding_mode, padding_mode)
    cells = numpy.pad(numpy.arange(math.prod(size[:dims])).reshape(size[:dims]), pads, mode=mode)

    def oracle(input):
        padded = input.flatten(2)[:, :, torch.from_numpy(cells).flatten()].unflatten(2, cells.shape)
        return CONVOLUTIONS[dims](padded, oracle_kernel(layer), layer.bias, groups=4)

    assert_equal_to_rounding(layer_answers(layer, input), layer_answers(layer, input, oracle))


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_an_empty_map_cannot_be_continued(padding_mode):
    layer = Dcls2d(2, 2, 3, 1, 4, 5, padding_mode=padding_mode)
    with pytest.raises(ValueError, match=rf"input: expected a map with cells for padding_mode='{padding_mode}'"):
        layer(torch.zeros(1, 2, 0, 5))


@every_dimension
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_without_batch(dims, padding_mode):
    layer, input = make_layer(dims, padding_mode=padding_mode), make_input(dims, batch=1)
    assert_equal_to_rounding({"output": layer(input[0])}, {"output": layer(input)[0]})


def test_an_empty_batch_has_empty_output_and_zero_gradients():
    layer = make_layer()
    output = layer(make_input(batch=0))
    assert output.shape == (0, 4, 7, 6)
    output.sum().backward()
    assert all(parameter.grad.count_nonzero() == 0 for parameter in layer.parameters())


@every_method
def test_channels_last(method):
    layer, input = make_layer(method=method), make_input()
    expected = layer_answers(layer, input)
    last = input.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert_equal_to_rounding(layer_answers(layer, last), expected)
    layer = layer.to(memory_format=torch.channels_last)
    assert_equal_to_rounding(layer_answers(layer, last), expected)


def test_the_layer_is_the_function():
    layer, input = make_layer(), make_input()
    made = (layer.weight, layer.position, layer.sigma, layer.bias)
    assert torch.equal(layer(input), dcls_conv2d(input, *made, 1, "same", layer.dilated_kernel_size, 4, "gaussian"))


def test_arguments_in_order():
    """Those of the PyPI package DCLS, by position."""
    layer = Dcls2d(4, 6, 3, (1, 2), (2, 1), (5, 4), 2, False, "circular", "triangle")
    assert (layer.in_channels, layer.out_channels, layer.kernel_count) == (4, 6, 3)
    assert (layer.stride, layer.padding, layer.dilated_kernel_size) == ((1, 2), (2, 1), (5, 4))
    assert (layer.groups, layer.bias, layer.padding_mode) == (2, None, "circular")
    assert layer.interpolation.name == "triangle"


# Precision


class TestHalfPrecision:
    """Weights in half precision, positions and sigmas in float32: in bfloat16 they would be off by a sixteenth."""

    options: ClassVar = {"dilated_kernel_size": 23, "padding": 11}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("how", ["made", "moved", "moved twice"])
    def test_positions_stay_in_float32(self, dtype, how):
        layer = make_layer(dtype=dtype if how == "made" else torch.float32, **self.options)
        before = layer.position.detach().clone()
        if how != "made":
            layer = layer.to(dtype)
        if how == "moved twice":
            layer = layer.to(torch.float16).to(dtype)
        kinds = {name: parameter.dtype for name, parameter in layer.named_parameters()}
        assert kinds == {"weight": dtype, "position": torch.float32, "sigma": torch.float32, "bias": dtype}
        assert torch.equal(layer.position, before)
        layer(make_input(dtype=dtype)).sum().backward()
        assert {name: parameter.grad.dtype for name, parameter in layer.named_parameters()} == kinds

    def test_gradients_move_as_their_parameters_do(self):
        layer = make_layer(dtype=torch.float32)
        layer(make_input(dtype=torch.float32)).sum().backward()
        before = layer.position.grad.clone()
        layer.to(torch.bfloat16)
        assert layer.position.grad.dtype == layer.sigma.grad.dtype == torch.float32
        assert layer.weight.grad.dtype == torch.bfloat16
        assert torch.equal(layer.position.grad, before)

    def test_float64_reaches_every_parameter(self):
        layer = make_layer(dtype=torch.float32).to(torch.float64)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_the_kernel_is_rounded_once(self, dtype):
        """Half a unit off the oracle, where positions in that dtype are much further off."""
        layer = make_layer(dtype=dtype, **self.options)
        truth = oracle_kernel(layer)
        half_unit = torch.finfo(dtype).eps / 2 * truth.abs()
        assert layer.kernel().dtype == dtype
        assert ((layer.kernel() - truth).abs() <= half_unit + 1e-5 * truth.abs().max()).all()
        coarse = copy.deepcopy(layer)
        coarse.position.data = layer.position.data.bfloat16().float()
        if dtype == torch.bfloat16:
            assert largest(oracle_kernel(coarse) - truth) > 2 * largest(half_unit)

    @every_method
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_forward_is_as_exact_as_torchs_with_the_dense_kernel(self, dtype, method):
        layer, input = make_layer(dtype=dtype, method=method, **self.options), make_input(dtype=dtype)
        truth = CONVOLUTIONS[2](input.double(), oracle_kernel(layer), layer.bias.double(), padding=11, groups=4)
        kernel = oracle_kernel(layer).to(dtype)
        plain = CONVOLUTIONS[2](input, kernel, layer.bias, padding=11, groups=4)
        assert_as_exact_as({"output": layer(input)}, {"output": plain}, {"output": truth})

    @every_method
    def test_autocast(self, method):
        """The kernel is built in float32, to the last bit; the output is bfloat16 and as exact as torch's."""
        layer = make_layer(dtype=torch.float32, method=method, **self.options)
        input = make_input(dtype=torch.float32)
        kernel = oracle_kernel(layer)
        truth = CONVOLUTIONS[2](input.double(), kernel, layer.bias.double(), padding=11, groups=4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = layer.kernel()
            output = layer(input)
            plain = CONVOLUTIONS[2](input, kernel.float(), layer.bias, padding=11, groups=4)
        assert torch.equal(inside, layer.kernel())
        assert largest(layer.kernel() - kernel) < 1e-5
        assert_as_exact_as({"output": output}, {"output": plain}, {"output": truth})
        output.float().sum().backward()
        assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


# What torch does to modules


def test_repr():
    assert repr(Dcls2d(4, 4, 3, dilated_kernel_size=5)) == (
        "Dcls2d(4, 4, kernel_count=3, dilated_kernel_size=(5, 5), interpolation=gaussian)"
    )
    layer = Dcls3d(
        *(4, 8, 3, (1, 2, 1), (0, 1, 2), (1, 3, 5), 4, False, "circular", Profile(cauchy, 0.3, 0.2, "cauchy")),
        learned_dims=(1, 2),
        method="direct",
    )
    assert repr(layer) == (
        "Dcls3d(4, 8, kernel_count=3, dilated_kernel_size=(1, 3, 5), interpolation=cauchy, stride=(1, 2, 1), "
        "padding=(0, 1, 2), groups=4, bias=False, padding_mode=circular, learned_dims=(1, 2), method=direct)"
    )
    assert "padding='same'" in repr(Dcls1d(1, 1, 1, padding="same"))


def through_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


def through_a_file(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make_layer(2, "own" if layer.spread is SPREADS["own"] else "gaussian")
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_a_file])
@pytest.mark.parametrize("spread", ["gaussian", "own"])
def test_copies_are_the_same_layer(through, spread):
    layer, input = make_layer(2, spread), make_input()
    other = through(layer)
    assert repr(other) == repr(layer)
    assert torch.equal(other(input), layer(input))
    with torch.no_grad():
        other.position.add_(0.25)
    assert not torch.equal(other(input), layer(input))


def test_moving_after_a_forward():
    """Nothing about the grid is remembered on the layer."""
    layer = make_layer(dtype=torch.float32)
    layer(make_input(dtype=torch.float32))
    layer = layer.double()
    assert layer(make_input()).dtype == torch.float64
    assert layer.to("meta")(make_input().to("meta")).is_meta


@every_dimension
@every_method
def test_meta_device(dims, method):
    """Made without memory, run without memory, then given some and drawn."""
    layer = make_layer(dims, method=method, dtype=None).to("meta")
    made = LAYERS[dims](4, 4, 3, dilated_kernel_size=5, padding="same", groups=4, device="meta", method=method)
    for each in (layer, made):
        assert all(parameter.is_meta for parameter in each.parameters())
        assert each(torch.empty(2, 4, *(7, 6, 5)[:dims], device="meta")).shape == (2, 4, *(7, 6, 5)[:dims])
        each.clamp_position_()
    real = made.to_empty(device="cpu")
    real.reset_parameters()
    assert real(torch.randn(2, 4, *(7, 6, 5)[:dims])).isfinite().all()


@pytest.mark.compiles
@every_method
@pytest.mark.parametrize(
    ("dims", "spread", "options"),
    [
        (1, "gaussian", {}),
        (2, "bilinear", {"padding_mode": "circular"}),
        (2, "own", {"learned_dims": (1,)}),
        (2, "gaussian", {"dilated_kernel_size": (17, 16)}),
        (3, "triangle", {"bias": False}),
    ],
    ids=str,
)
def test_compile_without_a_break(dims, spread, options, method):
    layer, input = make_layer(dims, spread, method=method, **options), make_input(dims)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_equal_to_rounding(layer_answers(layer, input, compiled), layer_answers(layer, input))


@pytest.mark.compiles
def test_compile_by_inductor():
    layer, input = make_layer(dtype=torch.float32), make_input(dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(layer_answers(layer, input, compiled), layer_answers(layer, input))


@pytest.mark.compiles
def test_compile_for_any_batch():
    layer = make_layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5, 3):
        input = make_input(batch=batch)
        assert_equal_to_rounding({"output": compiled(input)}, {"output": layer(input)})


@pytest.mark.compiles
@every_dimension
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("stride", [1, 2])
def test_export_for_any_batch_and_map(dims, padding_mode, stride):
    """One program for maps larger and smaller than the kernel."""
    options = {"padding": 2, "stride": stride, "padding_mode": padding_mode}
    layer = make_layer(dims, **options)
    example = make_input(dims, batch=3, size=(9, 11, 10)[:dims]).detach()
    free = dict.fromkeys((0, *range(2, 2 + dims)), torch.export.Dim.DYNAMIC)
    program = torch.export.export(layer, (example,), dynamic_shapes=(free,)).module()
    for batch, size in ((2, (9, 11, 10)), (5, (3, 4, 5)), (4, (20, 13, 12)), (3, (2, 3, 2))):
        input = make_input(dims, batch=batch, size=size[:dims]).detach()
        assert_equal_to_rounding({"output": program(input)}, {"output": layer(input)})


@every_method
@pytest.mark.parametrize("dims", [1, 2])
def test_functional_transforms(dims, method):
    """Gradients by functional_call and grad, of every sample by vmap, and forward mode, agree with autograd."""
    layer, input = make_layer(dims, method=method), make_input(dims).detach()
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    cotangent = normal(*input.shape, seed=5).detach()

    def loss(parameters, input, cotangent):
        return (torch.func.functional_call(layer, parameters, (input,)) * cotangent).sum()

    def gradients(input, cotangent):
        output = (layer(input) * cotangent).sum()
        return dict(zip(parameters, torch.autograd.grad(output, layer.parameters()), strict=True))

    def assert_close(actual, expected):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    expected = gradients(input, cotangent)
    assert_close(torch.func.grad(loss)(parameters, input, cotangent), expected)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, input, cotangent)
    by_hand = [gradients(input[n], cotangent[n]) for n in range(len(input))]
    assert_close(each, {name: torch.stack([sample[name] for sample in by_hand]) for name in parameters})

    tangents = {name: normal(*parameter.shape, seed=6).detach() for name, parameter in parameters.items()}
    if method == "native":
        with pytest.raises(ValueError, match="it has no forward-mode derivative"):
            torch.func.jvp(lambda given: loss(given, input, cotangent), (parameters,), (tangents,))
        return
    _, forward = torch.func.jvp(lambda given: loss(given, input, cotangent), (parameters,), (tangents,))
    assert_close(forward, sum((expected[name] * tangents[name]).sum() for name in parameters))


@every_method
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_vmap_of_a_large_kernel(method, memory_format):
    """vmap knows no memory formats, which large kernels and channels_last maps would otherwise ask for."""
    layer = make_layer(dilated_kernel_size=(17, 17), method=method)
    input = torch.randn(3, 2, 4, 14, 14, dtype=torch.float64)
    input = input.flatten(0, 1).contiguous(memory_format=memory_format).unflatten(0, (3, 2))
    torch.testing.assert_close(torch.func.vmap(layer)(input), torch.stack([layer(batch) for batch in input]))


@pytest.mark.compiles
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
def test_compile_for_any_map(padding_mode):
    """More sizes than dynamo makes graphs of."""
    layer = make_layer(dilated_kernel_size=(17, 17), padding_mode=padding_mode)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for side in (40, 7, 23, 14, 31, 3, 17, 28, 11):
        input = torch.randn(2, 4, side, side + 1, dtype=torch.float64)
        assert_equal_to_rounding({"output": compiled(input)}, {"output": layer(input)})


def test_positions_given_as_a_parameter_stay_its_own():
    """A layer that starts from another's positions has copies, and no parameter more."""
    first = Dcls2d(2, 2, 3, dilated_kernel_size=5)
    second = Dcls2d(2, 2, 3, dilated_kernel_size=5, position_init=first.position)
    assert list(second.state_dict()) == list(first.state_dict())
    assert torch.equal(first.position, second.position)
    start = second.position.detach().clone()
    with torch.no_grad():
        first.position.zero_()
    second.reset_parameters()
    assert torch.equal(second.position, start)
    copy.deepcopy(second)


@every_method
def test_double_backward(method):
    """The gradient of a gradient penalty, against central differences along a random direction."""
    layer, input = make_layer(method=method), make_input()

    def penalty():
        (gradient,) = torch.autograd.grad(layer(input).square().sum(), input, create_graph=True)
        return gradient.square().sum()

    direction = normal(*layer.position.shape, seed=8).detach()
    (analytic,) = torch.autograd.grad(penalty(), layer.position)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            layer.position.add_(sign * step * direction)
        values.append(penalty().item())
        with torch.no_grad():
            layer.position.sub_(sign * step * direction)
    numeric = (values[0] - values[1]) / (2 * step)
    assert (analytic * direction).sum().item() == pytest.approx(numeric, rel=1e-6)


def test_two_layers_share_positions():
    """Gradients add up; moving, copying and half precision keep the two tied."""
    model = nn.Sequential(make_layer(), make_layer())
    model[1].position, model[1].sigma = model[0].position, model[0].sigma
    assert len(list(model.parameters())) == 6
    input = make_input()
    model(input).sum().backward()
    gradient = model[0].position.grad.clone()

    parts = []
    for which in (0, 1):
        apart = copy.deepcopy(model)
        apart.zero_grad()
        apart[1].position = nn.Parameter(apart[0].position.detach().clone())
        apart(input).sum().backward()
        parts.append(apart[which].position.grad)
    assert_equal_to_rounding({"output": gradient}, {"output": sum(parts)})

    for moved in (copy.deepcopy(model), model.float(), model.to(torch.bfloat16)):
        assert moved[0].position is moved[1].position
    assert model[0].position.dtype == torch.float32
    assert model[0].position.grad.dtype == torch.float32


# Bad input


@every_dimension
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_channels": 0}, r"in_channels: expected at least 1, got 0"),
        ({"in_channels": 3}, r"in_channels: expected a multiple of groups=2, got 3"),
        ({"in_channels": 2.5}, r"in_channels: expected an integer .*got 2\.5"),
        ({"out_channels": 3}, r"out_channels: expected a multiple of groups=2, got 3"),
        ({"out_channels": True}, r"out_channels: expected an integer .*got True"),
        ({"kernel_count": 0}, r"kernel_count: expected at least 1, got 0"),
        ({"kernel_count": math.nan}, r"kernel_count: expected an integer .*got nan"),
        ({"kernel_count": "iso"}, r"kernel_count: expected an integer .*got 'iso'"),
        ({"dilated_kernel_size": 0}, r"dilated_kernel_size: expected at least 1, got 0"),
        ({"dilated_kernel_size": -5}, r"dilated_kernel_size: expected at least 1, got -5"),
        ({"dilated_kernel_size": math.nan}, r"dilated_kernel_size: expected an integer .*got nan"),
        ({"dilated_kernel_size": math.inf}, r"dilated_kernel_size: expected an integer .*got inf"),
        ({"dilated_kernel_size": 5.5}, r"dilated_kernel_size: expected an integer .*got 5\.5"),
        ({"dilated_kernel_size": False}, r"dilated_kernel_size: expected an integer .*got False"),
        ({"dilated_kernel_size": (5,) * 4}, r"dilated_kernel_size: expected one integer or .*got \(5, 5, 5, 5\)"),
        ({"dilated_kernel_size": None}, r"dilated_kernel_size: expected an integer .*got None"),
        ({"stride": 0}, r"stride: expected at least 1, got 0"),
        ({"stride": math.nan}, r"stride: expected an integer .*got nan"),
        ({"groups": 0}, r"groups: expected at least 1, got 0"),
        ({"padding": -1}, r"padding: expected at least 0, got -1"),
        ({"padding": "full"}, r"padding: expected one of 'same', 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, r"padding: expected numbers with stride \(2,.* as 'same' needs stride 1"),
        ({"padding_mode": "constant"}, r"padding_mode: expected one of 'zeros', .* got 'constant'"),
        ({"padding_mode": None}, r"padding_mode: expected one of .* got None"),
        ({"interpolation": "gauss"}, r"interpolation: .* got 'gauss' \(DCLS's 'gauss' is 'gaussian' here\)"),
        ({"interpolation": "v1"}, r"interpolation: .* got 'v1' \(DCLS's 'v1' is 'bilinear' here\)"),
        ({"interpolation": "lanczos"}, r"interpolation: expected 'bilinear', .* got 'lanczos'$"),
        ({"learned_dims": ()}, r"learned_dims: expected a tuple of different spatial axes .* got \(\)"),
        ({"learned_dims": (0, 0)}, r"learned_dims: expected a tuple of different spatial axes .* got \(0, 0\)"),
        ({"learned_dims": (3,)}, r"learned_dims: expected a tuple of different spatial axes .* got \(3,\)"),
        ({"learned_dims": (-1,)}, r"learned_dims: expected at least 0, got -1"),
        ({"learned_dims": (True,)}, r"learned_dims: expected an integer .*got True"),
        ({"learned_dims": 0}, r"learned_dims: expected a tuple of different spatial axes .* got 0"),
        ({"method": "winograd"}, r"method: expected one of 'auto', .* got 'winograd'"),
        ({"position_init": ("normal", -1)}, r"position_init: .* got \('normal', -1\)"),
    ],
    ids=str,
)
def test_refuses(dims, changed, message):
    good = {"in_channels": 4, "out_channels": 4, "kernel_count": 3, "dilated_kernel_size": 5, "groups": 2}
    LAYERS[dims](**good)
    with pytest.raises(ValueError, match=message):
        LAYERS[dims](**{**good, **changed})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8, 8), r"input: expected 4 channels, got shape \(2, 3, 8, 8\)"),
        ((8, 8), r"input: expected 4 axes \(batch, channels, \*map\), or 3 without batch, got shape \(8, 8\)"),
        ((1, 2, 4, 8, 8), r"input: expected 4 axes .* got shape \(1, 2, 4, 8, 8\)"),
        ((2, 4, 4, 8), r"input: expected a map of at least 5 along axis 0, .* got shape \(2, 4, 4, 8\)"),
        ((2, 4, 8, 3), r"input: expected a map of at least 5 along axis 1, .* got shape \(2, 4, 8, 3\)"),
    ],
    ids=str,
)
def test_refuses_inputs(shape, message):
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=5)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))


def test_a_named_method_that_cannot_run_says_why():
    layer = Dcls2d(4, 4, 3, 2, 2, 5, method="fft")
    with pytest.raises(ValueError, match=r"method: 'fft' cannot run this call: .*stride \(2, 2\).*Use method='auto'"):
        layer(torch.zeros(1, 4, 9, 9))
