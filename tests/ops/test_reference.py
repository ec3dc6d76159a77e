"""The oracle itself, against numbers made by hand and against torch."""

import pytest
import torch
from cases import CONVOLUTIONS, assert_equal_to_rounding, bell, grid, hat, normal

from torchdcls.ops.reference import reference_convolution, reference_kernel


def test_one_dimension_by_hand():
    """Size 3, an element of weight 3 a quarter of a cell right of the centre: 3 times (0, 3/4, 1/4)."""
    weight, position = torch.tensor([3.0], dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64)
    kernel = reference_kernel(weight, position, torch.ones_like(position), [3], hat)
    expected = torch.tensor([0, 2.25, 0.75], dtype=torch.float64) / (1 + 1e-7)
    torch.testing.assert_close(kernel, expected, rtol=1e-15, atol=0)


def test_axes_and_origin_by_hand():
    """Size (4, 3): the origin is cell (2, 1), and position 0 counts rows."""
    weight = torch.tensor([1.0], dtype=torch.float64)
    position = torch.tensor([[-2.0], [1.0]], dtype=torch.float64)
    kernel = reference_kernel(weight, position, torch.ones_like(position), [4, 3], hat)
    assert kernel.nonzero().tolist() == [[0, 2]]


def test_two_elements_by_hand():
    """Elements add up, each normalised on its own: what falls off the grid is not lost."""
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64)
    position = torch.tensor([[-1.0, 1.5]], dtype=torch.float64)
    kernel = reference_kernel(weight, position, torch.ones_like(position), [3], hat)
    expected = torch.tensor([1 / (1 + 1e-7), 0, 2 * 0.5 / (0.5 + 1e-7)], dtype=torch.float64)
    torch.testing.assert_close(kernel, expected, rtol=1e-15, atol=0)


def test_gaussian_by_hand():
    """Ratios of cells follow exp(-d^2 / 2 scale^2)."""
    weight, position = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    kernel = reference_kernel(weight, position, torch.full_like(position, 0.5), [5], bell)
    ratios = (kernel / kernel[2]).log()
    expected = torch.tensor([-8, -2, 0, -2, -8], dtype=torch.float64)
    torch.testing.assert_close(ratios, expected, rtol=1e-13, atol=0)


def test_convolution_by_hand():
    """No flip, zeros around: [1, 2, 3] with taps [10, 1, 0]."""
    input = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64)
    weight = torch.tensor([[[10.0, 1.0, 0.0]]], dtype=torch.float64)
    output = reference_convolution(input, weight, torch.tensor([0.5]).double(), padding=[(1, 1)])
    assert output.tolist() == [[[1.5, 12.5, 23.5]]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "groups"),
    [
        ((9,), (4,), (2,), (1,), 1),
        ((7, 5), (3, 2), (1, 2), (2, 0), 2),
        ((4, 3, 5), (2, 3, 3), (2, 1, 1), (0, 1, 1), 1),
    ],
)
def test_convolution_is_torchs(size, kernel, stride, padding, groups):
    input, weight, bias = normal(2, 4, *size), normal(6, 4 // groups, *kernel, seed=2), normal(6, seed=3)
    expected = CONVOLUTIONS[len(size)](input, weight, bias, stride, padding, 1, groups)
    actual = reference_convolution(input, weight, bias, stride, [(pad, pad) for pad in padding], groups)
    assert_equal_to_rounding({"output": actual}, {"output": expected})


def test_every_cell_is_a_position():
    """An element on each cell in turn fills that cell alone."""
    cells = grid((3, 4))
    position = torch.tensor(cells, dtype=torch.float64).T  # (2, 12): one kernel a cell, of one element
    kernels = reference_kernel(torch.ones(12, 1).double(), position[..., None], torch.ones(2, 12, 1), [3, 4], hat)
    torch.testing.assert_close(kernels.flatten(1), torch.eye(12).double() / (1 + 1e-7), rtol=1e-15, atol=0)
