"""The Triton method: the same tests on a GPU, or on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1)."""

import itertools
import mmap
from functools import partial

import pytest
import torch
from calls import LARGE_KERNEL_CONVOLUTIONS, Call, oracle
from cases import answers, assert_as_exact_as, assert_equal_to_rounding, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from torchdcls import Dcls1d, Dcls2d, large_kernel_conv2d, large_kernel_conv_transpose2d
from torchdcls.ops.conv.triton import Banded, BandedWeightGradient, Multiplied, pinned
from torchdcls.ops.conv.triton.configurations import Sizes, for_output, for_weight_gradient
from torchdcls.ops.gpu import interpreted

pytest.importorskip("triton")
if not (torch.cuda.is_available() or interpreted()):
    pytest.skip("neither a GPU nor Triton's interpreter (TRITON_INTERPRET=1)", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter's matrix products of bfloat16 are wrong; its sums of products are right.
HALF = [torch.float16] if interpreted() else [torch.float16, torch.bfloat16]

# Blocks of each kind: one channel and several, more patches than there are, patches of several rows, of one.
OUTPUTS = {
    "patches of a row": Banded(4, 2, 1, 16, 1, 16, 16),
    "patches of rows": Banded(4, 2, 1, 16, 8, 8, 16),
    "patches of channels": Banded(4, 2, 4, 32, 2, 16, 16),
    "small patches, wide chunks": Banded(4, 2, 2, 64, 4, 4, 32),
    "taps": Multiplied(4, 1, 1, 32),
    "taps of channels": Multiplied(4, 1, 4, 16),
}
WEIGHT_GRADIENTS = {
    "one channel": BandedWeightGradient(4, 2, 1, 16, 2, 8, 32),
    "channels": BandedWeightGradient(4, 2, 4, 32, 4, 8, 16),
    "wide chunks": BandedWeightGradient(4, 2, 2, 16, 8, 4, 64),
}
DEPTHWISE = (3, 3, 3)
SIZES = [
    Call((7,), (5,), 2, channels=DEPTHWISE),
    Call((40,), (31,), "same", channels=(2, 2, 2)),
    Call((3,), (7,), 3, channels=DEPTHWISE),
    Call((8,), (3,), 5, channels=DEPTHWISE),
    Call((7, 7), (5, 5), 2, channels=DEPTHWISE),
    Call((5, 18), (4, 3), "same", channels=DEPTHWISE),
    Call((20, 3), (2, 6), "same", channels=DEPTHWISE),
    Call((3, 3), (7, 7), 3, channels=DEPTHWISE),
    Call((1, 1), (5, 5), "same", channels=DEPTHWISE),
    Call((5, 4), (5, 4), "valid", channels=DEPTHWISE),
    Call((5, 4), (3, 3), (2, 0), channels=DEPTHWISE),
    Call((4, 4), (3, 3), 4, channels=DEPTHWISE),
    Call((6, 5), (1, 1), channels=DEPTHWISE),
    Call((9, 8), (5, 4), 2, channels=(1, 1, 1), batch=(1,)),
    Call((6, 5), (3, 3), 1, channels=(5, 5, 5), batch=()),
]
every_size = pytest.mark.parametrize("call", SIZES, ids=lambda call: f"{call.map}-{call.kernel}-{call.padding}")


def here(leaves):
    """The leaves on the device under test."""
    return {name: leaf.detach().to(DEVICE).requires_grad_() for name, leaf in leaves.items()}


def run(call, leaves):
    return {name: tensor.cpu() for name, tensor in call.run(leaves, "triton").items()}


# The oracle


@pytest.mark.parametrize("output", OUTPUTS)
@every_size
def test_output_and_gradient_of_input_are_the_oracles(call, output):
    with pinned(output=OUTPUTS[output]):
        assert_equal_to_rounding(run(call, here(call.leaves())), oracle(call))


@pytest.mark.parametrize("gradient", WEIGHT_GRADIENTS)
@every_size
def test_gradient_of_weight_is_the_oracles(call, gradient):
    with pinned(weight_gradient=WEIGHT_GRADIENTS[gradient]):
        assert_equal_to_rounding(run(call, here(call.leaves())), oracle(call))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    map=st.lists(st.integers(1, 19), min_size=1, max_size=2),
    kernel=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    padding=st.lists(st.integers(0, 9), min_size=2, max_size=2),
    samples=st.integers(1, 3),
    channels=st.integers(1, 5),
    last=st.booleans(),
)
def test_any_sizes_are_torchs(map, kernel, padding, samples, channels, last):
    kernel, padding = tuple(kernel[: len(map)]), tuple(padding[: len(map)])
    map = tuple(max(size, taps - 2 * pad) for size, taps, pad in zip(map, kernel, padding, strict=True))
    call = Call(map, kernel, padding, channels=(channels,) * 3, batch=(samples,))
    leaves = call.leaves()
    expected = call.torch(leaves)
    if last:
        leaves["input"] = leaves["input"].detach().movedim(1, -1).contiguous().movedim(-1, 1)
    assert_equal_to_rounding(run(call, here(leaves)), expected)


CANDIDATES = [
    Call((14, 14), (9, 9), "same", channels=(2, 2, 2)),
    Call((7, 7), (5, 7), "same", channels=(2, 2, 2)),
    Call((20, 18), (5, 5), "same", channels=(3, 3, 3), batch=(1,)),
    Call((70,), (9,), "same", channels=(2, 2, 2)),
]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("call", CANDIDATES, ids=str)
def test_every_configuration_that_may_be_chosen(call, last):
    """What a launch would be measured with."""
    leaves = here(call.leaves(torch.float32))
    expected = {name: tensor.float() for name, tensor in oracle(call).items()}
    map, kernel = ((1,) * (2 - len(size)) + size for size in (call.map, call.kernel))
    sizes = Sizes(*call.batch, call.channels[0], map, map, (0, 0), kernel)
    outputs, gradients = (make(sizes, torch.float32, last) for make in (for_output, for_weight_gradient))
    for output, gradient in itertools.zip_longest(outputs, gradients):
        with pinned(output=output, weight_gradient=gradient):
            assert_equal_to_rounding(run(call, leaves), expected)


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize(
    "call",
    [
        Call((14, 14), (23, 23), "same", channels=(2, 2, 2)),
        Call((7, 7), (13, 13), "same", channels=(4, 4, 4), batch=(16,)),
        Call((3, 60), (3, 31), "same", channels=(2, 2, 2)),
    ],
    ids=str,
)
def test_as_exact_as_torchs(call, dtype):
    leaves = call.leaves(dtype)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    assert_as_exact_as(run(call, here(leaves)), call.torch(leaves), truth)


@pytest.mark.parametrize("output", ["taps", "taps of channels"])
def test_bfloat16_one_tap_after_the_other(output):
    """Which the interpreter can, and rounds down where GPUs round to nearest: twice the error, in one rounding."""
    call = Call((14, 14), (9, 9), "same", channels=(2, 2, 2))
    leaves = {name: leaf.detach() for name, leaf in call.leaves(torch.bfloat16).items()}
    truth = call.torch({name: leaf.double().requires_grad_() for name, leaf in leaves.items()})["output"]
    with torch.no_grad(), pinned(output=OUTPUTS[output]):
        made = large_kernel_conv2d(**here(leaves), **call.options(), method="triton").cpu()
    assert made.dtype == torch.bfloat16
    assert (made - truth).abs().max() <= 2 * torch.finfo(torch.bfloat16).eps * truth.abs().max()


def test_autocast_gives_torchs_dtype_and_is_as_exact():
    """In float16, as the interpreter knows it."""
    call = Call((16, 16), (9, 9), "same")
    leaves = call.leaves(torch.float32)
    truth = call.torch({name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()})
    plain = call.torch({name: leaf.detach().half().requires_grad_() for name, leaf in leaves.items()})
    with torch.autocast(DEVICE, torch.float16):
        actual = run(call, here(leaves))
    assert actual["output"].dtype == torch.float16
    assert {actual[name].dtype for name in leaves} == {torch.float32}
    output = ({"output": answer["output"]} for answer in (actual, plain, truth))
    assert_as_exact_as(*output)


def test_two_runs_give_the_same_bits():
    call = Call((12, 17), (7, 5), "same", batch=(3,))
    leaves = here(call.leaves(torch.float32))
    first, second = run(call, leaves), run(call, leaves)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_whichever_configuration_is_the_fastest_the_kernels_gradient_has_the_same_bits(dtype):
    call = Call((9, 17), (7, 5), "same", channels=(16, 16, 16), batch=(3,))
    input = channels_last(normal(3, 16, 9, 17).detach().to(DEVICE, dtype))
    weight = normal(16, 1, 7, 5, seed=1).detach().to(DEVICE, dtype).requires_grad_()
    sizes = Sizes(3, 16, (9, 17), (9, 17), (3, 2), (7, 5))
    gradients = []
    for blocks in for_weight_gradient(sizes, dtype, True):
        with pinned(weight_gradient=blocks):
            output = large_kernel_conv2d(input, weight, **call.options(), method="triton")
            gradients += torch.autograd.grad(output, weight, channels_last(torch.ones_like(output)))
    assert len(gradients) > 1
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


# Layouts


def channels_last(tensor):
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def every_second(tensor):
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def transposed(tensor):
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize("layout", [channels_last, every_second, transposed])
@pytest.mark.parametrize("argument", ["input", "weight"])
@pytest.mark.parametrize("call", [Call((7, 18), (3, 5), "same", channels=(4, 4, 4)), Call((9,), (4,), "same")], ids=str)
def test_layout_does_not_matter(call, argument, layout):
    leaves = call.leaves()
    scattered = {**leaves, argument: layout(leaves[argument].detach())}
    assert_equal_to_rounding(run(call, here(scattered)), oracle(call))


def test_expanded_inputs():
    """A stride of 0: one image, seen as a batch."""
    call = Call((6, 5), (3, 4), "same")
    leaves = call.leaves()
    leaves["input"] = normal(1, 2, 6, 5).detach().expand(2, -1, -1, -1)
    expected = call.torch({name: leaf.detach().requires_grad_() for name, leaf in leaves.items()})
    leaves = {name: leaf.detach().to(DEVICE) for name, leaf in leaves.items()}
    output = large_kernel_conv2d(**leaves, **call.options(), method="triton")
    torch.testing.assert_close(output.cpu(), expected["output"])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_formats_stay(memory_format):
    input = torch.randn(2, 4, 9, 8, device=DEVICE).to(memory_format=memory_format).requires_grad_()
    output = large_kernel_conv2d(input, torch.randn(4, 1, 5, 5, device=DEVICE), None, 1, 2, 4, method="triton")
    output.backward(torch.ones_like(output))
    assert output.is_contiguous(memory_format=memory_format)
    assert input.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("loss", ["sum", "mean of maps", "another format"])
def test_gradients_have_their_inputs_format_whatever_the_loss(loss, memory_format):
    input = torch.randn(2, 4, 9, 8, device=DEVICE).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(4, 1, 5, 5, device=DEVICE)
    gradients = {}
    for method in ("triton", "direct"):
        output = large_kernel_conv2d(input, weight, None, 1, 2, 4, method=method)
        if loss == "another format":
            other = torch.contiguous_format if memory_format == torch.channels_last else torch.channels_last
            cotangent = torch.ones_like(output).to(memory_format=other)
        else:
            to_pooled = output.sum() if loss == "sum" else output.mean((2, 3)).sum()
            (cotangent,) = torch.autograd.grad(to_pooled, output, retain_graph=True)
        (gradients[method],) = torch.autograd.grad(output, input, cotangent)
    assert gradients["triton"].is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(gradients["triton"], gradients["direct"])


@pytest.mark.parametrize("far", ["sample", "channel", "row"])
def test_offsets_beyond_32_bits(far):
    """A cell that lies 2**31 from the first, by strides of 32 bits, in memory of which hardly any is touched."""
    distance = 2**30
    strides = {"sample": (distance, 25, 5, 1), "channel": (25, distance, 5, 1), "row": (30, 15, distance, 1)}[far]
    shape = {"sample": (3, 1, 5, 5), "channel": (1, 3, 5, 5), "row": (1, 2, 3, 5)}[far]
    bytes = 2 * (2 * distance + 100)
    if DEVICE == "cuda":
        memory = torch.empty(bytes // 2, dtype=torch.float16, device=DEVICE)
    else:
        memory = torch.frombuffer(mmap.mmap(-1, bytes), dtype=torch.float16)
    input = memory.as_strided(shape, strides)
    input.copy_(normal(*shape, seed=1).detach())
    weight = normal(shape[1], 1, 3, 3, seed=2).detach().half().to(DEVICE).requires_grad_()
    options = {"padding": 1, "groups": shape[1]}
    output = large_kernel_conv2d(input, weight, **options, method="triton")
    (to_weight,) = torch.autograd.grad(output.sum(), weight)
    plain = input.contiguous()
    wanted = large_kernel_conv2d(plain, weight, **options, method="triton")
    assert torch.equal(output, wanted)
    assert torch.equal(to_weight, *torch.autograd.grad(wanted.sum(), weight))


def test_spectra_on_this_device():
    """What `auto` takes on CUDA for longer kernels."""
    call = Call((20, 18), (9, 9), "same", channels=(3, 3, 3))
    actual = {name: tensor.cpu() for name, tensor in call.run(here(call.leaves()), "fft").items()}
    assert_equal_to_rounding(actual, oracle(call))


# Derivatives


@pytest.mark.parametrize(
    "call",
    [
        Call((4,), (3,), "same", batch=(1,)),
        Call((2, 2), (2, 3), "same", batch=(1,)),
        Call((2, 3), (3, 2), 2, channels=(1, 1, 1), batch=(1,)),
    ],
    ids=str,
)
def test_gradcheck_and_gradgradcheck(call):
    convolve, leaves = LARGE_KERNEL_CONVOLUTIONS[len(call.kernel)], here(call.leaves())

    def convolved(*tensors):
        return convolve(*tensors, **call.options(), method="triton")

    assert torch.autograd.gradcheck(convolved, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(convolved, tuple(leaves.values()), fast_mode=True)


@pytest.mark.filterwarnings("error:There is a performance drop")
def test_gradients_of_samples():
    """By vmap, in one launch."""
    input, weight = (normal(*size).detach().to(DEVICE) for size in ((3, 2, 4, 4), (2, 1, 3, 3)))

    def loss(sample, weight, method):
        return large_kernel_conv2d(sample, weight, padding=1, groups=2, method=method).square().sum()

    each = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(0, None, None))
    torch.testing.assert_close(each(input, weight, "triton"), each(input, weight, "direct"))


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.parametrize("mapped", [(0, None, None), (None, 1, None), (1, 0, 0), (None, None, 0)])
def test_many_inputs_or_kernels_at_once(mapped):
    """By vmap: as if one after the other."""
    sizes = (2, 3, 5, 4), (3, 1, 3, 3), (3,)
    leaves = []
    for number, (size, axis) in enumerate(zip(sizes, mapped, strict=True)):
        size = size if axis is None else (*size[:axis], 5, *size[axis:])
        leaves.append(normal(*size, seed=number).detach().to(DEVICE))

    def convolved(input, weight, bias, method="triton"):
        output = large_kernel_conv2d(input, weight, bias, padding=1, groups=3, method=method)
        return output, output.square().sum()

    def trained(method):
        gradient = torch.func.grad(lambda *leaves: convolved(*leaves, method)[1], argnums=(0, 1, 2))
        return torch.func.vmap(gradient, mapped)(*leaves)

    actual, _ = torch.func.vmap(convolved, mapped)(*leaves)
    one_by_one = [
        [leaf if axis is None else leaf.select(axis, index) for leaf, axis in zip(leaves, mapped, strict=True)]
        for index in range(5)
    ]
    torch.testing.assert_close(actual, torch.stack([convolved(*one, "direct")[0] for one in one_by_one]))
    torch.testing.assert_close(trained("triton"), trained("direct"))


def test_forward_mode_is_refused():
    input, weight = (normal(*size).detach().to(DEVICE) for size in ((1, 2, 4, 4), (2, 1, 3, 3)))

    def convolved(input):
        return large_kernel_conv2d(input, weight, groups=2, method="triton")

    with pytest.raises(ValueError, match="method: 'triton' cannot run this call: it has no forward-mode derivative"):
        torch.func.jvp(convolved, (input,), (input,))


# Compilers


@pytest.mark.compiles
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_operators_are_what_they_say(memory_format):
    input = torch.randn(2, 3, 6, 5, device=DEVICE).to(memory_format=memory_format)
    weight, bias = torch.randn(3, 1, 3, 3, device=DEVICE), torch.randn(3, device=DEVICE)
    gradient = torch.randn(2, 3, 6, 5, device=DEVICE).to(memory_format=memory_format)
    operators, sizes = torch.ops.torchdcls, ([1, 1], [1, 1])
    torch.library.opcheck(operators.triton_convolve, (input, weight, bias, *sizes, [6, 5]))
    torch.library.opcheck(operators.triton_convolve, (input, weight, None, *sizes, [6, 5]))
    output = operators.triton_convolve(input, weight, bias, *sizes, [6, 5])
    assert output.is_contiguous(memory_format=memory_format)
    torch.library.opcheck(operators.triton_transpose, (gradient, weight, *sizes, [6, 5]))
    torch.library.opcheck(operators.triton_correlate, (input, gradient, *sizes, [3, 3]))


@pytest.mark.compiles
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiles_into_one_graph(memory_format, backend):
    layer = Dcls2d(4, 4, 2, dilated_kernel_size=5, padding="same", groups=4, method="triton").to(DEVICE)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for batch in (2, 3):
        input = torch.randn(batch, 4, 6, 7, device=DEVICE).to(memory_format=memory_format).requires_grad_()
        leaves = {"input": input, **dict(layer.named_parameters())}
        expected, actual = (answers(partial(run, leaves["input"]), leaves) for run in (layer, compiled))
        torch.testing.assert_close(actual, expected)


# Layers


def test_delays_of_neurons():
    """One axis, each neuron with a delay of its own."""
    layer = Dcls1d(3, 3, 1, dilated_kernel_size=9, groups=3, bias=False, method="triton").to(DEVICE)
    spikes = torch.randn(2, 3, 20, device=DEVICE, requires_grad=True)
    leaves = {"input": spikes, **dict(layer.named_parameters())}
    actual = answers(lambda: layer(spikes), leaves)
    layer.method = "direct"
    torch.testing.assert_close(actual, answers(lambda: layer(spikes), leaves))


# Transposed


@pytest.mark.parametrize("padding", [0, 2, (1, 4)])
def test_transposed(padding):
    """The transposed convolution is the program of the input's gradient; its gradients are the other two."""
    leaves = {
        "input": normal(2, 3, 7, 9, seed=1, dtype=torch.float64),
        "weight": normal(3, 1, 5, 9, seed=2, dtype=torch.float64),
        "bias": normal(3, seed=3, dtype=torch.float64),
    }
    expected = answers(lambda: torch.nn.functional.conv_transpose2d(**leaves, padding=padding, groups=3), leaves)
    moved = here(leaves)
    call = partial(large_kernel_conv_transpose2d, **moved, padding=padding, groups=3, method="triton")
    for name, tensor in answers(call, moved).items():
        torch.testing.assert_close(tensor.cpu(), expected[name], rtol=1e-10, atol=1e-10)
