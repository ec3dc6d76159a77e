"""Scores of a checkpoint."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from .comparison.compared import about_compared, evaluate_compared, load_compared
from .data.open_sources import open_sources
from .data.source_types import image_count, shortened
from .processes import device_name, processes
from .runs.progress_bar import ProgressBar, say
from .runs.trained_model import read_trained
from .settings import EvalConfig, TrainConfig, Weights
from .validation import Scores, class_numbers, validate, validation_batches


def evaluate(checkpoint: str | Path, config: EvalConfig, console: Console | None = None) -> Scores:
    """Scores a checkpoint of a run, or a model of a comparison, and prints the result.

    Args:
        checkpoint: best.safetensors or last.safetensors of a run, or a file in checkpoints/ of a comparison.
        config: What to score it on.
        console: Where to print; by default standard output.

    Raises:
        ValueError: The checkpoint or the data cannot be used.
    """
    checkpoint = Path(checkpoint)
    if (compared := about_compared(checkpoint)) is not None:
        return evaluate_compared(checkpoint, compared, config, console)
    trained = read_trained(checkpoint, config.weights)
    run, model = trained.run, trained.model
    asked: dict[str, Any] = {
        name: value for name, value in vars(config).items() if value is not None and name != "weights"
    }
    if not asked.get("data", run.data):
        raise ValueError("data: expected a folder or a name, got nothing")
    settings = replace(run, **asked, batch_size=config.micro_batch or run.micro_batch, mixup=0.0, cutmix=0.0)
    settings = _without_counts(_validation_alone(settings), run)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with processes(settings.device) as group:
        console = console or Console(quiet=not group.main)
        sources = open_sources(settings)
        model.to(group.device)
        numbers = class_numbers(trained.classes, trained.num_classes, sources.classes, sources.num_classes)
        batches = validation_batches(settings, sources.validation, model, group)
        count = image_count(sources.validation)
        with ProgressBar(console, None if count is None else count // group.world) as bar:
            renumbered = (replace(batch, labels=numbers[batch.labels]) for batch in batches)
            scores = validate(model, renumbered, group, settings, bar.advance)
        unreadable = f", {scores.unreadable} unreadable ones left out" if scores.unreadable else ""
        some = _some(sources.classes, trained.num_classes)
        say(
            console,
            f"{settings.model} on {sources.name}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
            f"loss {scores.loss:.4f} ({scores.images:,} images{unreadable}{some}; {device_name(group.device)})\n"
            f"{trained.taken}",
        )
        return scores


def load_model(checkpoint: str | Path, weights: Weights = "auto") -> nn.Module:
    """The model of a checkpoint, on the CPU, in evaluation mode.

    Args:
        checkpoint: best.safetensors or last.safetensors of a run.
        weights: The trained weights, "model", or their average, "ema"; "auto" takes those that were better in the run's
            last validation.

    Raises:
        ValueError: The file cannot be read, or holds no such weights.
    """
    checkpoint = Path(checkpoint)
    if (compared := about_compared(checkpoint)) is not None:
        return load_compared(checkpoint, compared)
    trained = read_trained(checkpoint, weights)
    if trained.taken.warning is not None:
        warnings.warn(f"weights: {trained.taken.warning}; weights='model' takes the trained ones", stacklevel=2)
    return trained.model.eval()


def _validation_alone(settings: TrainConfig) -> TrainConfig:
    """Settings with which a folder need not hold training images."""
    folder = Path(settings.data).expanduser()
    if not folder.is_dir():
        return settings
    there = (name for name in ("val", "validation", "test") if (folder / name).is_dir())
    split = settings.val_split or next(there, None)
    return settings if split is None else replace(settings, train_split=split, val_split=split)


def _without_counts(settings: TrainConfig, run: TrainConfig) -> TrainConfig:
    """Settings without the numbers of images that the run took of its data; of streams they may be the only ones."""
    if settings.data.partition("/")[0] in ("wds", "hfids"):
        return settings
    return replace(settings, train_images=None, val_images=run.val_images if settings.data == run.data else None)


def _some(there: Sequence[str] | None, count: int) -> str:
    """Which of the model's classes are scored, where the data have fewer; accuracy means something else then."""
    if there is None or len(there) == count:
        return ""
    return f" of {len(there)} of the model's {count} classes: {shortened(there)}"
