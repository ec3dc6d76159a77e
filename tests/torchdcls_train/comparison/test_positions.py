"""Taps at known places: that the task can be solved, that its statistics are right, and what a run leaves."""

import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy.stats import ttest_rel
from torch import Tensor

from tests.torchdcls_train.comparison.made_results import made_result
from torchdcls_train.comparison.config import PositionsConfig
from torchdcls_train.comparison.positions import run as positions_run
from torchdcls_train.comparison.positions.findings import (
    differences,
    explanations,
    findings,
    per_kernel,
    position_rows,
    positions_section,
    typical_kernel,
)
from torchdcls_train.comparison.positions.inputs import correlated_cells, prepared
from torchdcls_train.comparison.positions.pictures import Animation, found_figure
from torchdcls_train.comparison.positions.result import Cell, PositionsResult
from torchdcls_train.comparison.positions.run import compare_positions
from torchdcls_train.comparison.positions.task import STUDENTS, Search, Teacher, distances, find_taps
from torchdcls_train.comparison.report import markdown


@pytest.fixture
def config(tmp_path: Path) -> PositionsConfig:
    return PositionsConfig(
        students=("bilinear", "gaussian-3"),
        seeds=2,
        kernels=3,
        taps=2,
        reach=3,
        dilated_kernel_size=7,
        updates=4,
        out=tmp_path / "run",
        threads=1,
    )


def quietly(config: PositionsConfig) -> tuple[PositionsResult, str]:
    console = Console(file=io.StringIO(), width=100)
    return compare_positions(config, argv=["compare", "positions"], console=console), console.file.getvalue()  # type: ignore[attr-defined]


def searched(student: str, teacher: Teacher, start: Tensor, updates: int = 150, kernels: slice = slice(None)) -> Search:
    """A search by white noise, whose response tells all taps apart."""
    random = torch.Generator().manual_seed(0)
    count = len(teacher.weight)
    some = Teacher(teacher.position[:, kernels], teacher.weight[kernels], teacher.size)
    return find_taps(
        STUDENTS[student],  # type: ignore[index]
        some,
        start[:, kernels],
        torch.full(some.weight.shape, 0.1),
        lambda: torch.randn(4, count, 16, 16, generator=random)[:, kernels],
        torch.randn(4, count, 16, 16, generator=torch.Generator().manual_seed(1))[:, kernels],
        updates=updates,
        lr=0.05,
        position_lr_scale=2,
        moments=2,
    )


@pytest.mark.parametrize("student", STUDENTS)
def test_a_tap_within_reach_is_found(student: str) -> None:
    """Half a cell away, where the narrowest interpolation feels it."""
    position = torch.tensor([[[-2.0], [0.0], [3.0]], [[1.0], [0.0], [-3.0]]])
    teacher = Teacher(position, torch.tensor([[1.0], [-0.5], [0.75]]), 9)
    search = searched(student, teacher, position + 0.5, 300)
    assert [outcome.update for outcome in search.outcomes] == [0, 150, 300]
    last = search.outcomes[-1]
    assert last.distance.max() < 0.5 and last.loss.max() < 0.02
    assert last.found.tolist() == [1, 1, 1]
    assert search.path.shape == (301, 3, 3, 1)
    torch.testing.assert_close(search.path[0, :, 0, 0], torch.tensor([-1.5, 1.5, 0.1]))


def test_out_of_reach_of_bilinear_alone() -> None:
    """Four cells away in white noise a bilinear element has no gradient that leads to the tap; a wide one has."""
    random = np.random.default_rng(0)
    teacher = Teacher(torch.full((2, 8, 1), 3.0), torch.ones(8, 1), 9)
    start = torch.from_numpy(random.uniform(-0.5, 0.5, (2, 8, 1))).float()
    assert searched("bilinear", teacher, start).outcomes[-1].found.mean() < 0.5
    assert searched("gaussian-3", teacher, start).outcomes[-1].found.mean() == 1


def test_kernels_are_independent_trials() -> None:
    """A kernel that is trained beside others comes to what it comes to alone."""
    teacher = Teacher.drawn(3, 2, 4, 9, np.random.default_rng(0))
    start = torch.from_numpy(np.random.default_rng(1).normal(0, 0.5, (2, 3, 2))).float()
    together = searched("gaussian", teacher, start, 20).outcomes[-1]
    for number in range(3):
        alone = searched("gaussian", teacher, start, 20, slice(number, number + 1)).outcomes[-1]
        torch.testing.assert_close(alone.distance[0], together.distance[number], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(alone.loss[0], together.loss[number], rtol=1e-3, atol=1e-3)


def test_annealed_sigma_ends_at_the_smallest_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    kernel = positions_task_layer().kernel

    def watched(layer: Any) -> Tensor:
        seen.append(float(layer.sigma.detach().abs().max()))
        return kernel(layer)

    monkeypatch.setattr(positions_task_layer(), "kernel", watched)
    teacher = Teacher(torch.zeros(2, 1, 1), torch.ones(1, 1), 5)
    searched("gaussian-annealed", teacher, torch.zeros(2, 1, 1), 8)
    assert seen[0] == 3 and seen[-1] == 0
    assert seen == sorted(seen, reverse=True)


def positions_task_layer() -> Any:
    from torchdcls import Dcls2d

    return Dcls2d


def test_teachers_have_their_taps_apart_and_within_reach() -> None:
    teacher = Teacher.drawn(50, 6, 9, 23, np.random.default_rng(0))
    assert teacher.position.norm(dim=0).max() <= 9
    assert teacher.position.norm(dim=0).max() > 8
    places = teacher.position.permute(1, 2, 0)
    apart = torch.cdist(places, places) + 100 * torch.eye(6)
    assert apart.min() >= 3
    kernel = teacher.kernel()
    assert kernel.shape == (50, 1, 23, 23)
    assert (kernel != 0).sum((1, 2, 3)).tolist() == [6] * 50
    row, column = (teacher.position[:, 7, 2] + 11).int().tolist()
    assert kernel[7, 0, row, column] == teacher.weight[7, 2]
    with pytest.raises(ValueError, match="taps: expected a number that fits within reach"):
        Teacher.drawn(1, 6, 2, 23, np.random.default_rng(0))


def test_distance_of_the_best_pairs_and_of_other_signs() -> None:
    teacher = Teacher(torch.tensor([[[0.0, 0.0]], [[0.0, 4.0]]]), torch.tensor([[1.0, 1.0]]), 9)
    # The first element is near the second tap, and the other way round.
    position = torch.tensor([[[0.0, 0.0]], [[3.5, 1.0]]])
    assert distances(position, torch.tensor([[1.0, 1.0]]), teacher).tolist() == [[1.0, 0.5]]
    assert distances(position, torch.tensor([[-1.0, 1.0]]), teacher).tolist() == [[1.0, 1.5]]
    # A third element, which only one tap takes.
    more = torch.cat([torch.tensor([[[0.0]], [[0.25]]]), position], 2)
    assert distances(more, torch.tensor([[1.0, 1.0, 1.0]]), teacher).tolist() == [[0.25, 0.5]]


def test_inputs_are_images_and_their_edges() -> None:
    ramp = torch.arange(28, dtype=torch.uint8).expand(3, 1, 28, 28)
    smooth, edges = prepared(ramp, "images"), prepared(ramp, "edges")
    assert smooth.shape == edges.shape == (3, 28, 28)
    for values in (smooth, edges):
        assert values.square().mean() == pytest.approx(1)
    assert smooth.mean() == pytest.approx(0, abs=1e-5)
    assert edges[:, 1:-1, 1:-1].abs().max() < 1e-5  # a ramp has none but those of the image
    noise = torch.randn(20, 28, 28, generator=torch.Generator().manual_seed(0))
    assert correlated_cells(noise) == 0
    blocks = noise[:, :7, :7].repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert correlated_cells(blocks) in (1, 2)  # half of it at a shift of 2, but for chance
    assert correlated_cells(torch.nn.functional.avg_pool2d(noise, 9, 1)) >= 3


def made(**found: Sequence[Sequence[int]]) -> PositionsResult:
    """A record of kernels with two taps, of which so many are found in each seed and kernel."""
    distance = {0: [5.0, 5.0], 1: [0.5, 5.0], 2: [0.5, 0.5]}
    runs = [
        {
            "seed": seed,
            "inputs": "edges",
            "start": "narrow",
            "student": student.replace("_", "-"),
            "loss": [1 - count / 2 for count in counts],
            "distance": [distance[count] for count in counts],
            "start_found": [0.0] * len(counts),
            "curve": [{"update": 0, "loss": 1.0, "found": 0.0}],
        }
        for student, seeds in found.items()
        for seed, counts in enumerate(seeds)
    ]
    names = [name.replace("_", "-") for name in found]
    teachers = [
        {"seed": 0, "position": [[[1.0, 8.0]] * 10, [[0.0, 0.0]] * 10], "weight": [[1.0, 1.0]] * 10} for _ in range(2)
    ]
    config = {"inputs": ["edges"], "starts": ["narrow"], "students": names, "kernels": 10, "updates": 400, "reach": 9.0}
    data = {"name": "made", "train_images": 9, "test_images": 9, "correlated_cells": {"edges": 0}}
    return made_result(PositionsResult, config=config, data=data, teachers=teachers, runs=runs)


def sentences(result: PositionsResult) -> list[str]:
    return [*findings(result), *explanations(result)]


FEW = [[0, 1, 0, 0, 1, 0, 0, 0, 1, 0]] * 2
MANY = [[2, 2, 1, 2, 2, 1, 2, 2, 2, 2]] * 2
CELL: Cell = ("edges", "narrow", "gaussian")


def test_statistics_of_made_kernels() -> None:
    result = made(bilinear=FEW, gaussian=MANY, triangle=[FEW[0], FEW[1][::-1]])
    mine, theirs = per_kernel(result, CELL, "found"), per_kernel(result, (*CELL[:2], "bilinear"), "found")
    assert mine[0, 2] == 50 and mine[1, 0] == 100 and len(mine) == 20
    gained = differences(result, CELL, (*CELL[:2], "bilinear"))
    assert gained == [mine[kernel] - theirs[kernel] for kernel in mine]
    interval = ttest_rel(list(mine.values()), list(theirs.values())).confidence_interval()
    half = (interval.high - interval.low) / 2
    _, bilinear, gaussian, _ = position_rows(result, CELL[:2])
    assert bilinear == ["bilinear", "15 ± 11", "-", "0.850 ± 0.110", "4.33 ± 0.50"]
    assert gaussian[:3] == ["gaussian", "90 ± 10", f"+75 ± {half:.0f}"]
    said = "\n".join(sentences(result))
    assert "elements find 15 % (bilinear, narrow start) to 90 % (gaussian, narrow start) of the taps." in said
    assert "Edges of images, narrow start, share of taps found: gaussian 90 %, bilinear 15 %, triangle 15 %." in said
    assert "Significantly more than bilinear: gaussian. Not significantly different from bilinear: triangle." in said
    assert "over 20 independent kernels" in said and "over 2 comparisons" in said


def test_what_does_not_win_is_said_so() -> None:
    said = "\n".join(sentences(made(bilinear=MANY, gaussian=FEW)))
    assert "Significantly fewer than bilinear: gaussian." in said
    assert "share of taps found: bilinear 90 %, gaussian 15 %." in said


def test_comparisons_are_corrected_for_their_number() -> None:
    """A difference that one comparison shows at 5 % is not significant among six."""
    one = [[0, 0, 1, 0, 0, 1, 0, 0, 1, 0]]
    none = [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    two = [[0, 0, 1, 0, 0, 1, 1, 0, 1, 0]]
    assert ttest_rel(two[0], none[0]).pvalue == pytest.approx(0.037, abs=1e-3)
    assert "Significantly more than bilinear: gaussian." in "\n".join(sentences(made(bilinear=none, gaussian=two)))
    others = dict.fromkeys(("triangle", "triangle_2", "gaussian_1"), one)
    assert "more than" not in "\n".join(sentences(made(bilinear=none, gaussian=two, **others)))


def test_the_kernel_shown_is_the_one_nearest_to_the_means() -> None:
    counts = [2, 0, 1, 0, 2, 0, 0, 2, 2, 0]
    students = {"bilinear": [[0] * 10, [0] * 10], "gaussian": [counts, [1] * 10]}
    assert typical_kernel(made(**students), CELL[:2], ["bilinear", "gaussian"]) == 2


def test_found_against_distance() -> None:
    """The near tap of each kernel is found, the far one is not."""
    half = [[1] * 10] * 2
    (axes,) = found_figure(made(bilinear=half)).axes
    (line,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    near, between, far = line.get_ydata()
    assert (near, far) == (100, 0) and np.isnan(between)


def test_everything_a_run_leaves(config: PositionsConfig) -> None:
    result, printed = quietly(config)
    folder = config.out
    assert folder is not None
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(result.json()))
    assert (result.status, result.complete) == ("finished", True)
    assert result.command == "torchdcls compare positions" and result.versions["torch"]
    assert len(result.runs) == 2 * 2 * 2 * 2
    assert result.data.correlated_cells["images"] > result.data.correlated_cells["edges"] == 0
    text = (folder / "table.md").read_text()
    for part in ("bilinear", "gaussian-3", "Images, spread start", "± "):
        assert part in printed and part in text
    for name in ("found.png", "curves.png", "travel.png"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 1, f"{name} is blank"
    with Image.open(folder / "travel.gif") as animation:
        assert animation.n_frames == 5  # type: ignore[attr-defined]
    drawn = Animation(result)
    (heading,) = drawn.figure.texts
    place = heading.get_position()  # where the layout leaves room for it
    drawn.image(0)
    assert drawn.figure.texts == [heading] and heading.get_position() == place
    assert result.travel is not None
    paths = {student: np.array(path) for student, path in result.travel.paths.items()}
    assert list(paths) == ["bilinear", "gaussian-3"] and result.travel.updates == [0, 1, 2, 3, 4]
    assert all(path.shape == (5, 3, 2) for path in paths.values())
    np.testing.assert_array_equal(paths["bilinear"][0], paths["gaussian-3"][0])
    assert not np.array_equal(paths["bilinear"][-1], paths["gaussian-3"][-1])
    assert (folder / "travel.gif").stat().st_size < 1.5e6
    report = (folder / "report.html").read_text()
    assert report.count("data:image/") == 3 and all(sentence in unescape(report) for sentence in sentences(result))


def test_same_settings_same_result_and_the_same_start_for_all(config: PositionsConfig, tmp_path: Path) -> None:
    first, again = (quietly(replace(config, out=tmp_path / name))[0].runs for name in ("a", "b"))
    assert first == again
    assert first[0].loss != first[8].loss  # another seed
    for inputs in range(2):  # students start alike
        bilinear, gaussian = first[4 * inputs : 4 * inputs + 2]
        assert bilinear.start_found == gaussian.start_found and bilinear.distance != gaussian.distance


def stopped_in_the_12th(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has the 12th search raise KeyboardInterrupt; the list grows by one with each."""
    calls: list[None] = []

    def interrupted(*args: Any, **kwargs: Any) -> Search:
        calls.append(None)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return find_taps(*args, **kwargs)

    monkeypatch.setattr(positions_run, "find_taps", interrupted)
    return calls


def test_interruption_keeps_what_is_done(config: PositionsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_in_the_12th(monkeypatch)
    result, printed = quietly(replace(config, students=("gaussian-3", "bilinear")))
    assert config.out is not None
    stored = json.loads((config.out / "results.json").read_text())
    assert stored["status"] == "interrupted" and len(stored["runs"]) == 11
    assert "Interrupted" in printed and "not complete (interrupted)" in printed
    assert "not complete (interrupted)" in markdown(positions_section(result, config.out))
    assert (config.out / "travel.gif").exists()
    # The seed that is cut short is paired where both have it.
    assert len(differences(result, ("edges", "spread", "gaussian-3"), ("edges", "spread", "bilinear"))) == 3


def test_an_interrupted_comparison_resumes_to_the_same_result(
    config: PositionsConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = stopped_in_the_12th(monkeypatch)
    quietly(config)
    resumed, _ = quietly(config)
    # Two runs that are done are repeated: the animation shows them.
    assert len(calls) == 12 + 5 + 2 and len(resumed.runs) == 16
    assert resumed.status == "finished" and len(resumed.resumed) == 1
    whole, _ = quietly(replace(config, out=tmp_path / "whole"))
    assert resumed.runs == whole.runs and resumed.teachers == whole.teachers and resumed.travel == whole.travel
    calls.clear()
    assert quietly(config)[0] == resumed and calls == []
    more, _ = quietly(replace(config, seeds=3))  # more seeds may be asked for later
    assert len(more.runs) == 24 and more.runs[:16] == resumed.runs and len(more.teachers) == 3
    with pytest.raises(ValueError, match=r"out: expected the settings and data of .*updates was 4, is 5"):
        quietly(replace(config, updates=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"students": ("cubic",)}, "students: expected one of .* got 'cubic'"),
        ({"inputs": ("edges", "edges")}, "inputs: expected each once"),
        ({"starts": ()}, "starts: expected each once, at least one"),
        ({"kernels": 0}, "kernels: expected at least 1, got 0"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"dilated_kernel_size": 8}, "dilated_kernel_size: expected an odd size, got 8"),
        ({"reach": 4}, "reach: expected more than 0 and at most 3 cells"),
        ({"taps": 20}, "taps: expected a number that fits"),
        ({"lr": float("inf")}, "lr: expected a finite number"),
    ],
)
def test_bad_settings_are_refused_before_training(
    config: PositionsConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(replace(config, **change))
    assert config.out is not None
    assert not config.out.exists()


def test_a_loss_that_is_not_finite_ends_the_run(config: PositionsConfig) -> None:
    with pytest.raises(FloatingPointError, match=r"the training loss is \w+ after update \d"):
        quietly(replace(config, lr=1e30))
    assert config.out is not None
    assert json.loads((config.out / "results.json").read_text())["status"] == "failed: FloatingPointError"


def test_quick_is_short() -> None:
    quick, usual = PositionsConfig(quick=True).checked(), PositionsConfig().checked()
    assert (quick.seeds, quick.updates) == (1, 200)
    assert (usual.seeds, usual.updates) == (4, 400)
    assert statistics.median([quick.kernels, usual.kernels]) == 24
