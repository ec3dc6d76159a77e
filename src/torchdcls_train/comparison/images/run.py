"""The comparison of 7x7 and DCLS layers: the same small model, trained once for each method and seed."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_model
from torch import nn

from torchdcls.conversion import parameter_count

from ...data.held_batches import HeldBatches
from ...data.image_set import ImageData, balanced
from ...data.in_memory import channel_mean_std, images_per_epoch, load_data
from ...processes import device_name, find_device, set_threads
from ...runs.progress_bar import ProgressBar
from ..compared import save_compared
from ..config import CompareConfig, Layers
from ..models import compared_model
from ..record import Record, run_folder
from ..report import present
from ..result import origin
from ..training import short_run, short_settings
from .findings import finished_runs, images_section
from .pictures import StageView, draw_pictures, stage_views
from .result import ImagesData, ImagesEpoch, ImagesResult, ImagesRun

_PACKAGES = ("torch", "torchvision", "timm", "torchdcls")


def compare_images(
    config: CompareConfig, *, argv: list[str] | None = None, console: Console | None = None
) -> ImagesResult:
    """Trains what is not in the run folder yet, records, draws and prints; a run that was interrupted is repeated.

    The run folder gets `results.json` (settings, versions, every epoch), `table.md`, `checkpoints/*.safetensors`,
    `accuracy.png`, `positions.png`, `kernels.png` and `report.html`, which holds them all.

    Args:
        argv: The command's arguments, for `results.json`; by default those of the process.

    Raises:
        ValueError: A setting, the data or the folder cannot be used; the message says what to do.
        FloatingPointError: A loss is not finite.
    """
    console = console or Console()
    config = config.checked()
    device = find_device(config.device)
    threads = set_threads(config.threads, device)
    data = load_data(config.data, config.data_dir, config.image_size, max_image_pixels=config.max_image_pixels)
    if config.train_images is not None:
        data = replace(data, train=balanced(data.train, config.train_images))
    folder = run_folder(config.out, "compare")
    for method in config.methods:
        compared_model(config, method, data, seed=0)  # what cannot be built is refused before an hour of training
    if device.type == "cuda":
        data = replace(data, train=data.train.to(device), test=data.test.to(device))
    record = Record(folder, new_result(config, data, device_name(device), argv))
    console.print(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images, {data.image_size} pixels, "
        f"{data.num_classes} classes. Run folder: {folder}",
        soft_wrap=True,
    )
    if threads is not None:
        console.print(threads, soft_wrap=True, highlight=False)

    assert config.seeds is not None and config.epochs is not None
    whole = [run for run in record.result.runs if len(run.epochs) == config.epochs]
    record.result.runs = [run for run in whole if _checkpoint(record, run.method, run.seed).exists()]
    done = {(run.method, run.seed) for run in record.result.runs}
    runs = [(method, seed) for seed in range(config.seeds) for method in config.methods]
    images = (len(runs) - len(done)) * config.epochs * images_per_epoch(data.train, config.batch_size)
    views: dict[str, list[StageView]] = {}
    with record.under_way(console), ProgressBar(console, images) as progress:
        for method, seed in runs:
            model, report = compared_model(config, method, data, seed)
            before = stage_views(model)
            if (method, seed) in done:
                if method not in views:
                    load_model(model, str(_checkpoint(record, method, seed)))
            else:
                model.to(device)
                count = None if report is None else report.kernel_count
                run = ImagesRun(method, seed, parameter_count(model), count)
                _train(model, run, config, data, device, record, progress)
            views.setdefault(method, stage_views(model, before))
    result = record.result
    part = images_section(result, folder) if finished_runs(result) else None
    present(part, folder, console, lambda: draw_pictures(folder, result, views))
    return result


def _train(
    model: nn.Module,
    run: ImagesRun,
    config: CompareConfig,
    data: ImageData,
    device: torch.device,
    record: Record[ImagesResult],
    progress: ProgressBar,
) -> None:
    record.result.runs.append(run)
    title = f"{run.method}, seed {run.seed}"
    progress.describe(title)
    mean, std = channel_mean_std(data.train.images)
    settings = short_settings(config, run.seed, bilinear=run.method == "bilinear")
    batches = HeldBatches(data.train, config.batch_size, mean, std, run.seed)
    watched = HeldBatches(data.test, config.batch_size, mean, std)
    for epoch in short_run(model, batches, watched, settings, device, on_images=progress.advance):
        run.epochs.append(ImagesEpoch(*astuple(epoch)))
        record.save()
        progress.say(
            f"{title:<18} epoch {epoch.epoch}/{config.epochs}  training loss {epoch.train_loss:.3f}  "
            f"test accuracy {epoch.accuracy:.2f} %  {epoch.images_per_second:.0f} images/s"
        )
    path = _checkpoint(record, run.method, run.seed)
    path.parent.mkdir(exist_ok=True)
    save_compared(path, model, config, run.method, run.seed, data)


def _checkpoint(record: Record[ImagesResult], method: Layers, seed: int) -> Path:
    return record.folder / "checkpoints" / f"{method}-seed{seed}.safetensors"


def new_result(config: CompareConfig, data: ImageData, device: str, argv: Sequence[str] | None) -> ImagesResult:
    """The results to begin with. The device is one in words; `argv` is that of `compare_images`."""
    counts = len(data.train), len(data.test)
    about = ImagesData(data.name, *counts, data.image_size, data.channels, list(data.classes), data.skipped)
    return ImagesResult(
        **origin(argv, _PACKAGES),
        device=device,
        threads=torch.get_num_threads(),
        config=replace(config, data=Path(config.data).name, data_dir=None, out=None, methods=tuple(config.methods)),
        data=about,
    )
