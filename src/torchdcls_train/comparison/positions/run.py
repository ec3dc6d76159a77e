"""The comparison of interpolations on taps at known places: trains, records, draws and prints."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from ...data.fashion_mnist import read_embedded
from ...data.random_numbers import seed_of
from ...runs.progress_bar import ProgressBar
from ..config import Inputs, PositionsConfig, Start, StudentName
from ..record import Record, run_folder
from ..report import present
from ..result import origin
from .findings import positions_section, typical_kernel
from .inputs import correlated_cells, drawn, prepared
from .pictures import draw_pictures
from .result import Moment, PositionsData, PositionsResult, PositionsRun, Taps, Travel
from .task import STUDENTS, Search, Teacher, find_taps

_PACKAGES = ("torch", "torchdcls", "scipy")
_TEST_IMAGES = 8
# Outcomes of a run for the curves, and frames of the animation after the first.
_MOMENTS, _FRAMES = 10, 40
# Standard deviation of positions at the papers' start. Unit: grid cells.
_NARROW = 0.5


def compare_positions(
    config: PositionsConfig, *, argv: list[str] | None = None, console: Console | None = None
) -> PositionsResult:
    """Trains what is not in the run folder yet, records, draws and prints.

    The run folder gets `results.json` (settings, versions, every kernel), `table.md`, `found.png`, `curves.png`,
    `travel.gif`, `travel.png` and `report.html`, which holds them all.

    Args:
        argv: The command's arguments, for `results.json`; by default those of the process.

    Raises:
        ValueError: A setting or the folder cannot be used; the message says what to do.
        FloatingPointError: A loss is not finite.
    """
    console = console or Console()
    config = config.checked()
    assert config.seeds is not None and config.updates is not None
    _teacher(config, 0)  # taps without room are refused before anything is written
    folder = run_folder(config.out, "positions")
    torch.set_num_threads(config.threads)
    train, test = read_embedded()
    values = {inputs: (prepared(train.images, inputs), prepared(test.images, inputs)) for inputs in config.inputs}
    alike = {inputs: correlated_cells(images) for inputs, (images, _) in values.items()}
    begun = PositionsResult(
        **origin(argv, _PACKAGES),
        threads=torch.get_num_threads(),
        config=replace(config, out=None),
        data=PositionsData("embedded Fashion-MNIST", len(train), len(test), alike),
    )
    record = Record(folder, begun)
    result = record.result
    console.print(
        f"Can elements find {config.taps} taps up to {config.reach:g} cells from the center? "
        f"{config.seeds * config.kernels} kernels of {config.dilated_kernel_size}x{config.dilated_kernel_size}, "
        f"{config.updates} updates. Run folder: {folder}",
        highlight=False,
        soft_wrap=True,
    )
    cells = list(product(range(config.seeds), config.inputs, config.starts, config.students))
    done = {(run.seed, *run.cell) for run in result.runs}
    if len(done) < len(cells):  # the animation needs the paths of its runs, which are short
        result.travel = None
    animated = [(0, config.inputs[0], config.starts[0], student) for student in config.students]
    todo = [cell for cell in cells if cell not in done or (result.travel is None and cell in animated)]
    teachers = [_teacher(config, seed) for seed in range(config.seeds)]
    result.teachers = [Taps(seed, it.position.tolist(), it.weight.tolist()) for seed, it in enumerate(teachers)]
    paths: dict[StudentName, Tensor] = {}
    images = len(todo) * config.updates * config.kernels * config.batch_size
    with record.under_way(console), ProgressBar(console, images) as progress:
        try:
            for cell in todo:
                seed, inputs, start, student = cell
                progress.describe(f"{student}, {inputs}, {start}, seed {seed}")
                run, search = _run(config, teachers[seed], values[inputs], cell, progress)
                if cell not in done:
                    result.runs.append(run)
                if cell in animated:
                    paths[student] = search.path
                if student == config.students[-1]:
                    record.save()
        finally:
            if paths:
                result.travel = _travel(result, paths)
    part = positions_section(result, folder) if result.runs else None
    present(part, folder, console, lambda: draw_pictures(folder, result))
    return result


def _random(*place: int | str) -> np.random.Generator:
    return np.random.default_rng(seed_of("positions", *place))


def _teacher(config: PositionsConfig, seed: int) -> Teacher:
    random = _random(seed, "teacher")
    return Teacher.drawn(config.kernels, config.taps, config.reach, config.dilated_kernel_size, random)


def _run(
    config: PositionsConfig,
    teacher: Teacher,
    values: tuple[Tensor, Tensor],
    cell: tuple[int, Inputs, Start, StudentName],
    progress: ProgressBar,
) -> tuple[PositionsRun, Search]:
    """Trains one student on one seed's kernels; all students have the same teachers, starts, weights and images."""
    seed, inputs, start, student = cell
    train, test = values
    assert config.updates is not None
    shape = (config.kernels, config.taps)
    random = _random(seed, start)
    if start == "narrow":
        position = random.normal(0, _NARROW, (2, *shape))
    else:
        position = random.uniform(-config.reach, config.reach, (2, *shape))
    bound = config.taps**-0.5
    weight = _random(seed, "weight").uniform(-bound, bound, shape)
    draws = _random(seed, inputs, "train")

    def draw() -> Tensor:
        progress.advance(config.batch_size * config.kernels)
        return drawn(train, config.batch_size, config.kernels, draws)

    search = find_taps(
        STUDENTS[student],
        teacher,
        torch.from_numpy(position).float(),
        torch.from_numpy(weight).float(),
        draw,
        drawn(test, _TEST_IMAGES, config.kernels, _random(seed, inputs, "test")),
        updates=config.updates,
        lr=config.lr,
        position_lr_scale=config.position_lr_scale,
        moments=min(_MOMENTS, config.updates),
    )
    first, last = search.outcomes[0], search.outcomes[-1]
    curve = [Moment(it.update, float(it.loss.mean()), float(it.found.mean())) for it in search.outcomes]
    measured = _rounded(last.loss), _rounded(last.distance), _rounded(first.found)
    return PositionsRun(*cell, *measured, curve), search


def _travel(result: PositionsResult, paths: Mapping[StudentName, Tensor]) -> Travel:
    """What the animation shows, of `Search.path` of the first seed, inputs and start."""
    config = result.config
    assert config.updates is not None
    place = config.inputs[0], config.starts[0]
    kernel = typical_kernel(result, place, list(paths))
    updates = sorted({round(frame * config.updates / _FRAMES) for frame in range(_FRAMES + 1)})
    shown = {student: _rounded(path[updates][:, :, kernel]) for student, path in paths.items()}
    return Travel(*place, kernel, updates, shown)


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().numpy(), 3).tolist()
