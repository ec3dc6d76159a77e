"""Trained models, read from the checkpoints of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from torchdcls.models.stored import check_stored, making

from .averaged import Taken, taken_part
from .checkpoint import Checkpoint, load_checkpoint
from .settings import SETTINGS, TrainConfig, Weights
from .trainer import build_model


@dataclass(frozen=True)
class Trained:
    """A trained model, and what its checkpoint says of it.

    Args:
        model: On the CPU.
        run: Settings of its run.
        taken: Which of the checkpoint's weights it has, and why.
        num_classes: Number of its classes.
        classes: Their names, None where the data had none.
    """

    model: nn.Module
    run: TrainConfig
    taken: Taken
    num_classes: int
    classes: Sequence[str] | None


def read_trained(path: Path, weights: Weights) -> Trained:
    """Reads the model of a run's checkpoint; nothing in the file is run.

    Args:
        path: best.safetensors or last.safetensors of a run.
        weights: The trained weights, "model", or their average, "ema"; "auto" takes those that were better in the run's
            last validation.

    Raises:
        ValueError: The file cannot be read, holds no such weights or those of another model, is of a version with other
            settings, or describes a model that a file may not describe.
    """
    stored = load_checkpoint(path)
    run = _settings(stored)
    taken = taken_part(stored, weights)
    check_stored("checkpoint", path, run.model, run.model_args or {})
    with making("checkpoint", path, sum(tensor.numel() for tensor in stored.tensors.values())):
        model = build_model(run, stored.about["num_classes"])
    stored.load_weights(model, taken.part)
    return Trained(model, run, taken, stored.about["num_classes"], stored.about.get("classes"))


def _settings(stored: Checkpoint) -> TrainConfig:
    settings = stored.about.get("config") if isinstance(stored.about, dict) else None
    if not isinstance(settings, dict):
        raise ValueError(f"checkpoint: '{stored.path}' cannot be read, as it lacks the settings of its run")
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(
            f"checkpoint: '{stored.path}' has settings that this version does not know ({', '.join(unknown)}); "
            "use the version that wrote it, which its run.json names"
        )
    try:
        paths = {name: Path(settings[name]) for name in ("data_dir", "out") if settings.get(name) is not None}
        config = TrainConfig(**{**settings, **paths})
        # Weights are in the file: timm's own are not fetched again.
        given = {name: value for name, value in (config.model_args or {}).items() if name != "pretrained"}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint: '{stored.path}' has settings of other types ({error})") from None
    return replace(config, model_args=given or None)
