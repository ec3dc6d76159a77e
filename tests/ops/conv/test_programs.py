"""Convolutions in other circumstances than a plain call: forked, faked, on a default device, exported and traced."""

import functools

import pytest
import torch
from calls import Call, every_method, oracle
from cases import CPU_METHODS, normal
from torch._subclasses.fake_tensor import FakeTensorMode

from torchdcls import large_kernel_conv2d
from torchdcls.ops.conv import spectrum


@every_method
def test_fake_tensors_leave_nothing_behind(method):
    call = Call((9, 11), (5, 4), "same")
    with FakeTensorMode():
        input, weight = torch.randn(2, 3, 9, 11), torch.randn(3, 1, 5, 4)
        assert large_kernel_conv2d(input, weight, padding="same", groups=3, method=method).shape == input.shape
    call.check(method)


@every_method
def test_a_default_device_of_another_kind(method):
    call = Call((10, 13), (4, 5), "same")
    leaves, expected = call.leaves(), oracle(call)
    spectrum._kept_matrix.cache_clear()
    with torch.device("meta"):
        actual = large_kernel_conv2d(**{n: t.detach() for n, t in leaves.items()}, **call.options(), method=method)
    torch.testing.assert_close(actual, expected["output"].detach())


class Module(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.weight, self.method = torch.nn.Parameter(normal(3, 1, 5, 15).detach()), method

    def forward(self, input):
        return large_kernel_conv2d(input, self.weight, padding="same", groups=3, method=self.method)


def test_compiled_kernels_are_not_exported():
    """A program has to run where this package is not."""
    with pytest.raises(Exception, match="method: 'native' cannot run this call: "):
        torch.export.export(Module("native"), (normal(2, 3, 9, 20).detach(),), strict=False)


@pytest.mark.compiles
@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method != "native"])
@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_take_any_batch(method, strict):
    module, input = Module(method), normal(2, 3, 9, 20).detach()
    program = torch.export.export(module, (input,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    other = normal(5, 3, 9, 20, seed=7).detach()
    torch.testing.assert_close(program.module()(other), module(other))


def test_traced_programs_convolve_directly():
    module, input = Module("auto"), normal(2, 3, 9, 20).detach()
    traced = torch.jit.trace(module, (input,))
    other = normal(2, 3, 12, 17, seed=7).detach()
    torch.testing.assert_close(traced(other), module(other))


@pytest.mark.parametrize("method", [method for method in CPU_METHODS if method != "native"])  # no forward mode
def test_derivatives_of_derivatives_leave_nothing_behind(method):
    """Each transform of torch.func twice, and a plain call at the end."""
    call = Call((9, 11), (5, 4), "same", channels=(3, 3, 3))
    spectrum._kept_matrix.cache_clear()
    input, weight = normal(2, 3, 9, 11).detach(), normal(3, 1, 5, 4, seed=2).detach()

    def loss(input, method=method):
        return large_kernel_conv2d(input, weight, padding="same", groups=3, method=method).pow(3).sum()

    for _ in range(2):
        product, expected = (
            torch.func.jvp(torch.func.grad(functools.partial(loss, method=by)), (input,), (input,))[1]
            for by in (method, "direct")
        )
        torch.testing.assert_close(product, expected)
        torch.testing.assert_close(torch.func.jvp(loss, (input,), (input,))[1], (3 * loss(input)))
    call.check(method)
