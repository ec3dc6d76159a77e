"""Scores of a checkpoint."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from torchdcls.models.stored import check_stored, making

from .averaged import Taken, taken_part
from .checkpoint import Checkpoint, load_checkpoint
from .comparison.compared import about_compared, evaluate_compared, load_compared
from .data.image_folder import shortened
from .data.image_source import image_count
from .data.sources import open_sources
from .processes import device_name, processes
from .progress import ProgressBar
from .settings import SETTINGS, EvalConfig, TrainConfig, Weights
from .trainer import build_model
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
    stored = load_checkpoint(checkpoint)
    asked: dict[str, Any] = {
        name: value for name, value in vars(config).items() if value is not None and name != "weights"
    }
    run = stored_config(stored)
    if not asked.get("data", run.data):
        raise ValueError("data: expected a folder or a name, got nothing")
    settings = replace(run, **asked, batch_size=config.micro_batch or run.micro_batch, mixup=0.0, cutmix=0.0)
    settings = _without_counts(_validation_alone(settings), run)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with processes(settings.device) as group:
        console = console or Console(quiet=not group.main)
        sources = open_sources(settings)
        model, taken = stored_model(stored, settings, config.weights)
        model.to(group.device)
        numbers = class_numbers(
            stored.about.get("classes"), stored.about["num_classes"], sources.classes, sources.num_classes
        )
        batches = validation_batches(settings, sources.validation, model, group)
        count = image_count(sources.validation)
        with ProgressBar(console, None if count is None else count // group.world) as bar:
            renumbered = (replace(batch, labels=numbers[batch.labels]) for batch in batches)
            scores = validate(model, renumbered, group, settings, bar.advance)
        unreadable = f", {scores.unreadable} unreadable ones left out" if scores.unreadable else ""
        some = _some(sources.classes, stored.about["num_classes"])
        console.print(
            f"{settings.model} on {sources.name}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
            f"loss {scores.loss:.4f} ({scores.images:,} images{unreadable}{some}; {device_name(group.device)})\n"
            f"{taken}",
            highlight=False,
            soft_wrap=True,
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
    stored = load_checkpoint(checkpoint)
    model, taken = stored_model(stored, stored_config(stored), weights)
    if taken.warning is not None:
        warnings.warn(f"weights: {taken.warning}; weights='model' takes the trained ones", stacklevel=2)
    return model.eval()


def stored_config(checkpoint: Checkpoint) -> TrainConfig:
    """The settings that a checkpoint holds.

    Raises:
        ValueError: It is of a version with other settings, or they are of other types.
    """
    settings = checkpoint.about.get("config") if isinstance(checkpoint.about, dict) else None
    if not isinstance(settings, dict):
        raise ValueError(f"checkpoint: '{checkpoint.path}' cannot be read, as it lacks the settings of its run")
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(
            f"checkpoint: '{checkpoint.path}' has settings that this version does not know ({', '.join(unknown)}); "
            "use the version that wrote it, which its run.json names"
        )
    try:
        paths = {name: Path(settings[name]) for name in ("data_dir", "out") if settings.get(name) is not None}
        config = TrainConfig(**{**settings, **paths})
        # Weights are in the file: timm's own are not fetched again.
        given = {name: value for name, value in (config.model_args or {}).items() if name != "pretrained"}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint: '{checkpoint.path}' has settings of other types ({error})") from None
    return replace(config, model_args=given or None)


def stored_model(stored: Checkpoint, settings: TrainConfig, weights: Weights) -> tuple[nn.Module, Taken]:
    """The model of a checkpoint, and which of its weights it has.

    Raises:
        ValueError: It holds no such weights, those of another model, or describes one that a file may not describe.
    """
    taken = taken_part(stored, weights)
    check_stored("checkpoint", stored.path, settings.model, settings.model_args or {})
    with making("checkpoint", stored.path, sum(tensor.numel() for tensor in stored.tensors.values())):
        model = build_model(settings, stored.about["num_classes"])
    stored.load_weights(model, taken.part)
    return model, taken


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
