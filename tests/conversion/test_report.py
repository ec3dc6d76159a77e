"""What a conversion's report says, as text and as values."""

import pytest
from torch import nn

from torchdcls import convert
from torchdcls.conversion import Replaced, Skipped

from .small import convnext, dcls_layers, depthwise, unique_parameters


def some_of_each():
    """Two stages of one width and a third of another, a strided layer between, a dense one at the end."""
    return nn.Sequential(
        nn.Sequential(depthwise(kernel_size=5), depthwise(kernel_size=5)),
        depthwise(kernel_size=3, stride=2),
        nn.Sequential(depthwise(kernel_size=(3, 7), padding=(1, 3)), depthwise(kernel_size=5)),
        nn.Conv2d(4, 1200, 1),
    )


def test_text():
    """The printed report: what was done, the counts with their difference, each layer, each reason."""
    report = convert(some_of_each(), dilated_kernel_size=(9, 17), kernel_count=6, interpolation="bilinear")
    # 6 weights a channel instead of 25 or 21, and two sets of positions in stage 2, as its kernels were of two shapes.
    assert str(report).splitlines() == [
        "4 layers replaced, 2 convolutions skipped, 6 elements per kernel",
        "parameters: 6,440 before, 6,296 after (-144)",
        "  0.0  5x5 -> 9x17  4 channels, stage 0",
        "  0.1  5x5 -> 9x17  4 channels, stage 0",
        "  2.0  3x7 -> 9x17  4 channels, stage 2",
        "  2.1  5x5 -> 9x17  4 channels, stage 2",
        "  1    skipped: stride (2, 2)",
        "  3    skipped: not depthwise (4 to 1200 channels in 1 group)",
    ]


def test_text_of_more_parameters():
    """A model that grew says so with a plus."""
    model = nn.Sequential(depthwise(dims=1, channels=1, kernel_size=3))
    report = convert(model, dilated_kernel_size=5, kernel_count=2)
    assert str(report).splitlines() == [
        "1 layer replaced, 0 convolutions skipped, 2 elements per kernel",
        "parameters: 4 before, 7 after (+3)",
        "  0  3 -> 5  1 channels, stage (root)",
    ]


def test_values():
    """Rows hold what the text shows, in the model's order."""
    report = convert(some_of_each(), dilated_kernel_size=9, kernel_count=6, share="none")
    assert report.replaced == (
        Replaced("0.0", "0.0", 4, (5, 5), (9, 9)),
        Replaced("0.1", "0.1", 4, (5, 5), (9, 9)),
        Replaced("2.0", "2.0", 4, (3, 7), (9, 9)),
        Replaced("2.1", "2.1", 4, (5, 5), (9, 9)),
    )
    assert report.skipped == (
        Skipped("1", "stride (2, 2)"),
        Skipped("3", "not depthwise (4 to 1200 channels in 1 group)"),
    )
    assert report.kernel_count == 6


@pytest.mark.parametrize("kernel_count", [1, 4, "iso"])
@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
def test_counts_are_those_of_the_model(kernel_count, interpolation):
    """Parameters before and after, and elements per kernel, are what one counts in the model itself."""
    model = convnext()
    before = unique_parameters(model)
    report = convert(model, dilated_kernel_size=11, kernel_count=kernel_count, interpolation=interpolation)
    assert (report.parameters_before, report.parameters_after) == (before, unique_parameters(model))
    assert {layer.kernel_count for layer in dcls_layers(model).values()} == {report.kernel_count}
    assert [row.name for row in report.replaced] == list(dcls_layers(model))
