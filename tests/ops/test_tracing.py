"""What tracers record computes what the layers and functions do, for maps of any size where the tracer allows it."""

import io

import onnx
import onnxruntime
import pytest
import timm
import torch
from cases import CPU_METHODS
from computed import PARAMETRIZED
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from torchdcls import (
    Dcls1d,
    Dcls2d,
    Dcls3d,
    DclsTranspose1d,
    DclsTranspose2d,
    DclsTranspose3d,
    construct_kernel,
    convert,
    dcls_conv2d,
    dcls_conv_transpose2d,
    large_kernel_conv2d,
    large_kernel_conv_transpose2d,
)

# A warning of torch.jit.trace says that a size or a value has become a constant.
pytestmark = [
    pytest.mark.filterwarnings("error::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*(jit.trace|old onnx|legacy|deprecated|even kernel).*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LAYERS = {
    "1-D": (Dcls1d, {"dilated_kernel_size": 9, "padding": 4}),
    "2-D": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3}),
    "3-D": (Dcls3d, {"dilated_kernel_size": 5, "padding": 2}),
    "bilinear": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3, "interpolation": "bilinear"}),
    "triangle": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3, "interpolation": "triangle"}),
    "even, same": (Dcls2d, {"dilated_kernel_size": (4, 6), "padding": "same"}),
    "stride": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3, "stride": 2}),
    "circular": (Dcls2d, {"dilated_kernel_size": 5, "padding": "same", "padding_mode": "circular"}),
    "a dense axis": (Dcls2d, {"dilated_kernel_size": (3, 7), "padding": (1, 3), "learned_dims": (1,)}),
    "depthwise": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3, "groups": 4}),
    "one element": (Dcls2d, {"dilated_kernel_size": 7, "padding": 3, "kernel_count": 1}),
    "far larger than the map": (Dcls2d, {"dilated_kernel_size": 23, "padding": 11, "groups": 4}),
    "transposed, 1-D": (DclsTranspose1d, {"dilated_kernel_size": 9, "padding": 4}),
    "transposed": (DclsTranspose2d, {"dilated_kernel_size": 7, "padding": 3, "stride": 2, "output_padding": 1}),
    "transposed, 3-D": (DclsTranspose3d, {"dilated_kernel_size": 4, "padding": 1, "groups": 2}),
}
every_layer = pytest.mark.parametrize("case", LAYERS)


def make_layer(case):
    kind, options = LAYERS[case]
    options = {"kernel_count": 3, "position_init": ("uniform", 3.0), "dtype": torch.float64, **options}
    return kind(4, 4, **options)


def maps(dims, *sizes, batch=2):
    return [torch.randn(batch, 4, *size[:dims], dtype=torch.float64) for size in sizes]


@every_layer
@pytest.mark.parametrize("gradients", [True, False])
def test_jit_trace_holds_for_any_map(case, gradients):
    """Also where the layer has kept a kernel; with gradients, of the parameters as they are when it is called."""
    layer = make_layer(case).eval()
    first, *others = maps(layer.dims, (4, 4, 4), (5, 4, 6), (13, 12, 11), (3, 7, 5))
    with torch.set_grad_enabled(gradients):
        layer(first)
        traced = torch.jit.trace(layer, first)
    for images in (first, *others, torch.cat([others[0]] * 2)):
        torch.testing.assert_close(traced(images), layer(images), rtol=1e-12, atol=1e-12)
    if gradients:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.125
        weights = torch.randn_like(layer(others[0]))
        expected = torch.autograd.grad((layer(others[0]) * weights).sum(), list(layer.parameters()))
        made = torch.autograd.grad((traced(others[0]) * weights).sum(), list(traced.parameters()))
        torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # timm's own
def test_a_converted_model_is_traced():
    model = timm.create_model("test_convnext", num_classes=5).eval()
    convert(model, dilated_kernel_size=11, kernel_count=4)
    traced = torch.jit.trace(model, torch.randn(2, 3, 64, 64))
    for images in (torch.randn(1, 3, 64, 64), torch.randn(3, 3, 96, 128)):
        with torch.no_grad():
            torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_traced_file():
    layer = make_layer("2-D")
    first, other = maps(2, (8, 8), (11, 9))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, first), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(other), layer(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("computed", [PARAMETRIZED["weight_norm"], PARAMETRIZED["bounded position"]])
def test_computed_elements_are_traced(computed):
    layer = computed(Dcls2d(4, 4, 3, dilated_kernel_size=7, padding=3, groups=4).double())
    first, other = maps(2, (4, 4), (6, 5))
    torch.testing.assert_close(torch.jit.trace(layer, first)(other), layer(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batched", [True, False])
def test_functions_are_traced(batched):
    """With weights and elements that are inputs; sizes of maps may be others, those of kernels not."""
    weight, bias = torch.randn(4, 2, 5, 4), torch.randn(4)
    elements, position = torch.randn(4, 2, 3), torch.randn(2, 4, 2, 3)
    sigma = torch.rand(2, 4, 2, 3)

    def call(images, weight, bias, elements, position, sigma):
        images = large_kernel_conv2d(images, weight, bias, padding="same", groups=2)
        images = dcls_conv2d(images, elements, position, sigma, padding=2, dilated_kernel_size=5, groups=2)
        images = large_kernel_conv_transpose2d(images, weight, bias, 2, 1, 1, groups=2)
        kernel = construct_kernel(elements, position, sigma, 5)
        images = images + kernel.sum()
        return dcls_conv_transpose2d(images, elements, position, sigma, dilated_kernel_size=(4, 3), groups=2)

    shape = (2, 4) if batched else (4,)
    traced = torch.jit.trace(call, (torch.randn(*shape, 4, 4), weight, bias, elements, position, sigma))
    others = [torch.randn_like(tensor) for tensor in (weight, bias, elements, position, sigma)]
    for size in ((4, 4), (5, 4), (11, 13)):
        images = torch.randn(*shape, *size)
        torch.testing.assert_close(traced(images, *others), call(images, *others), rtol=1e-4, atol=1e-4)


def test_jit_trace_to_the_size_of_another_map():
    """As in a decoder, where it is another with each call: odd and even."""
    layer = make_layer("transposed").requires_grad_(False)
    up = lambda images, skip: layer(images, output_size=skip.shape)  # noqa: E731
    traced = torch.jit.trace(up, maps(2, (4, 5), (8, 9)))
    for small, skip in (((4, 5), (7, 10)), ((6, 3), (12, 5)), ((9, 9), (18, 18))):
        images = maps(2, small, skip)
        assert traced(*images).shape == images[1].shape
        torch.testing.assert_close(traced(*images), up(*images), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"^output_size: expected from \(7, 9\) to \(8, 10\)"):
        torch.jit.trace(up, maps(2, (4, 5), (9, 9)))


@pytest.mark.parametrize("method", [method for method in (*CPU_METHODS, "triton") if method not in ("auto", "direct")])
@pytest.mark.parametrize("case", ["depthwise", "transposed"])
def test_methods_for_one_map_are_not_recorded_for_all(case, method):
    layer = make_layer(case)
    layer.method = method
    with pytest.raises(ValueError, match=rf"^method: '{method}' cannot run this call: torch\.jit\.trace"):
        torch.jit.trace(layer, maps(2, (8, 8)))


def test_wrong_shapes_are_refused_while_tracing():
    """By the same sentences as in a call."""
    with pytest.raises(ValueError, match=r"^input: expected 4 channels, got shape \(2, 3, 8, 8\)"):
        torch.jit.trace(make_layer("2-D"), torch.randn(2, 3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("case", ["1-D", "2-D", "bilinear", "even, same", "stride", "depthwise", "transposed"])
def test_the_old_onnx_exporter(case):
    """With free batch and sizes."""
    layer = make_layer(case).float().eval()
    first, *others = (images.float() for images in maps(layer.dims, (8, 9), (5, 4), (13, 12)))
    free = dict(enumerate(("batch", "channels", "height", "width")[: layer.dims + 2]))
    del free[1]
    file = io.BytesIO()
    torch.onnx.export(
        layer, (first,), file, dynamo=False, input_names=["input"], output_names=["output"], opset_version=17,
        dynamic_axes={"input": free, "output": free},
    )  # fmt: skip
    nodes = [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node]
    assert sum(kind.startswith("Conv") for kind in nodes) == 1
    assert not {"Exp", "MatMul", "Where", "Relu"} & set(nodes)  # the kernel is a constant
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for images in (first, *others, others[0][:1]):
        (output,) = session.run(None, {"input": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), layer(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("case", ["2-D", "bilinear", "depthwise", "far larger than the map", "transposed"])
@pytest.mark.parametrize("gradients", [True, False])
def test_make_fx(case, mode, pre_dispatch, gradients):
    """With elements as inputs, whose values are others later; a symbolic graph holds for other maps."""
    layer = make_layer(case).eval()
    first, other = maps(2, (8, 9), (11, 7))
    leaves = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    changed = {name: leaf + 0.125 for name, leaf in leaves.items()}

    def call(leaves, images):
        return torch.func.functional_call(layer, leaves, (images,))

    with torch.set_grad_enabled(gradients):
        layer(first)
        if not gradients:
            layer(first)  # with the kernel that was kept
        graph = make_fx(call, tracing_mode=mode, pre_dispatch=pre_dispatch)(leaves, first)
        for images in [first, other] if mode == "symbolic" else [first]:
            for elements in (leaves, changed):
                torch.testing.assert_close(graph(elements, images), call(elements, images), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer(first), call(leaves, first), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", CPU_METHODS)
def test_make_fx_of_gradients(method):
    """Forward and backward in one graph, as torch.func makes them."""
    layer = make_layer("depthwise")
    layer.method = method
    (images,) = maps(2, (9, 8))
    leaves = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(leaves, images):
        return torch.func.functional_call(layer, leaves, (images,)).square().sum()

    graph = make_fx(torch.func.grad(loss))(leaves, images)
    changed = {name: leaf + 0.125 for name, leaf in leaves.items()}
    torch.testing.assert_close(graph(changed, images), torch.func.grad(loss)(changed, images), rtol=1e-10, atol=1e-11)


def test_make_fx_of_autograd():
    layer = make_layer("depthwise")
    (images,) = maps(2, (9, 8))
    leaves = [parameter.detach().clone() for parameter in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def gradients(*leaves):
        leaves = [leaf.requires_grad_() for leaf in leaves]
        output = torch.func.functional_call(layer, dict(zip(names, leaves, strict=True)), (images,))
        return torch.autograd.grad(output.square().sum(), leaves)

    graph = make_fx(gradients)(*leaves)
    changed = [leaf.detach() + 0.125 for leaf in leaves]
    torch.testing.assert_close(graph(*changed), gradients(*changed), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("inside", [False, True])
def test_script_says_what_to_do(inside):
    layer = make_layer("2-D")
    with pytest.raises(RuntimeError, match=r"^torch\.jit\.script cannot compile Dcls2d.*torchdcls\.fuse.*jit\.trace$"):
        torch.jit.script(nn.Sequential(nn.ReLU(), layer) if inside else layer)


def test_tracing_leaves_nothing_behind():
    """Calls of the same shapes after a trace, and in between, are plain ones."""
    layer = make_layer("depthwise").eval()
    (images,) = maps(2, (8, 8))
    expected = layer(images)
    torch.jit.trace(layer, images)
    make_fx(layer)(images)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(images), expected, rtol=1e-12, atol=1e-12)
