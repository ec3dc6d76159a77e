"""The trained model of a run, read from a checkpoint: its settings, and which of its weights are taken.

A checkpoint may hold trained weights and their average. Those are taken that were better in the run's last validation:
the average of few updates is mostly made of the run's first weights, and far worse than the trained ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from torchdcls.models.stored import check_stored, making

from ..settings import SETTINGS, TrainConfig, Weights
from ..trainer import build_model
from .checkpoint import Checkpoint, load_checkpoint

StoredWeights = Literal["model", "ema"]
PARTS: dict[StoredWeights, str] = {"model": "trained weights", "ema": "averaged weights"}

# The share of trained weights from which on an average counts as one of them: three of its time constants.
_GROWN = 0.95


class Taken(NamedTuple):
    """Which weights of a checkpoint are taken, why, and what speaks against it; printed, a sentence."""

    part: StoredWeights
    why: str
    warning: str | None

    def __str__(self) -> str:
        return f"{PARTS[self.part]}: {self.why}" + ("" if self.warning is None else f"; warning: {self.warning}")


@dataclass(frozen=True)
class Trained:
    """A trained model on the CPU, the settings of its run, which weights it has, and names of classes, if there are."""

    model: nn.Module
    run: TrainConfig
    taken: Taken
    num_classes: int
    classes: Sequence[str] | None


def read_trained(path: Path, weights: Weights) -> Trained:
    """Reads the model of a run's checkpoint; nothing in the file is run.

    Args:
        path: best.safetensors or last.safetensors of a run.
        weights: As `taken_part` takes them.

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


def better_part(scores: Mapping[str, Any]) -> StoredWeights:
    """The better of the two in a line of metrics: by top-1, and by loss where that is equal."""
    if "ema_val_top1" not in scores:
        return "model"
    trained, averaged = ((scores[f"{name}_top1"], -scores[f"{name}_loss"]) for name in ("val", "ema_val"))
    return "ema" if averaged >= trained else "model"


def taken_part(stored: Checkpoint, asked: Weights) -> Taken:
    """Which weights of a checkpoint are taken.

    Args:
        stored: The checkpoint.
        asked: The trained weights, "model", or their average, "ema"; "auto" takes those that were better in the run's
            last validation, and before there was one the average if at least 95 % of it is trained.

    Raises:
        ValueError: The checkpoint has no such weights.
    """
    there: list[StoredWeights] = [part for part in PARTS if stored.has(part)]
    decay, updates = stored.about.get("config", {}).get("ema"), stored.about.get("ema_updates")
    # What later weights than the run's first have of the average.
    share = 1.0 if decay is None or updates is None else 1.0 - decay**updates
    scores = stored.about.get("scores")
    part: StoredWeights
    if asked != "auto":
        if asked not in there:
            raise ValueError(f"weights: expected a checkpoint with {asked!r}, got '{stored.path}' without; take 'auto'")
        part, why = asked, "as asked"
    elif len(there) == 1:
        part, why = there[0], "the only ones in the file"
    else:
        if scores is not None:
            part = better_part(scores)
            averaged = f"{scores['ema_val_top1']:.2f} % averaged"
            why = f"top-1 {scores['val_top1']:.2f} % in the run's last validation, {averaged}"
        else:
            part, why = ("ema" if share >= _GROWN else "model"), "the file has no scores of a validation"
        other: StoredWeights = "model" if part == "ema" else "ema"
        why += f"; --weights {other} takes the {PARTS[other]}"
    # An average that was the better one is good enough, however young.
    unproven = part == "ema" and share < _GROWN and (scores is None or better_part(scores) == "model")
    young = f"only {100 * share:.0f} % of this average is trained, the rest is the run's first weights"
    return Taken(part, why, young if unproven else None)


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
