"""What is returned is the caller's own: it may be changed in place, as after torch's convolutions."""

import itertools

import pytest
import torch
from calls import Call
from cases import CPU_METHODS, assert_equal_to_rounding, normal
from test_transpose import Call as Transposed
from torch import nn

from torchdcls import Dcls1d, Dcls2d, Dcls3d, DclsTranspose2d, construct_kernel
from torchdcls.ops.conv import large_kernel_conv, large_kernel_conv_transpose

MAPS = {1: (19,), 2: (7, 9), 3: (4, 3, 5)}
KERNELS = {1: (17,), 2: (15, 15), 3: (3, 5, 3)}
CHANGES = {
    "mul_": lambda output: output.mul_(3),
    "silu": nn.SiLU(inplace=True),
    "add_": lambda output: output.__iadd__(output.detach().sin()),
    "zero_": lambda output: output[:, :1].zero_(),
}


def call_of(dims, transposed, depthwise):
    kernel = KERNELS[dims]
    channels = (2, 2, 2) if depthwise else (2, 4, 1)
    padding = tuple(taps // 2 for taps in kernel)
    if transposed:
        return Transposed(MAPS[dims], kernel, 1, padding, channels=channels), large_kernel_conv_transpose
    return Call(MAPS[dims], kernel, padding, channels=channels), large_kernel_conv


# Dimensions, transposed or not, a filter for each channel or not, and every method that can run it.
ABLE = [
    (*kind, method)
    for kind in itertools.product((1, 2, 3), (False, True), (True, False))
    for method in CPU_METHODS
    if not call_of(*kind)[0].defeats(method)
]


@pytest.mark.parametrize(("dims", "transposed", "depthwise", "method"), ABLE)
def test_an_output_may_be_changed_in_place(dims, transposed, depthwise, method):
    call, convolve = call_of(dims, transposed, depthwise)
    for with_bias in (True, False):
        for batch in ((2,), ()):
            leaves = call.leaves() | {"input": normal(*batch, 2, *MAPS[dims])}
            if not with_bias:
                del leaves["bias"]
            for change in CHANGES.values():
                outputs = [convolve(**leaves, **call.options(), method=method) for _ in range(2)]
                # Torch's answer to the same change of what is no view of anything.
                plain = outputs[1] * 1
                for output in (outputs[0], plain):
                    change(output)
                made = [
                    torch.autograd.grad(output.square().sum(), list(leaves.values())) for output in (outputs[0], plain)
                ]
                answers = [
                    {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}
                    for output, gradients in zip((outputs[0], plain), made, strict=True)
                ]
                assert_equal_to_rounding(*answers)


@pytest.mark.parametrize("method", CPU_METHODS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients_may_be_changed_in_place(dims, method):
    call, convolve = call_of(dims, False, True)
    leaves = call.leaves()
    output = convolve(**leaves, **call.options(), method=method)
    gradients = torch.autograd.grad(output.square().sum(), list(leaves.values()), create_graph=True)
    wanted = torch.autograd.grad(
        sum((3 * gradient).sum() for gradient in gradients), list(leaves.values()), retain_graph=True
    )
    made = torch.autograd.grad(sum(gradient.mul_(3).sum() for gradient in gradients), list(leaves.values()))
    assert_equal_to_rounding(
        *({"output": output.detach(), **dict(zip(leaves, each, strict=True))} for each in (made, wanted))
    )


@pytest.mark.parametrize("method", ["auto", "fft"])
def test_a_layer_trains_with_an_in_place_activation(method):
    torch.manual_seed(0)
    layer = Dcls2d(8, 8, 12, dilated_kernel_size=51, padding=25, groups=8, method=method)
    input = torch.randn(1, 8, 80, 80)
    gradients = []
    for inplace in (True, False):
        layer.zero_grad()
        nn.Sequential(layer, nn.SiLU(inplace=inplace))(input).square().sum().backward()
        gradients.append({"output": input, **{name: leaf.grad for name, leaf in layer.named_parameters()}})
    assert_equal_to_rounding(*gradients)


@pytest.mark.parametrize("size", [(9, 9), (3, 9), (9, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("learned_dims", [None, (0,), (1,)])
@pytest.mark.parametrize("count", [1, 4])
def test_a_kernel_may_be_changed_in_place(size, learned_dims, count):
    learned = [size[dim] for dim in learned_dims or (0, 1)]
    count = count if max(learned) > 1 else 1  # one cell is for one element
    layer = Dcls2d(2, 2, count, dilated_kernel_size=size, groups=2, learned_dims=learned_dims)
    leaves = list(layer.parameters())[:2]
    kernel = layer.kernel()
    wanted = torch.autograd.grad((2 * kernel).square().sum(), leaves)
    changed = layer.kernel().mul_(2)
    assert torch.equal(changed, 2 * kernel)
    for made, right in zip(torch.autograd.grad(changed.square().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(made, right)


def test_kernels_of_other_dimensions_may_be_changed_in_place():
    for layer in (Dcls1d(2, 2, 3, dilated_kernel_size=9), Dcls3d(2, 2, 3, dilated_kernel_size=5)):
        layer.kernel().mul_(2).sum().backward()
        assert layer.weight.grad.abs().sum() > 0
    weight, position = torch.ones(1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1, 1)
    construct_kernel(weight, position, None, 1, "bilinear").mul_(2).sum().backward()
    assert weight.item() == 1 and weight.grad.item() == pytest.approx(2)


@pytest.mark.parametrize("kind", [Dcls2d, DclsTranspose2d])
@pytest.mark.parametrize("size", [1, 5, 15])
def test_what_a_layer_keeps_is_its_own(kind, size):
    layer = kind(2, 2, min(size, 3), dilated_kernel_size=size, padding=size // 2, groups=2).eval()
    input = torch.randn(1, 2, 9, 9)
    with torch.no_grad():
        first = layer(input)
        kept = first.clone()
        first.zero_()
        layer.kernel().zero_()
        assert torch.equal(layer(input), kept)
