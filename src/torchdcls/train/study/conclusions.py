"""What may be concluded from a study and what may not, in sentences made of its records."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from ...models.comparison import SMALL_MODELS, stem_stride
from ..comparison.record import model_title
from .config import BASELINE, LEARNED
from .plan import Sweep
from .records import Study
from .results import Comparison, comparisons, finals, standard_error, sweep_points, tuned

# How far above the number of cores a load average is before trainings are taken to have waited for each other.
_CROWDED = 0.5


def shows(comparison: Comparison) -> bool:
    """Whether anything is shown or hinted at."""
    verdict = None if comparison.difference is None else comparison.difference.verdict
    return verdict not in (None, "no difference shown", "no conclusion")


def answers(study: Study) -> str:
    """The papers' claims one by one, and what all comparisons together show."""
    found = comparisons(study)
    told = []
    for model in study.config.models:
        claims = [
            f"{it.method} better than {it.other}: {_answer(it)}"
            for it in found
            if it.model == model and it.method in LEARNED and it.other in (BASELINE, "bilinear")
        ]
        told.append(f"{model_title(model)}: {', '.join(claims)}.")
    compared = [it.difference for it in found if it.difference is not None]
    sure = [difference for difference in compared if difference.verdict in ("better", "worse")]
    # With two pairs there is an interval, of hundreds of points.
    widths = [(it.corrected[1] - it.corrected[0]) / 2 for it in compared if it.pairs > 2]
    all_told = f"Of {_counted(len(compared), 'comparison')}, corrected for their number, "
    all_told += f"{len(sure) or 'none'} {'show' if len(sure) > 1 else 'shows'} a difference"
    if widths:
        all_told += f"; to be shown it would have to be above {min(widths):.1f} to {max(widths):.1f} points"
    return f"**What the papers claim, here.** {' '.join(told)} {all_told}."


def limits(study: Study) -> str:
    """How far the study is from what the papers trained, and what it leaves out."""
    config = study.config
    lines = [line for final in finals(study) for line in final.lines.values() if line["failure"] is None]
    if not lines:
        return ""
    reached = [line["test"]["accuracy"] for line in lines]
    most = max(line["parameters"] for line in lines) / 1e6
    left_out = sorted({"triangle", "dense", "dilated", "frozen"} - set(config.methods))
    left_out += [f"the small {model}" for model in SMALL_MODELS if model not in config.models]
    parts = [
        "The papers trained models of 28 million parameters and more for 300 epochs on the 1.28 million images of "
        "ImageNet, at 224 pixels, where a first stage of 56 cells a side is 8 times as large as a 7x7 kernel.",
        f"Here models have {most:.1f} million parameters at most, and see {study.data['training_images']:,} images of "
        f"{config.side} pixels {_counted(config.epochs, 'time')}.",
    ]
    if set(config.models) <= set(SMALL_MODELS):
        cells = config.side // stem_stride(config.side)
        parts.append(f"Their first stage has {cells} cells a side, {cells / 7:.1f} times 7.")
    parts.append(
        f"They come to {min(reached):.1f} to {max(reached):.1f} % on the test images. Up-sampled images, larger models "
        "and trainings to convergence are not tested: where between the two the claims begin to hold is not known."
    )
    if left_out:
        parts.append(f"Left out here: {', '.join(left_out)}.")
    return " ".join(parts)


def tuning_note(study: Study) -> str:
    """How sure the choices of settings are."""
    leads, scores = [], []
    for model in study.config.models:
        for method in study.config.methods:
            known = [score for m, n, _, score, _ in tuned(study) if (m, n) == (model, method) and score is not None]
            if len(known) > 1:
                first, second, *_ = sorted(known, reverse=True)
                leads.append(first - second)
                scores += known
    if not leads:
        return ""
    images = study.data["validation_images"] * len(study.config.tuning.seeds)
    return (
        f"The best candidate was ahead of the second by {min(leads):.2f} to {max(leads):.2f} points, while one such "
        f"accuracy has a standard error of {standard_error(mean(scores), images):.2f}: between neighbours chance "
        "decided. Elements that start within a few cells make kernels of different sizes nearly the same while "
        "trainings are short."
    )


def sweep_note(study: Study, sweep: Sweep) -> str:
    """Whether the accuracies of a sweep differ by more than chance."""
    points = sweep_points(study, sweep)
    scores = [mean(point.accuracies) for point in points]
    seeds = min(len(point.accuracies) for point in points)
    error = standard_error(mean(scores), study.data["validation_images"] * seeds)
    spread = max(scores) - min(scores)
    verdict = "more than chance gives" if spread > 4 * error else "no more than chance gives"
    return (
        f"Accuracies span {spread:.2f} points; each has a standard error of {error:.2f} by the number of images alone: "
        f"{verdict}."
    )


def crowding(lines: Sequence[Mapping[str, Any]]) -> str:
    """A warning where trainings had to share cores, for then their speeds cannot be compared; or nothing."""
    crowded = [line["load"] for line in lines if (line["load"] or 0) > line["machine"]["cores"] + _CROWDED]
    if not crowded:
        return ""
    return (
        f"**Speeds can't be compared:** beside {len(crowded)} of {len(lines)} trainings the load average was above the "
        f"number of cores (up to {max(crowded):.1f}), so that they waited for each other and for other work. "
        "Accuracies do not depend on that."
    )


def _answer(comparison: Comparison) -> str:
    difference = comparison.difference
    if difference is None:
        return "not finished"
    answer = {"better": "shown", "worse": "refuted", "hinted better": "hinted at", "hinted worse": "hinted against"}
    return f"{answer.get(difference.verdict, 'not shown')} ({difference.mean:+.2f})"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
