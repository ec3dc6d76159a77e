"""Runs the cells of the study that are not in its folder yet: `python -m studies.run settings`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from torch import Tensor

from torchdcls.cli.options import Command
from torchdcls_results import environment
from torchdcls_train.comparison.config import CompareConfig, Inputs
from torchdcls_train.comparison.models import compared_model
from torchdcls_train.comparison.positions.inputs import drawn, prepared
from torchdcls_train.comparison.positions.task import FOUND, Student, Teacher, find_taps
from torchdcls_train.comparison.training import short_run, short_settings
from torchdcls_train.data.fashion_mnist import FASHION_MNIST_CLASSES, read_embedded
from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.image_set import ImageData, balanced
from torchdcls_train.data.in_memory import channel_mean_std
from torchdcls_train.data.random_numbers import seed_of
from torchdcls_train.runs.progress_bar import ProgressBar
from torchdcls_train.runs.writer import RunWriter, command_line

from ..config import StudyConfig
from ..images import load_images
from .plan import INPUTS, SEEDS, NetworkCell, TapsCell, Task, planned, task_of
from .records import RECORDS, NetworkOutcome, TapsOutcome, line_of, read_records

_PACKAGES = ("torch", "torchdcls", "scipy", "timm")
# Those of `torchdcls compare positions`.
_TAPS, _REACH, _BATCH, _TEST, _LR, _NARROW = 6, 9.0, 2, 8, 0.05, 0.5
_EPOCHS, _VALIDATION = 4, 1000


@dataclass(frozen=True)
class SettingsConfig:
    """How much is run."""

    seeds: Mapping[Task, int]  # of each task
    kernels: int = 24  # of a seed, each an independent trial
    shortened: int = 1  # all runs are so many times shorter; for tests


DEFAULT = SettingsConfig(SEEDS)


def run_settings(
    folder: Path,
    config: SettingsConfig = DEFAULT,
    *,
    tasks: Sequence[Task] = ("taps", "networks"),
    argv: Sequence[str] | None = None,
    console: Console | None = None,
) -> Literal["finished", "interrupted"]:
    """Runs what is left of some tasks into the folder's `settings.jsonl`; rerun to resume after the last finished cell.

    Raises:
        ValueError: Another process has the folder, or its records are broken.
    """
    console = console or Console()
    torch.set_num_threads(1)
    origin = environment(command_line(argv, ("python", "-m", "studies.run")), _PACKAGES)
    with RunWriter(folder, "study.json", RECORDS) as writer:
        writer.write({"study": "settings", **asdict(config)})
        done = read_records(folder / RECORDS).outcomes
        cells = [cell for cell in planned(config.seeds) if task_of(cell) in tasks]
        left = [cell for cell in cells if cell.id not in done]
        console.print(f"{len(cells) - len(left)} of {len(cells)} runs are done. Run folder: {folder}", soft_wrap=True)
        if left:
            writer.add({"origin": origin})
        search, train = TapsSearch(config), NetworkTraining(config)
        try:
            with ProgressBar(console, len(left)) as progress:
                for cell in left:
                    writer.add(line_of(cell, search(cell) if isinstance(cell, TapsCell) else train(cell)))
                    progress.advance(1)
        except KeyboardInterrupt:
            console.print("Interrupted; rerun the same command to resume")
            return "interrupted"
    return "finished"


class TapsSearch:
    """Runs cells of the recovery task; those of one seed have the same taps, starts, weights and images."""

    def __init__(self, config: SettingsConfig) -> None:
        self._config = config
        train, test = read_embedded()
        self._values: dict[Inputs, tuple[Tensor, Tensor]] = {
            inputs: (prepared(train.images, inputs), prepared(test.images, inputs)) for inputs in INPUTS
        }

    def __call__(self, cell: TapsCell) -> TapsOutcome:
        kernels = self._config.kernels
        teacher = Teacher.drawn(kernels, _TAPS, _REACH, cell.size, _random(cell.seed, "teacher"))
        shape = (kernels, cell.elements)
        random = _random(cell.seed, "position")
        if cell.radius == 0:
            position = random.normal(0, _NARROW, (2, *shape))
        else:
            position = cell.radius * random.uniform(-1, 1, (2, *shape))
        bound = cell.elements**-0.5
        weight = bound * _random(cell.seed, "weight").uniform(-1, 1, shape)
        train, test = self._values[cell.inputs]
        draws = _random(cell.seed, cell.inputs, "train")
        last = find_taps(
            Student(cell.interpolation, cell.sigma, cell.annealed),
            teacher,
            torch.from_numpy(position).float(),
            torch.from_numpy(weight).float(),
            lambda: drawn(train, _BATCH, kernels, draws),
            drawn(test, _TEST, kernels, _random(cell.seed, cell.inputs, "test")),
            updates=max(1, cell.updates // self._config.shortened),
            lr=_LR,
            position_lr_scale=cell.position_lr_scale,
            moments=1,
        ).outcomes[-1]
        found = (last.distance < FOUND).sum(1).tolist()
        return TapsOutcome(found, _TAPS, [float(f"{loss:.2g}") for loss in last.loss.tolist()])


class NetworkTraining:
    """Runs cells of the small network, by the recipe of `torchdcls compare images`."""

    def __init__(self, config: SettingsConfig) -> None:
        self._shortened = config.shortened
        images = load_images(StudyConfig(data="embedded", validation_images=_VALIDATION))
        self._data = ImageData(images.training, images.validation, FASHION_MNIST_CLASSES, images.name)
        if config.shortened > 1:
            self._data = replace(self._data, train=balanced(images.training, 100))

    def __call__(self, cell: NetworkCell) -> NetworkOutcome:
        config = CompareConfig(
            dilated_kernel_size=cell.size,
            position_radius=cell.radius,
            sigma_init=cell.sigma,
            kernel_count=cell.elements,
            epochs=max(1, _EPOCHS // self._shortened),
        ).checked()
        model, report = compared_model(config, cell.method, self._data, cell.seed)
        settings = replace(
            short_settings(config, cell.seed, bilinear=cell.method == "bilinear"),
            position_lr_scale=cell.position_lr_scale,
        )
        mean, std = channel_mean_std(self._data.train.images)
        training = HeldBatches(self._data.train, config.batch_size, mean, std, cell.seed)
        validation = HeldBatches(self._data.test, config.batch_size, mean, std)
        *_, last = short_run(model, training, validation, settings, torch.device("cpu"))
        return NetworkOutcome(last.accuracy, None if report is None else report.kernel_count)


def _options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="python -m studies.run settings [--out FOLDER] [--tasks taps | networks]",
        description="Measure which settings of DCLS layers matter, around the paper's. Rerun the same command to "
        "resume.",
    )
    parser.add_argument("config", type=Literal["settings"], help="this study")
    parser.add_argument("--out", type=Path, default=Path("runs/study-settings"), help="folder of the study")
    tasks = list(get_args(Task))
    parser.add_argument("--tasks", nargs="+", type=Task, default=tasks, help="run the cells of these alone")
    return parser


def _settings(settings: dict[str, Any], arguments: list[str]) -> int:
    state = run_settings(settings["out"], tasks=settings["tasks"], argv=arguments)
    return 130 if state == "interrupted" else 0


COMMAND = Command(_options, _settings)


def _random(*place: int | str) -> np.random.Generator:
    return np.random.default_rng(seed_of("settings", *place))
