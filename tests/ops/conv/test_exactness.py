"""What each method keeps of torch's answer beyond rounding: signs, exact zeros, and NaN where it is."""

import itertools

import pytest
import torch

from torchdcls import explain_method
from torchdcls.ops.conv import large_kernel_conv, large_kernel_conv_transpose

SIZES = {1: ((40,), (13,)), 2: (((20, 22), (13, 15))), 3: ((6, 5, 7), (3, 3, 5))}
KEEP_SIGNS = ("direct",)
every_kind = pytest.mark.parametrize(("dims", "transposed"), list(itertools.product(SIZES, (False, True))))


def convolved(dims, transposed, method, input, weight):
    convolve = large_kernel_conv_transpose if transposed else large_kernel_conv
    return convolve(input, weight, padding=tuple(taps // 2 for taps in weight.shape[2:]), groups=2, method=method)


def sparse(dims):
    """Non-negative numbers over nine decades in one corner, zeros elsewhere; a non-negative kernel."""
    size, kernel = SIZES[dims]
    input = torch.zeros(2, 2, *size)
    corner = (slice(None), slice(None), *(slice(0, 2) for _ in size))
    input[corner] = 10 ** (9 * torch.rand(input[corner].shape) - 6)
    return input.requires_grad_(), torch.rand(2, 1, *kernel, requires_grad=True)


@every_kind
@pytest.mark.parametrize("method", KEEP_SIGNS)
def test_signs_and_zeros_are_kept(dims, transposed, method):
    leaves = sparse(dims)
    cotangent = leaves[0].detach()
    wanted = convolved(dims, transposed, "direct", *(leaf.detach().double() for leaf in leaves))
    output = convolved(dims, transposed, method, *leaves)
    for made in (output, *torch.autograd.grad(output, leaves, cotangent)):
        assert (made >= 0).all()
    assert torch.equal(output == 0, wanted == 0)
    assert (wanted == 0).any()


@every_kind
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_direct_keeps_nan_and_infinity_where_they_are(dims, transposed, value):
    input, weight = (leaf.detach() for leaf in sparse(dims))
    centre = (0, 0, *(cells // 2 for cells in input.shape[2:]))
    marked = torch.zeros_like(input)
    marked[centre] = 1
    reached = convolved(dims, transposed, "direct", marked, torch.ones_like(weight)) > 0
    input[centre] = value
    assert torch.equal(~convolved(dims, transposed, "direct", input, weight).isfinite(), reached)
    assert not reached.all()


def test_the_transform_loses_them_and_says_so(capsys):
    # Where this fails, the documentation may promise more.
    output = convolved(2, False, "fft", *sparse(2))
    assert (output < 0).any()
    input, weight = sparse(2)
    with torch.no_grad():
        input[0, 0, 0, 0] = torch.nan
    assert convolved(2, False, "fft", input, weight)[0, 0].isnan().all()
    explain_method((1, 2, 80, 80), (2, 1, 51, 51), padding=25, groups=2)
    assert "(loses signs and zeros, spreads NaN; direct never does)" in capsys.readouterr().out
    explain_method((1, 2, 80, 80), (4, 2, 3, 3), stride=2)
    assert "loses signs" not in capsys.readouterr().out
