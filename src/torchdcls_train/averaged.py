"""The trained weights of a run and their average: which of the two are taken where a checkpoint holds both.

One rule: those that were better in the run's last validation. The average of few updates is mostly made of weights
from the start of the run, and far worse than the weights that were trained.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from .checkpoint import Checkpoint
from .settings import Weights

Part = Literal["model", "ema"]
PARTS: dict[Part, str] = {"model": "trained weights", "ema": "averaged weights"}

# The share of trained weights from which on an average counts as one of them: three of its time constants.
_GROWN = 0.95


class Taken(NamedTuple):
    """Which weights of a checkpoint are taken, why, and what speaks against it; printed, a sentence."""

    part: Part
    why: str
    warning: str | None

    def __str__(self) -> str:
        return f"{PARTS[self.part]}: {self.why}" + ("" if self.warning is None else f"; warning: {self.warning}")


def better_part(scores: Mapping[str, Any]) -> Part:
    """The better of the two in a line of metrics: by top-1, and by loss where that is equal."""
    if "ema_val_top1" not in scores:
        return "model"
    trained, averaged = ((scores[f"{name}_top1"], -scores[f"{name}_loss"]) for name in ("val", "ema_val"))
    return "ema" if averaged >= trained else "model"


def trained_share(decay: float, updates: int) -> float:
    """The share of an average that later weights than the run's first have: 1 - decay ** updates."""
    return 1.0 - decay**updates


def taken_part(stored: Checkpoint, asked: Weights) -> Taken:
    """Which weights of a checkpoint are taken.

    Args:
        stored: The checkpoint.
        asked: "auto" takes those that were better in the run's last validation; before there was one, the average if
            at least 95 % of it is trained.

    Raises:
        ValueError: The checkpoint has no such weights.
    """
    there: list[Part] = [part for part in get_args(Part) if stored.has(part)]
    decay, updates = stored.about.get("config", {}).get("ema"), stored.about.get("ema_updates")
    share = 1.0 if decay is None or updates is None else trained_share(decay, updates)
    scores = stored.about.get("scores")
    part: Part
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
        other: Part = "model" if part == "ema" else "ema"
        why += f"; --weights {other} takes the {PARTS[other]}"
    # An average that was the better one is good enough, however young.
    unproven = part == "ema" and share < _GROWN and (scores is None or better_part(scores) == "model")
    young = f"only {100 * share:.0f} % of this average is trained, the rest is the run's first weights"
    return Taken(part, why, young if unproven else None)
