"""What may be concluded from a study and what may not, in sentences made of its records."""

import math
from collections.abc import Sequence
from itertools import product
from statistics import mean

from torchdcls_results import CONVMIXERS, DEEP_MODELS, SMALL_MODELS, stem_stride

from .cells import FinishedCell
from .config import BASELINE, LEARNED
from .differences import Difference, chance_of_spread
from .results import Comparison, Results, crowded_loads
from .schedule import SWEEPS, Sweep

# What is chosen by candidates, in words.
_CHOSEN = {
    "lr": "The learning rate",
    "weight_decay": "Weight decay",
    "kernel_size": "The kernel's size",
    "start": "Where positions start",
}


def verdict_words(found: Difference | None) -> str:
    """Whether a difference is significant, in words."""
    if found is None:
        return "not finished"
    if found.verdict == "no conclusion":
        return "no conclusion: all seeds differ by the same"
    if found.verdict != "not significant":
        return f"significantly {found.verdict}"
    low, high = found.interval
    return "not significant" if low <= 0 <= high else f"not significant; by itself {'better' if low > 0 else 'worse'}"


def answers(results: Results) -> str:
    """How the papers' claims fared, and what all comparisons together show."""
    found = results.comparisons
    claims = [it for it in found if it.method in LEARNED and it.other in (BASELINE, "bilinear")]
    compared = [it.difference for it in found if it.difference is not None]
    sure = [difference for difference in compared if difference.verdict in ("better", "worse")]
    # With two pairs there is an interval, of hundreds of points.
    widths = [(it.corrected[1] - it.corrected[0]) / 2 for it in compared if it.pairs > 2]
    all_told = (
        f"Of {counted(len(compared), 'comparison')}, {len(sure) or 'none'} {'are' if len(sure) > 1 else 'is'} "
        "significant at 5 % after Bonferroni correction"
    )
    if widths:
        all_told += f"; effects below {min(widths):.1f} to {max(widths):.1f} points are below this study's resolution"
    return f"**What the papers claim, here.** {_verdict(claims)} {all_told}."


def limits(results: Results) -> str:
    """How far the study is from what the papers trained, and what it leaves out."""
    config = results.study.config
    scored = [final for final in results.finals if final.accuracies]
    if not scored:
        return ""
    reached = [accuracy for final in scored for accuracy in final.accuracies.values()]
    most = max(final.one.parameters for final in scored if final.one is not None) / 1e6
    left_out = sorted({"triangle", "dense", "dilated", "frozen"} - set(config.methods))
    if set(config.models) <= set(DEEP_MODELS):
        left_out += [f"the small {model}" for model in DEEP_MODELS if model not in config.models]
    parts = [
        "The papers trained models of 28 million parameters and more for 300 epochs on the 1.28 million images of "
        "ImageNet, at 224 pixels, where a first stage of 56 cells a side is 8 times as large as a 7x7 kernel.",
        f"Here models have {most:.1f} million parameters at most, and see {results.study.data.training_images:,} "
        f"images of {config.side} pixels {counted(config.epochs, 'time')}.",
    ]
    if set(config.models) <= set(SMALL_MODELS):
        isotropic = config.models[0] in CONVMIXERS
        cells = config.side // stem_stride(config.side, 16 if isotropic else 32)
        parts.append(f"Their first stage has {cells} cells a side, {cells / 7:.1f} times 7.")
    parts.append(
        f"They reach {min(reached):.1f} to {max(reached):.1f} % on the test images. Larger models, larger images and "
        "longer training runs are not tested."
    )
    if left_out:
        parts.append(f"Left out here: {', '.join(left_out)}.")
    return " ".join(parts)


def tuning_note(results: Results) -> str:
    """How sure the choices of settings are, and what they were between."""
    config = results.study.config
    leads: list[float] = []
    scores: list[float] = []
    alike = 0
    for pair in product(config.models, config.methods):
        mine = [row for row in results.schedule.tuned if (row.model, row.method) == pair]
        known = [row.score.accuracy for row in mine if row.score is not None]
        if len(known) > 1:
            second, first = sorted(known)[-2:]
            leads.append(first - second)
            scores += known
            alike += sum(row.like_another for row in mine)
    if not leads:
        return ""
    error = _standard_error(mean(scores), results.study.data.validation_images * len(config.tuning.seeds))
    by_chance = sum(lead < error for lead in leads)
    parts = [
        f"The best candidate was {min(leads):.2f} to {max(leads):.2f} points more accurate than the second. In "
        f"{by_chance} of {len(leads)} choices the lead was below {error:.2f}, the standard error of one such "
        "accuracy: there chance decided."
    ]
    if alike:
        parts.append(
            f"{alike} of {len(scores)} candidates, marked =, have accuracy and loss of another of their method. "
            "Each leaves its method a candidate fewer: elements that start within a few cells make nearly the same "
            "kernels of any size in a short run."
        )
    for name, what in _CHOSEN.items():
        had = [method for method in config.methods if len({getattr(it, name) for it in config.candidates(method)}) > 1]
        others = [
            method
            for method in config.methods
            if method not in had and getattr(config.candidates(method)[0], name) is not None
        ]
        if had and others:
            parts.append(
                f"{what} was chosen for {_listed(had)} and fixed for {_listed(others)}, which may favor the former."
            )
    return " ".join(parts)


def sweep_note(results: Results, sweep: Sweep) -> str:
    """Whether the accuracies of a sweep differ by more than chance."""
    points = results.sweeps[sweep]
    means = [mean(point.accuracies) for point in points]
    spread = f"Mean accuracies span {max(means) - min(means):.2f} points"
    chance = chance_of_spread([point.accuracies for point in points])
    if chance is None:
        return f"{spread}; without several seeds at each there is no conclusion."
    verdict = "significant" if chance < 0.05 / len(SWEEPS) else "not significant"
    return (
        f"{spread}. By scipy's one-way analysis of variance over the seeds p = {chance:.2g}: {verdict} (below "
        f"{0.05 / len(SWEEPS):.2g} counts, as there are {len(SWEEPS)} sweeps)."
    )


def crowding(cells: Sequence[FinishedCell]) -> str:
    """Why no speeds are told where training runs had to share cores; or nothing."""
    crowded = crowded_loads(cells)
    if not crowded:
        return ""
    return (
        f"**Speeds cannot be compared** and are left out: in {len(crowded)} of {len(cells)} training runs the load "
        f"average was above the number of cores (up to {max(crowded):.1f}). Accuracies do not depend on that."
    )


def _standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy, by the number of images that it was measured on. Unit: percentage points."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def _verdict(claims: Sequence[Comparison]) -> str:
    # In plain words first: how many claims, of all models, and which way the differences lie.
    told = [it for it in claims if it.difference is not None]
    if not told:
        return "Nothing can be said yet."
    shown = sum(it.verdict == "better" for it in told)
    against = sum(it.verdict == "worse" for it in told)
    below = sum(round(it.difference.mean, 2) < 0 for it in told if it.difference is not None)
    gains = f"{len(told)} gains {'was' if shown == 1 else 'were'}"
    parts = f"{shown} of {gains} significant" if shown else "No gain was significant"
    if against:
        parts += f", {against} significantly negative"
    return f"{parts}; {below} of {len(told)} differences are negative."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, word: str) -> str:
    """A number of things, in words."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
