"""Scores of a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .checkpoint import load_checkpoint
from .data.batches import ValidationBatches
from .data.image_source import Stream
from .data.sources import open_sources
from .data.transforms import preparation, validation_transform
from .processes import device_name, processes
from .progress import ProgressBar
from .settings import EvalConfig, TrainConfig
from .trainer import autocast, build_model
from .validation import Scores, validate


def evaluate(checkpoint: Path, config: EvalConfig, console: Console | None = None) -> Scores:
    """Scores a checkpoint of a run and prints the result.

    Args:
        checkpoint: best.safetensors or last.safetensors of a run.
        config: What to score it on.
        console: Where to print; by default standard output.

    Raises:
        ValueError: The checkpoint or the data cannot be used.
    """
    stored = load_checkpoint(checkpoint)
    asked: dict[str, Any] = {
        name: value for name, value in vars(config).items() if value is not None and name != "weights"
    }
    run = stored_config(stored.about["config"])
    settings = replace(run, batch_size=config.micro_batch or run.micro_batch, **asked)
    part = ("ema" if stored.has("ema") else "model") if config.weights == "auto" else config.weights
    if not stored.has(part):
        raise ValueError(f"weights: expected a checkpoint with {part!r} in it, got '{checkpoint}' without; take 'auto'")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with processes(settings.device) as group:
        console = console or Console(quiet=not group.main)
        sources = open_sources(settings)
        classes = stored.about["num_classes"]
        if (sources.num_classes or 0) > classes:
            raise ValueError(f"data: expected at most the model's {classes} classes, got {sources.num_classes}")
        model = build_model(settings, classes)
        stored.load_weights(model, part)
        model.to(group.device)
        batches = ValidationBatches(
            sources.validation,
            validation_transform(settings, *preparation(model)),
            batch=settings.micro_batch,
            rank=group.rank,
            world=group.world,
            workers=settings.workers,
            pin_memory=group.device.type == "cuda",
        )
        count = sources.validation.count if isinstance(sources.validation, Stream) else len(sources.validation)
        with ProgressBar(console, None if count is None else count // group.world) as bar:
            scores = validate(
                model, batches, group, autocast(settings, group.device), settings.channels_last, bar.advance
            )
        unreadable = f", {scores.unreadable} unreadable ones left out" if scores.unreadable else ""
        console.print(
            f"{settings.model} on {sources.name}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
            f"loss {scores.loss:.4f} ({scores.images:,} images{unreadable}; {part} weights, "
            f"{device_name(group.device)})",
            highlight=False,
            soft_wrap=True,
        )
        return scores


def stored_config(settings: dict[str, Any]) -> TrainConfig:
    """The settings that a checkpoint holds."""
    paths = {name: None if settings[name] is None else Path(settings[name]) for name in ("data_dir", "out")}
    return TrainConfig(**{**settings, **paths})
