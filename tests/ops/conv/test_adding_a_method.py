"""One more method is one record: it is named, chosen, explained and differentiated as the others are."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from cases import answers, assert_equal_to_rounding, normal, oracle_convolution

from torchdcls import Dcls2d, explain_method
from torchdcls.nn import layer
from torchdcls.ops.conv import api, large_kernel_conv, large_kernel_conv_transpose, methods, select
from torchdcls.ops.conv.method import Method


def by_taps(input, weight, bias, problem):
    """A shifted map for each tap."""
    padded = F.pad(input, [cells for pair in reversed(problem.padding) for cells in pair])
    output = 0
    for y in range(problem.kernel[0]):
        for x in range(problem.kernel[1]):
            rows, columns = problem.outputs
            output = output + padded[..., y : y + rows, x : x + columns] * weight[:, 0, y, x, None, None]
    return output if bias is None else output + bias[:, None, None]


def back(gradient, weight, problem):
    input = gradient.new_zeros(problem.batch, problem.in_channels, *problem.map)
    return torch.func.vjp(lambda input: by_taps(input, weight, None, problem), input)[1](gradient)[0]


def of_weight(input, gradient, problem):
    weight = gradient.new_zeros(problem.out_channels, 1, *problem.kernel)
    return torch.func.vjp(lambda weight: by_taps(input, weight, None, problem), weight)[1](gradient)[0]


def unsupported(problem):
    able = problem.depthwise and len(problem.kernel) == 2 and problem.stride == (1, 1)
    return None if able else "it is a toy"


TOY = Method(
    name="toy",
    convolve=by_taps,
    transpose=back,
    correlate=of_weight,
    unsupported=unsupported,
    operations=lambda problem, part: {"direct call": 1e-6},
    caution="is a toy",
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The record in the tuple that lists them; what a caller may say follows from it, as when it is imported."""
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, TOY))
    for module in (api, select):
        monkeypatch.setattr(module, "METHODS", methods.METHODS)
    for module in (api, layer):
        monkeypatch.setattr(module, "METHOD_NAMES", ("auto", *(method.name for method in methods.METHODS)))
    select._known_cheapest.cache_clear()
    select.estimate.cache_clear()
    yield
    select._known_cheapest.cache_clear()
    select.estimate.cache_clear()


def leaves_of(map, kernel):
    return {
        "input": normal(2, 3, *map, seed=1),
        "weight": normal(3, 1, *kernel, seed=2),
        "bias": normal(3, seed=3),
    }


@pytest.mark.parametrize("method", ["toy", "auto"])
def test_output_and_every_gradient_are_the_oracles(method):
    leaves = leaves_of((40, 41), (5, 4))
    options = {"padding": "same", "groups": 3}
    made = answers(lambda: large_kernel_conv(**leaves, **options, method=method), leaves)
    assert_equal_to_rounding(made, answers(lambda: oracle_convolution(**leaves, **options), leaves))


def test_transposed_and_twice_differentiated():
    leaves = tuple(leaves_of((3, 4), (3, 2)).values())
    for convolve in (large_kernel_conv, large_kernel_conv_transpose):
        run = lambda *tensors, by=convolve: by(*tensors, padding=1, groups=3, method="toy")  # noqa: E731
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def test_auto_takes_it_where_nothing_is_cheaper_and_says_so(capsys):
    explain_method((64, 96, 56, 56), (96, 1, 23, 23), padding=11, groups=96)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("toy") and line.endswith("(is a toy)") for line in lines)
    assert lines[-1] == "auto takes: output by toy, input gradient by toy, weight gradient by toy"
    explain_method((64, 96, 56, 56), (96, 1, 23, 23), stride=2, padding=11, groups=96)
    assert "toy        not taken: it is a toy" in capsys.readouterr().out


def test_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="method: 'toy' cannot run this call: it is a toy"):
        large_kernel_conv(torch.ones(1, 2, 9), torch.ones(2, 1, 3), groups=2, method="toy")
    with pytest.raises(ValueError, match=r"method: expected one of .*'toy', got 'joy'"):
        large_kernel_conv(torch.ones(1, 2, 9), torch.ones(2, 1, 3), groups=2, method="joy")
    assert "toy" not in get_args(methods.MethodName)  # a name more in methods.py, which a test holds equal to the names


def test_a_layer_by_it():
    made = Dcls2d(3, 3, 4, dilated_kernel_size=7, padding="same", groups=3, method="toy")
    input = torch.randn(1, 3, 9, 9)
    expected = F.conv2d(input, made.kernel(), made.bias, padding=3, groups=3)
    torch.testing.assert_close(made(input), expected, rtol=1e-4, atol=1e-5)
