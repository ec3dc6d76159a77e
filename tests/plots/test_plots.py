"""Pictures show the data they are given, where it belongs."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from studies.differences import Difference
from studies.pictures import draw_differences, draw_seeds, draw_sweep
from torchdcls.plots import (
    draw_accuracy,
    draw_delay_field,
    draw_delays,
    draw_kernel,
    draw_positions,
    draw_raster,
    line_styles,
)


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def test_positions_are_drawn_as_column_and_row(axes: Axes) -> None:
    draw_positions(axes, torch.tensor([[-2.0, 1.0], [3.0, 0.5]]), torch.tensor([1.0, -4.0]), (5, 8))
    (dots,) = axes.collections
    assert np.asarray(dots.get_offsets()).tolist() == [[3.0, -2.0], [0.5, 1.0]]
    small, large = dots.get_sizes()
    assert large == 25
    assert small == 7
    assert axes.get_xlim() == (-4.5, 3.5)
    assert axes.get_ylim() == (2.5, -2.5)  # rows count downwards


def test_a_line_leads_from_each_start_to_its_end(axes: Axes) -> None:
    start, end = torch.tensor([[-1.0, 1.0], [2.0, 0.0]]), torch.tensor([[-1.0, 5.0], [2.5, 3.0]])
    lines = draw_positions(axes, end, torch.ones(2), (17, 17), start, furthest=8.0)
    assert isinstance(lines, LineCollection)
    assert [segment.tolist() for segment in lines.get_segments()] == [[[2, -1], [2.5, -1]], [[0, 1], [3, 5]]]
    assert (np.asarray(lines.get_array()).tolist(), lines.get_clim()) == ([0.5, 5.0], (0, 8))
    (frame,) = axes.patches
    assert isinstance(frame, Rectangle)
    assert frame.get_bbox().extents.tolist() == [0, -1, 2, 1]
    dots = axes.collections[0]
    assert np.asarray(dots.get_offsets()).tolist() == [[2.5, -1], [3, 5]]


def test_cells_of_kernels_side_by_side_are_of_one_size(axes: Axes) -> None:
    small, large = Figure().subplots(1, 2)
    draw_kernel(small, torch.ones(7, 6), (17, 17))
    draw_kernel(large, torch.ones(17, 17), (17, 17))
    assert small.get_xlim() == large.get_xlim() == (-8.5, 8.5)
    assert small.get_ylim() == large.get_ylim() == (8.5, -8.5)
    # Cell size // 2 at the origin, as elements are drawn.
    assert tuple(small.images[0].get_extent()) == (-3.5, 2.5, 3.5, -3.5)
    draw_kernel(axes, torch.ones(3, 5))
    assert (axes.get_xlim(), axes.get_ylim()) == ((-2.5, 2.5), (1.5, -1.5))


def test_lines_show_under_each_other() -> None:
    styles = line_styles(5)
    widths = [style["linewidth"] for style in styles]
    assert widths == sorted(set(widths), reverse=True)
    assert len({style["marker"] for style in styles}) == len({style["color"] for style in styles}) == 5


def test_no_weight_is_no_error(axes: Axes) -> None:
    draw_positions(axes, torch.zeros(2, 3), torch.zeros(3), (3, 3))
    assert np.isfinite(axes.collections[0].get_sizes()).all()


def test_kernel_has_zero_in_the_middle_of_its_scale(axes: Axes) -> None:
    image = draw_kernel(axes, torch.tensor([[0.0, 1.0], [-3.0, 2.0]], requires_grad=True))
    assert image.get_clim() == (-3.0, 3.0)
    assert np.asarray(image.get_array()).tolist() == [[0.0, 1.0], [-3.0, 2.0]]


def test_accuracy_is_the_mean_of_seeds_with_their_range(axes: Axes) -> None:
    draw_accuracy(axes, {"7x7": [[10.0, 20.0], [30.0, 40.0]], "gaussian": [[50.0, 60.0]]})
    assert [line.get_ydata().tolist() for line in axes.lines] == [[20.0, 30.0], [50.0, 60.0]]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2], [1, 2]]
    (band,) = axes.collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (10.0, 40.0)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["7x7", "gaussian"]


def test_seeds_are_dots_with_their_mean(axes: Axes) -> None:
    draw_seeds(axes, {"7x7": [80.0, 82.0], "gaussian": []})
    assert [list(line.get_ydata()) for line in axes.lines if len(line.get_ydata())] == [[80.0, 82.0]]
    (mean,) = axes.collections
    assert mean.get_segments()[0][:, 1].tolist() == [81.0, 81.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["7x7", "gaussian"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one seed", "mean"]


def test_lines_of_names_stand_side_by_side(axes: Axes) -> None:
    draw_sweep(axes, {"one": {0: [1.0], "whole": [2.0, 4.0]}, "other": {0: [1.0]}}, "accuracy")
    drawn = {str(line.get_label()): list(line.get_xdata()) for line in axes.lines}
    assert drawn["one, mean"] == pytest.approx([-0.06, 0.94])
    assert drawn["other, mean"] == drawn["other, one seed"] == pytest.approx([0.06])
    assert axes.get_ylabel() == "accuracy"


def test_differences_have_both_intervals(axes: Axes) -> None:
    draw_differences(axes, {"gaussian - 7x7": Difference(5, 1.0, (0.5, 1.5), (-1.0, 3.0))})
    ends = [segments.get_segments()[0][:, 1].tolist() for segments in axes.collections]
    assert ends == [[-1.0, 3.0], [0.5, 1.5]]
    assert [list(line.get_ydata()) for line in axes.lines][:2] == [[1.0], [0, 0]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "mean",
        "95 % interval",
        "corrected for all comparisons",
    ]
    assert axes.get_ylim() == (-3.75, 3.75)  # the bold interval fits in, whatever the other does


def test_sweep_is_to_scale_unless_there_are_names(axes: Axes) -> None:
    draw_sweep(axes, {"gaussian": {17: [80.0, 82.0], 5: [70.0]}}, "accuracy")
    assert list(axes.lines[0].get_xdata()) == [5, 17]
    assert list(axes.lines[0].get_ydata()) == [70.0, 81.0]
    other = Figure().subplots()
    draw_sweep(other, {"gaussian": {"whole": [1.0], 0: [2.0], 3: [3.0]}}, "accuracy")
    assert list(other.lines[0].get_xdata()) == [0, 1, 2]
    assert list(other.lines[0].get_ydata()) == [2.0, 3.0, 1.0]
    assert [label.get_text() for label in other.get_xticklabels()] == ["0", "3", "whole"]


def test_a_histogram_of_delays_for_each_moment(axes: Axes) -> None:
    delays = torch.tensor([[[0.0, 0.4], [0.5, 2.0]], [[1.4, 1.5], [2.0, 2.3]]], requires_grad=True)
    image = draw_delays(axes, delays, max_delay=3, moments=[0, 10])
    # Rows are delays from 0 up, columns the moments. Unit: percent.
    assert np.asarray(image.get_array()).T.tolist() == [[50, 25, 25, 0], [0, 25, 75, 0]]
    assert tuple(image.get_extent()) == (-5, 15, -0.5, 3.5) and image.origin == "lower"
    assert image.get_clim() == (0, 75)
    alone = draw_delays(Figure().subplots(), torch.tensor([[3.0]]), 3)
    assert tuple(alone.get_extent())[:2] == (-0.5, 0.5)


def test_histograms_of_no_delays_are_refused(axes: Axes) -> None:
    with pytest.raises(ValueError, match=r"delays: expected at least one moment with a delay, got shape \(0, 3\)"):
        draw_delays(axes, torch.zeros(0, 3), 3)
    with pytest.raises(ValueError, match="moments: expected 2, as many as of delays, got 3"):
        draw_delays(axes, torch.zeros(2, 3), 3, moments=[0, 1, 2])


@pytest.mark.parametrize("kernel_count", [0, 2])
def test_a_receptive_field_has_delays_across_and_inputs_up(axes: Axes, kernel_count: int) -> None:
    delay, weight = torch.tensor([3.0, 0.5, 2.0]), torch.tensor([-2.0, 1.0, 0.0], requires_grad=True)
    if kernel_count:
        delay, weight = (values[:, None].expand(3, kernel_count) for values in (delay, weight))
    dots = draw_delay_field(axes, delay, weight, max_delay=4)
    each = slice(None, None, kernel_count or 1)
    assert np.asarray(dots.get_offsets())[each].tolist() == [[3, 0], [0.5, 1], [2, 2]]
    assert dots.get_sizes()[each].tolist() == [31, 16, 1]
    red, _, blue, _ = np.asarray(dots.get_facecolors())[each][1]
    assert red > blue
    red, _, blue, _ = np.asarray(dots.get_facecolors())[each][0]
    assert red < blue
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 4.5), (-0.5, 2.5))


def test_a_receptive_field_of_other_shapes_is_refused(axes: Axes) -> None:
    with pytest.raises(ValueError, match=r"of the same shape, got \(3,\) and \(2,\)"):
        draw_delay_field(axes, torch.zeros(3), torch.zeros(2), 4)


@pytest.mark.parametrize("value", [4.5, -0.5, float("nan")])
def test_delays_off_the_window_are_not_drawn_elsewhere(axes: Axes, value: float) -> None:
    delays = torch.tensor([1.0, value, 2.0])
    with pytest.raises(ValueError, match=f"^delays: expected delays from 0 to max_delay=4 steps, got {value}$"):
        draw_delays(axes, delays[None], 4)
    with pytest.raises(ValueError, match=f"^delay: expected delays from 0 to max_delay=4 steps, got {value}$"):
        draw_delay_field(axes, delays, torch.ones(3), 4)


def test_rasters_lie_above_each_other(axes: Axes) -> None:
    spikes = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    below = draw_raster(axes, spikes)
    above = draw_raster(axes, spikes.float(), first=2, color="red")
    assert np.asarray(below.get_offsets()).tolist() == [[1, 0], [3, 1]]
    assert np.asarray(above.get_offsets()).tolist() == [[1, 2], [3, 3]]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 3.5), (-0.5, 3.5))
    with pytest.raises(ValueError, match=r"spikes: expected \(neurons, time\), got shape \(1, 2, 4\)"):
        draw_raster(axes, spikes[None])


def test_wrong_types(axes: Axes) -> None:
    with pytest.raises(TypeError, match=r"^kernel: expected a torch.Tensor"):
        draw_kernel(axes, [[1.0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^delays: expected a torch.Tensor"):
        draw_delays(axes, [[1.0]], 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^weight: expected a torch.Tensor"):
        draw_delay_field(axes, torch.ones(1), [1.0], 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^spikes: expected a torch.Tensor"):
        draw_raster(axes, [[1]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^start: expected a torch.Tensor"):
        draw_positions(axes, torch.zeros(2, 3), torch.ones(3), (3, 3), start=np.zeros((2, 3)))  # type: ignore[arg-type]
