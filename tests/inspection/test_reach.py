"""Bounds of elements, by hand."""

import torch

from torchdcls.inspection.reach import NOWHERE, Reach, everything, independent, joined


def line(*places: int) -> Reach:
    """Cells of a map of one axis, each of which reads the pixel at its place."""
    first = torch.tensor(places, dtype=torch.float32)
    return Reach(torch.stack([first, -first]), (1.0,))


def ends(reach: Reach) -> list[tuple[float, float]]:
    """First and last pixel of each element."""
    return list(zip(reach.bounds[0].tolist(), (-reach.bounds[1]).tolist(), strict=True))


def windows(reach: Reach, size: int, stride: int) -> Reach:
    """As a convolution with padding has it."""
    cells = torch.arange(0, reach.bounds.shape[1], stride)[:, None] + torch.arange(size) - size // 2
    return reach.gathered(-1, cells, stride)


def test_a_window_of_a_window_goes_beyond_the_borders() -> None:
    once = windows(line(0, 1, 2, 3), 3, 2)
    assert ends(once) == [(-1, 1), (1, 3)]
    assert ends(windows(once, 3, 1)) == [(-3, 3), (-1, 5)]
    assert once.steps == (2.0,)


def test_one_cell_remembers_its_step() -> None:
    cell = windows(windows(line(0, 1, 2, 3), 1, 2), 1, 2)
    assert ends(cell) == [(0, 0)]
    assert ends(windows(cell, 3, 1)) == [(-4, 4)]


def test_places_that_are_none() -> None:
    reach = line(5, 6, 7).gathered(-1, torch.tensor([[2, NOWHERE], [1, 2]]))
    assert ends(reach) == [(7, 7), (6, 7)]


def test_maps_are_extended_and_cut() -> None:
    assert ends(line(0, 2, 4).extended(-1, 1, -1)) == [(-2, -2), (0, 0), (2, 2)]
    assert ends(line(4, 2, 0).extended(-1, 0, 1)) == [(4, 4), (2, 2), (0, 0), (-2, -2)]
    assert line(0, 2, 4).is_even(-1)
    assert not line(0, 2, 3).is_even(-1)


def test_who_reads_all_cells_reads_the_whole_image() -> None:
    whole = line(0, 1, 2, 3).pooled([-1], [4], "Pool")
    assert (whole.axes, whole.whole) == (frozenset(), {(0, "Pool")})
    part = line(0, 1, 2).pooled([-1], [9], "Pool")
    assert (ends(part), part.whole) == ([(0, 2)], frozenset())
    mixed = line(0, 1, 2, 3).mixed([-1], [4], "Norm")
    assert (ends(mixed), mixed.whole) == ([(0, 0), (1, 1), (2, 2), (3, 3)], {(0, "Norm")})


def test_branches_that_meet() -> None:
    both = joined([line(0, 1), line(3, 0), independent((2,), 1)], (2,))
    assert ends(both) == [(0, 3), (0, 1)]
    assert ends(joined([line(4)], (3,))) == [(4, 4)] * 3
    assert ends(everything([line(0, 1), line(3, 0)], (2,))) == [(0, 3)] * 2


def test_channels_stand_at_one_place_and_cells_do_not() -> None:
    channels = torch.tensor([[0.0, 1, 2], [1, 2, 3]])
    (found,) = Reach(torch.stack([channels, -channels]), (1.0,)).at_one_place().bounds[0].tolist()
    assert found == [0, 1, 2]
    channels = torch.tensor([[0.0], [1.0]])  # of a map of one cell, whose next would be four pixels away
    (width,) = Reach(torch.stack([channels, -channels]), (4.0,)).at_one_place().widths(0).tolist()
    assert width == 2
