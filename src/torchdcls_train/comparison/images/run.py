"""The comparison of 7x7 and DCLS layers: the same small model, trained once for each method and seed."""

from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torchdcls.conversion import parameter_count

from ...data.held_batches import HeldBatches
from ...data.image_set import ImageData, balanced
from ...data.in_memory import channel_mean_std, images_per_epoch, load_data
from ...processes import device_name, find_device, set_threads
from ...runs.progress_bar import ProgressBar
from ..compared import save_compared
from ..config import CompareConfig, Method
from ..models import method_model
from ..record import Record
from ..report import present
from ..training import Epoch, short_run, short_settings
from .findings import finished_runs, images_part, markdown
from .pictures import StageView, draw_pictures, stage_views


def compare_images(
    config: CompareConfig, *, argv: list[str] | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Trains, records, draws and prints a comparison; what was done so far stays readable if it is interrupted.

    The run folder gets `results.json` (settings, versions, every epoch), `table.md`, `checkpoints/*.safetensors`,
    `accuracy.png`, `positions.png`, `kernels.png` and `report.html`, which holds them all.

    Args:
        config: Settings.
        argv: The command's arguments, for the record; by default those of the process.
        console: Where to print; by default standard output.

    Returns:
        What `results.json` holds. `result["status"]` is "finished" or "interrupted".

    Raises:
        ValueError: A setting or the data cannot be used; the message says what to do.
        FloatingPointError: A loss is not finite.
    """
    console = console or Console()
    config = config.checked()
    device = find_device(config.device)
    threads = set_threads(config.threads, device)
    data = load_data(config.data, config.data_dir, config.image_size, max_image_pixels=config.max_image_pixels)
    if config.train_images is not None:
        data = replace(data, train=balanced(data.train, config.train_images))
    folder = config.out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    for method in config.methods:
        method_model(config, method, data, seed=0)  # what cannot be built is refused before an hour of training
    if device.type == "cuda":
        data = replace(data, train=data.train.to(device), test=data.test.to(device))
    facts = image_facts(config, data, device_name(device), torch.get_num_threads())
    record = Record(folder, "comparison", argv, facts)
    console.print(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images, {data.image_size} pixels, "
        f"{data.num_classes} classes. Run folder: {folder}",
        soft_wrap=True,
    )
    if threads is not None:
        console.print(threads, soft_wrap=True, highlight=False)

    views: dict[str, list[StageView]] = {}
    assert config.seeds is not None and config.epochs is not None
    images = len(config.methods) * config.seeds * config.epochs * images_per_epoch(data.train, config.batch_size)
    with record.under_way(console), ProgressBar(console, images) as progress:
        for seed in range(config.seeds):
            for method in config.methods:
                views.setdefault(method, _run(config, method, seed, data, device, record, progress))
    done = bool(finished_runs(record.result))
    present(record.result, folder, console, done, images_part, markdown, partial(draw_pictures, views=views))
    return record.result


def _run(
    config: CompareConfig,
    method: Method,
    seed: int,
    data: ImageData,
    device: torch.device,
    record: Record,
    progress: ProgressBar,
) -> list[StageView]:
    model, report = method_model(config, method, data, seed)
    before = stage_views(model)
    model.to(device)
    run: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "parameters": parameter_count(model),
        "kernel_count": None if report is None else report.kernel_count,
        "epochs": [],
    }
    record.result["runs"].append(run)
    title = f"{method}, seed {seed}"
    progress.describe(title)
    mean, std = channel_mean_std(data.train.images)
    settings = short_settings(config, seed, bilinear=method == "bilinear")
    batches = HeldBatches(data.train, config.batch_size, mean, std, seed)
    watched = HeldBatches(data.test, config.batch_size, mean, std)
    epochs = short_run(model, batches, watched, settings, device, on_images=progress.advance)
    for epoch in epochs:
        run["epochs"].append(watched_epoch(epoch))
        record.save()
        progress.say(
            f"{title:<18} epoch {epoch.epoch}/{config.epochs}  training loss {epoch.train_loss:.3f}  "
            f"test accuracy {epoch.accuracy:.2f} %  {epoch.images_per_second:.0f} images/s"
        )
    checkpoints = record.folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    path = checkpoints / f"{method}-seed{seed}.safetensors"
    save_compared(path, model, config, method, seed, data)
    return stage_views(model, before=before)


def image_facts(config: CompareConfig, data: ImageData, device: str, threads: int) -> dict[str, Any]:
    """What the record of a comparison on images begins with.

    Args:
        config: Settings, checked.
        data: The images.
        device: Where models are trained, in words.
        threads: CPU threads.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in ("data_dir", "out")}
    settings.update(data=Path(config.data).name, methods=list(config.methods))
    return {
        "device": device,
        "threads": threads,
        "config": settings,
        "data": {
            "name": data.name,
            "train_images": len(data.train),
            "test_images": len(data.test),
            "image_size": data.image_size,
            "channels": data.channels,
            "classes": list(data.classes),
            "skipped_images": data.skipped,
        },
        "runs": [],
    }


def watched_epoch(epoch: Epoch) -> dict[str, Any]:
    """An epoch for the record. It was watched by the test images, and is named so."""
    watched = ("loss", "accuracy")
    return {f"test_{name}" if name in watched else name: value for name, value in asdict(epoch).items()}
