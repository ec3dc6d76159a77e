"""The transposed layers: torch's own with the dense kernel for a weight, and the adjoint of the plain layers."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from cases import CPU_METHODS, SPREADS, Elements, answers, assert_as_exact_as, assert_equal_to_rounding, normal
from torch import nn

from torchdcls import (
    Dcls1d,
    Dcls2d,
    Dcls3d,
    DclsTranspose1d,
    DclsTranspose2d,
    DclsTranspose3d,
    clamp_positions_,
    dcls_conv_transpose1d,
    dcls_conv_transpose2d,
    dcls_conv_transpose3d,
    param_groups,
    repulsion_loss,
)

LAYERS = {1: DclsTranspose1d, 2: DclsTranspose2d, 3: DclsTranspose3d}
FUNCTIONS = {1: dcls_conv_transpose1d, 2: dcls_conv_transpose2d, 3: dcls_conv_transpose3d}
PLAIN = {1: Dcls1d, 2: Dcls2d, 3: Dcls3d}
TORCHS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
every_method = pytest.mark.parametrize("method", CPU_METHODS)
every_dimension = pytest.mark.parametrize("dims", LAYERS)


def make_layer(dims=2, spread="gaussian", channels=(4, 4, 4), dtype=torch.float64, **options):
    inside, outside, groups = channels
    size = options.pop("dilated_kernel_size", (4, 5, 3)[:dims])
    arguments = {"kernel_count": 3, "position_init": ("uniform", 20.0), "groups": groups, **options}
    interpolation = SPREADS[spread].interpolation
    options = {"dilated_kernel_size": size, "interpolation": interpolation, "dtype": dtype}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of positions beyond the kernel
        layer = LAYERS[dims](inside, outside, **arguments, **options)
    if layer.sigma is not None:
        nn.init.uniform_(layer.sigma, 0.05, 0.4)
    layer.spread = SPREADS[spread]
    return layer


def oracle(layer, beyond=None):
    """Torch's transposed convolution with the oracle's kernel for its weight."""

    def call(input):
        leaves = [None if leaf is None else leaf.double() for leaf in (layer.weight, layer.position, layer.sigma)]
        kernel = Elements(layer.spread, layer.dilated_kernel_size, layer.learned_dims, *leaves).oracle()
        more = layer.output_padding if beyond is None else beyond
        settings = layer.stride, layer.padding, more, layer.groups
        return TORCHS[layer.dims](input, kernel, layer.bias, *settings)

    return call


def layer_answers(layer, input, call=None):
    call = layer if call is None else call
    return answers(lambda: call(input), {"input": input, **dict(layer.named_parameters())})


def make_input(dims=2, channels=4, batch=2, dtype=torch.float64):
    return normal(batch, channels, *(5, 4, 3)[:dims], dtype=dtype)


@pytest.mark.parametrize("spread", SPREADS)
@every_dimension
@every_method
def test_forward_and_every_gradient(dims, spread, method):
    layer, input = make_layer(dims, spread, method=method, padding=1), make_input(dims)
    assert_equal_to_rounding(layer_answers(layer, input), layer_answers(layer, input, oracle(layer)))


@every_dimension
@pytest.mark.parametrize("channels", [(4, 6, 2), (4, 3, 1), (4, 8, 4)], ids=str)
@pytest.mark.parametrize(("stride", "padding", "beyond"), [(1, 2, 0), (2, 0, 1), (3, 1, 2), (2, 3, 0)])
def test_stride_padding_and_output_padding_are_torchs(dims, channels, stride, padding, beyond):
    """With `kernel()` for the weight of torch's function, too."""
    layer = make_layer(dims, channels=channels, stride=stride, padding=padding, output_padding=beyond)
    input = make_input(dims)
    assert_equal_to_rounding(layer_answers(layer, input), layer_answers(layer, input, oracle(layer)))
    plain = TORCHS[dims](input, layer.kernel(), layer.bias, stride, padding, beyond, channels[2])
    assert_equal_to_rounding({"output": layer(input)}, {"output": plain})


@every_dimension
@pytest.mark.parametrize("learned", [None, (0,)])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (3, 0)])
def test_it_is_the_adjoint_of_the_plain_layer(dims, learned, stride, padding):
    """<conv(x), y> = <x, transpose(y)> for layers of the same elements."""
    shared = {"dilated_kernel_size": (4, 5, 3)[:dims], "groups": 2, "bias": False, "learned_dims": learned}
    shared |= {"stride": stride, "padding": padding, "dtype": torch.float64, "position_init": ("uniform", 2.0)}
    forth = PLAIN[dims](4, 6, 3, **shared)
    back = LAYERS[dims](6, 4, 3, **shared)
    back.load_state_dict(forth.state_dict())
    maps = normal(2, 4, *(9, 8, 7)[:dims]).detach()
    small = forth(maps)
    other = normal(*small.shape, seed=4).detach()
    returned = back(other, output_size=maps.shape)
    assert (small * other).sum().item() == pytest.approx((maps * returned).sum().item(), rel=1e-12)


@every_dimension
def test_an_element_moves_the_map_by_its_position(dims):
    """Position 0 is cell `size // 2`, sizes even and odd; along each of torch's axes."""
    size = (4, 7, 6)[:dims]
    for axis in range(dims):
        start = torch.zeros(dims, 1, 1, 1)
        start[axis] = -2
        options = {"padding": tuple(cells // 2 for cells in size), "dilated_kernel_size": size, "bias": False}
        layer = LAYERS[dims](1, 1, 1, **options, interpolation="bilinear", position_init=start)
        nn.init.ones_(layer.weight)
        input = torch.zeros(1, 1, *(9,) * dims)
        input[(0, 0, *(4,) * dims)] = 1
        assert layer(input).round()[0, 0].nonzero().tolist() == [[2 if dim == axis else 4 for dim in range(dims)]]


@every_dimension
@pytest.mark.parametrize("batch", [None, 2, 0])
@pytest.mark.parametrize("whole", [False, True])
def test_output_size(dims, batch, whole):
    """In place of the layer's own output padding; with batch and channels or without, as in torch."""
    layer = make_layer(dims, stride=3, padding=1, output_padding=1)
    input = make_input(dims, batch=batch or 0)
    input = make_input(dims, batch=1)[0] if batch is None else input
    for beyond in ((0, 2, 1)[:dims], (2, 0, 2)[:dims]):
        expected = oracle(layer, beyond)(input)
        output = layer(input, output_size=expected.shape if whole else list(expected.shape[-dims:]))
        assert_equal_to_rounding({"output": output}, {"output": expected})


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((16, 15), r"output_size: expected from \(14, 12\) to \(16, 14\) for a map of \(5, 4\), got \(16, 15\)"),
        ((13, 12), r"output_size: expected from \(14, 12\) to \(16, 14\) .* got \(13, 12\)"),
        ((14, 12, 1), r"output_size: expected 2 sizes, one per axis, or 4 with batch and channels .*got \(14, 12, 1\)"),
        (14, r"output_size: expected 2 sizes.* got 14"),
        ("ab", r"output_size: expected 2 sizes.* got 'ab'"),
        ((14.5, 12), r"output_size: expected from .* got \(14\.5, 12\)"),
        (("14", 12), r"output_size: expected from .* got \('14', 12\)"),
    ],
    ids=str,
)
def test_refuses_output_sizes(size, message):
    layer = make_layer(stride=3, padding=1)
    numbers = isinstance(size, tuple) and not isinstance(size[0], str)
    with pytest.raises(ValueError if numbers else TypeError, match=message) as raised:
        layer(make_input(), output_size=size)
    assert isinstance(raised.value, TypeError) != numbers
    dense = nn.ConvTranspose2d(4, 4, (4, 5), 3, 1, groups=4, dtype=torch.float64)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        dense(make_input(), output_size=size)


def test_parameters_are_torchs_and_start_as_torchs():
    layer = DclsTranspose2d(6, 4, 9, dilated_kernel_size=7, groups=2)
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert shapes == {"weight": (6, 2, 9), "position": (2, 6, 2, 9), "sigma": (2, 6, 2, 9), "bias": (4,)}
    assert layer.kernel().shape == nn.ConvTranspose2d(6, 4, 7, groups=2).weight.shape
    torch.manual_seed(1)
    layer.reset_parameters()
    torch.manual_seed(1)
    dense = nn.ConvTranspose2d(6, 4, 3, groups=2)  # nine taps
    assert torch.equal(layer.weight.flatten(), dense.weight.flatten())
    assert torch.equal(layer.bias, dense.bias)


def test_the_layer_is_the_function():
    for dims in LAYERS:
        layer, input = make_layer(dims, stride=2, padding=1, output_padding=1), make_input(dims)
        made = (layer.weight, layer.position, layer.sigma, layer.bias)
        assert torch.equal(layer(input), FUNCTIONS[dims](input, *made, 2, 1, 1, layer.dilated_kernel_size, 4))


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method != "auto"])
def test_gradcheck_and_gradgradcheck(method):
    layer = make_layer(channels=(2, 2, 2), method=method, padding=1, dilated_kernel_size=(3, 2), kernel_count=2)
    leaves = {"input": normal(1, 2, 2, 3), **dict(layer.named_parameters())}

    def call(input, *parameters):
        given = dict(zip(list(leaves)[1:], parameters, strict=True))
        return torch.func.functional_call(layer, given, (input,))

    assert torch.autograd.gradcheck(call, tuple(leaves.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, tuple(leaves.values()), fast_mode=True)


@every_method
def test_functional_transforms(method):
    """Gradients of every sample by vmap, and forward mode, agree with autograd."""
    layer, input = make_layer(method=method, padding=1), make_input().detach()
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    cotangent = normal(*layer(input).shape, seed=5).detach()

    def loss(parameters, input, cotangent):
        return (torch.func.functional_call(layer, parameters, (input,)) * cotangent).sum()

    def gradients(n):
        output = (layer(input[n]) * cotangent[n]).sum()
        return dict(zip(parameters, torch.autograd.grad(output, layer.parameters()), strict=True))

    by_hand = [gradients(n) for n in range(len(input))]
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, input, cotangent)
    expected = {name: torch.stack([sample[name] for sample in by_hand]) for name in parameters}
    torch.testing.assert_close(each, expected, rtol=1e-12, atol=1e-12)
    tangents = {name: normal(*parameter.shape, seed=6).detach() for name, parameter in parameters.items()}
    if method == "native":
        with pytest.raises(ValueError, match="it has no forward-mode derivative"):
            torch.func.jvp(lambda given: loss(given, input, cotangent), (parameters,), (tangents,))
        return
    _, forward = torch.func.jvp(lambda given: loss(given, input, cotangent), (parameters,), (tangents,))
    torch.testing.assert_close(forward, sum((expected[name].sum(0) * tangents[name]).sum() for name in parameters))


@pytest.mark.compiles
@every_method
@pytest.mark.parametrize(
    ("dims", "options"),
    [(1, {}), (2, {"dilated_kernel_size": (17, 16), "padding": 8}), (2, {"stride": 2, "output_padding": 1}), (3, {})],
    ids=str,
)
def test_compile_without_a_break(dims, options, method):
    if method == "fft" and "stride" in options:
        return
    layer, input = make_layer(dims, method=method, **options), make_input(dims)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_equal_to_rounding(layer_answers(layer, input, compiled), layer_answers(layer, input))


@pytest.mark.compiles
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_compile_for_any_map(stride, dtype):
    layer = make_layer(dilated_kernel_size=(17, 17), dtype=dtype, padding=8, stride=stride, output_padding=stride - 1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for side in (20, 7, 23, 14, 3):
        input = torch.randn(2, 4, side, side + 1, dtype=dtype)
        assert_equal_to_rounding({"output": compiled(input)}, {"output": layer(input)})


@pytest.mark.compiles
@every_dimension
@pytest.mark.parametrize("stride", [1, 2])
def test_export_for_any_batch_and_map(dims, stride):
    layer = make_layer(dims, padding=1, stride=stride, output_padding=stride - 1)
    example = normal(3, 4, *(9, 11, 10)[:dims]).detach()
    free = dict.fromkeys((0, *range(2, 2 + dims)), torch.export.Dim.DYNAMIC)
    program = torch.export.export(layer, (example,), dynamic_shapes=(free,)).module()
    for batch, size in ((2, (9, 11, 10)), (5, (3, 4, 5)), (4, (12, 7, 6))):
        input = normal(batch, 4, *size[:dims]).detach()
        assert_equal_to_rounding({"output": program(input)}, {"output": layer(input)})


@pytest.mark.compiles
def test_compile_to_the_size_of_another_map():
    """As the way up of a decoder: odd and even sizes, each from a map of half as many cells."""
    layer = make_layer(stride=2, padding=1)
    call = lambda input, skip: layer(input, output_size=skip.shape)  # noqa: E731
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=True)
    for height, width in ((10, 11), (20, 13), (11, 31), (21, 20)):
        input, skip = (torch.randn(2, 4, *size).double() for size in ((height // 2, (width - 1) // 2), (height, width)))
        assert_equal_to_rounding({"output": compiled(input, skip)}, {"output": call(input, skip)})


@every_method
def test_channels_last(method):
    layer, input = make_layer(method=method, padding=1), make_input()
    last = input.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert_equal_to_rounding(layer_answers(layer, last), layer_answers(layer, input))


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_positions_and_is_as_exact_as_torchs(dtype, method):
    layer = make_layer(dtype=torch.float32, method=method, dilated_kernel_size=13, padding=6)
    before = layer.position.detach().clone()
    layer = layer.to(dtype)
    assert layer.weight.dtype == dtype
    assert torch.equal(layer.position, before)
    input = make_input(dtype=dtype)
    exact = copy.deepcopy(layer).double()
    truth = oracle(exact)(input.double())
    plain = F.conv_transpose2d(input, layer.kernel(), layer.bias, 1, 6, 0, 4)
    assert_as_exact_as({"output": layer(input)}, {"output": plain}, {"output": truth})


def through_a_file(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make_layer(stride=2, output_padding=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("through", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), through_a_file])
def test_copies_are_the_same_layer(through):
    layer, input = make_layer(stride=2, output_padding=1), make_input()
    other = through(layer)
    assert repr(other) == repr(layer)
    assert torch.equal(other(input), layer(input))


def test_a_layer_in_evaluation_keeps_its_kernel_until_an_element_changes():
    layer, input = make_layer().eval(), make_input().detach()
    with torch.no_grad():
        before = layer(input)
        assert layer._kept_kernel() is layer._kept_kernel()
        layer.position.add_(0.25)
        assert not torch.equal(layer(input), before)


def test_the_helpers_of_training_know_it():
    layer = DclsTranspose2d(4, 4, 5, dilated_kernel_size=9, interpolation="bilinear")
    model = nn.Sequential(nn.Conv2d(4, 4, 3), layer)
    fast = [group for group in param_groups(model, lr=1.0, weight_decay=0.1) if group["lr"] == 5.0]
    assert [id(parameter) for group in fast for parameter in group["params"]] == [id(layer.position)]
    assert repulsion_loss(model) > 0
    with torch.no_grad():
        layer.position.mul_(1000)
    clamp_positions_(model)
    assert layer.position.abs().max() == 4


def test_repr():
    layer = DclsTranspose2d(4, 6, 3, 2, 1, 1, (5, 4), 2, False, "zeros", "triangle")
    assert repr(layer) == (
        "DclsTranspose2d(4, 6, kernel_count=3, dilated_kernel_size=(5, 4), interpolation=triangle, stride=(2, 2), "
        "padding=(1, 1), groups=2, bias=False, output_padding=(1, 1))"
    )


@every_dimension
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_channels": 3}, r"in_channels: expected a multiple of groups=2, got 3"),
        ({"out_channels": 3}, r"out_channels: expected a multiple of groups=2, got 3"),
        ({"stride": 0}, r"stride: expected at least 1, got 0"),
        ({"padding": -1}, r"padding: expected at least 0, got -1"),
        ({"padding": "same"}, r"padding: expected an integer of at least 0, got 'same'"),
        ({"output_padding": 1}, r"output_padding: expected less than stride \(1,.* got \(1,"),
        ({"output_padding": 2, "stride": 2}, r"output_padding: expected less than stride \(2,.* got \(2,"),
        ({"output_padding": 0.5}, r"output_padding: expected an integer .*got 0\.5"),
        ({"padding_mode": "circular"}, r"padding_mode: expected one of 'zeros', got 'circular'"),
        ({"method": "winograd"}, r"method: expected one of 'auto', .* got 'winograd'"),
    ],
    ids=str,
)
def test_refuses(dims, changed, message):
    good = {"in_channels": 4, "out_channels": 4, "kernel_count": 3, "dilated_kernel_size": 5, "groups": 2}
    LAYERS[dims](**good)
    with pytest.raises(ValueError, match=message):
        LAYERS[dims](**{**good, **changed})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stride", 1, r"output_padding: expected less than stride \(1, 1\) along each axis, got \(1, 1\)"),
        ("output_padding", 2, r"output_padding: expected less than stride \(2, 2\)"),
        ("padding", "same", r"padding: expected an integer of at least 0, got 'same'"),
        ("padding_mode", "circular", r"padding_mode: expected one of 'zeros', got 'circular'"),
        ("interpolation", "bilinear", r"interpolation: expected one with sigma, as 'gaussian', .* got 'bilinear'"),
        ("version", "v1", r"version: expected interpolation='bilinear', got version='v1'"),
    ],
    ids=str,
)
def test_refuses_settings_of_a_layer_that_is_made(name, value, message):
    layer = DclsTranspose2d(4, 4, 3, 2, output_padding=1, dilated_kernel_size=5)
    before = repr(layer)
    with pytest.raises(ValueError, match=message):
        setattr(layer, name, value)
    assert repr(layer) == before


@every_dimension
def test_settings_assigned_later_are_as_those_given(dims):
    layer, input = make_layer(dims), make_input(dims)
    other = make_layer(dims, stride=3, padding=1, output_padding=2)
    other.load_state_dict(layer.state_dict())
    layer.stride, layer.padding, layer.output_padding = 3, 1, 2
    assert repr(layer) == repr(other)
    assert torch.equal(layer(input), other(input))


def test_a_named_method_that_cannot_run_says_why():
    layer = DclsTranspose2d(4, 4, 3, 2, 2, dilated_kernel_size=5, method="fft")
    with pytest.raises(ValueError, match=r"method: 'fft' cannot run this call: .*stride \(2, 2\).*Use method='auto'"):
        layer(torch.zeros(1, 4, 9, 9))
