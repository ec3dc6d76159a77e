"""What may be concluded from a study and what may not, in sentences made of its records."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torchdcls_train.comparison.record import model_title
from torchdcls_train.comparison.small import SMALL_MODELS, stem_stride

from .config import BASELINE, LEARNED
from .differences import chance_of_spread
from .plan import SWEEPS, Sweep
from .records import Study
from .results import Comparison, comparisons, finals, standard_error, sweep_points, tuned, used_ids

# What is chosen by candidates, in words.
_CHOSEN = {
    "lr": "The rate",
    "weight_decay": "Weight decay",
    "kernel_size": "The kernel's size",
    "start": "Where positions start",
}
# How far above the number of cores a load average is before trainings are taken to have waited for each other.
_CROWDED = 0.5


def shows(comparison: Comparison) -> bool:
    """Whether anything is shown or hinted at."""
    return _verdict_of(comparison) not in (None, "no difference shown", "no conclusion")


def answers(study: Study) -> str:
    """The papers' claims one by one, what was learned of positions, and what all comparisons together show."""
    found = comparisons(study)
    claims = [it for it in found if it.method in LEARNED and it.other in (BASELINE, "bilinear")]
    told = []
    for model in study.config.models:
        listed = [f"{it.method} better than {it.other}: {_answer(it)}" for it in claims if it.model == model]
        told.append(f"{model_title(model)}: {', '.join(listed)}.")
    learned = [it for it in found if it.other == "frozen"]
    if learned:
        listed = [f"{_answer(it)} with the {model_title(it.model).lower()}" for it in learned]
        told.append(f"Gaussian better than elements at random places that stay there: {', '.join(listed)}.")
    compared = [it.difference for it in found if it.difference is not None]
    sure = [difference for difference in compared if difference.verdict in ("better", "worse")]
    # With two pairs there is an interval, of hundreds of points.
    widths = [(it.corrected[1] - it.corrected[0]) / 2 for it in compared if it.pairs > 2]
    all_told = f"Of {_counted(len(compared), 'comparison')}, corrected for their number, "
    all_told += f"{len(sure) or 'none'} {'show' if len(sure) > 1 else 'shows'} a difference"
    if widths:
        all_told += (
            f"; to be shown it would have to be above {min(widths):.1f} to {max(widths):.1f} points, and smaller ones "
            "can't be told from none"
        )
    return f"**What the papers claim, here.** {_verdict(claims)} In points: {' '.join(told)} {all_told}."


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
    end = "."
    if not any(shows(it) for it in comparisons(study) if it.method in LEARNED):
        end = ": where between the two the claims begin to hold is not known."
    parts.append(
        f"They come to {min(reached):.1f} to {max(reached):.1f} % on the test images. What larger models, larger "
        f"images and longer trainings would give is not tested{end}"
    )
    if left_out:
        parts.append(f"Left out here: {', '.join(left_out)}.")
    return " ".join(parts)


def tuning_note(study: Study) -> str:
    """How sure the choices of settings are, and what they were between."""
    config = study.config
    leads, scores, alike, all_known = [], [], 0, 0
    for model in config.models:
        for method in config.methods:
            mine = [entry for entry in tuned(study) if (entry.model, entry.method) == (model, method)]
            known = [entry for entry in mine if entry.accuracy is not None]
            if len(known) > 1:
                first, second, *_ = sorted((entry.accuracy or 0.0 for entry in known), reverse=True)
                leads.append(first - second)
                scores += [entry.accuracy or 0.0 for entry in known]
                all_known += len(known)
                alike += sum(entry.like_another for entry in known)
    if not leads:
        return ""
    error = standard_error(mean(scores), study.data["validation_images"] * len(config.tuning.seeds))
    by_chance = sum(lead < error for lead in leads)
    parts = [
        f"The best candidate was ahead of the second by {min(leads):.2f} to {max(leads):.2f} points, in {by_chance} of "
        f"{len(leads)} choices by less than {error:.2f}, the standard error of one such accuracy: there chance decided."
    ]
    if alike:
        parts.append(
            f"{alike} of {all_known} candidates, marked =, came to the accuracy and the loss of another of their "
            "method, for elements that start within a few cells make kernels of different sizes nearly the same while "
            "trainings are short: these methods had so many different candidates fewer."
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
                f"{what} was chosen for {_listed(had)} and fixed for {_listed(others)}, which may favour the former."
            )
    return " ".join(parts)


def sweep_note(study: Study, sweep: Sweep) -> str:
    """Whether the accuracies of a sweep differ by more than chance."""
    points = sweep_points(study, sweep)
    means = [mean(point.accuracies) for point in points]
    spread = f"Mean accuracies span {max(means) - min(means):.2f} points"
    chance = chance_of_spread([point.accuracies for point in points])
    if chance is None:
        return f"{spread}; without several seeds at each that shows nothing."
    verdict = "they differ by more than chance" if chance < 0.05 / len(SWEEPS) else "no difference is shown"
    return (
        f"{spread}. By scipy's one-way analysis of variance over the seeds p = {chance:.2g}: {verdict} (below "
        f"{0.05 / len(SWEEPS):.2g}, as there are {len(SWEEPS)} sweeps, it would count as one)."
    )


def crowded_loads(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """The load averages of trainings that had to share cores, for then their speeds cannot be compared."""
    return [line["load"] for line in lines if (line["load"] or 0) > line["machine"]["cores"] + _CROWDED]


def speeds_compare(study: Study) -> bool:
    """Whether the study's trainings had their cores for themselves."""
    return not crowded_loads([study.lines[id] for id in used_ids(study)])


def crowding(lines: Sequence[Mapping[str, Any]]) -> str:
    """Why no speeds are told where trainings had to share cores; or nothing."""
    crowded = crowded_loads(lines)
    if not crowded:
        return ""
    return (
        f"**Speeds can't be compared** and are left out: beside {len(crowded)} of {len(lines)} trainings the load "
        f"average was above the number of cores (up to {max(crowded):.1f}), so that they waited for each other and for "
        "other work. Accuracies do not depend on that."
    )


def _verdict(claims: Sequence[Comparison]) -> str:
    # In plain words first: how many claims, of all models, and which way the differences lie.
    told = [it for it in claims if it.difference is not None]
    if not told:
        return "Nothing can be said yet."
    shown = sum(_verdict_of(it) == "better" for it in told)
    against = sum(_verdict_of(it) == "worse" for it in told)
    below = sum(round(it.difference.mean, 2) < 0 for it in told if it.difference is not None)
    parts = "None is shown" if not shown else f"{shown} of {len(told)} {'is' if shown == 1 else 'are'} shown"
    if against:
        parts += f", {against} refuted"
    return f"{parts}; {below} of {len(told)} differences point the other way."


def _verdict_of(comparison: Comparison) -> str | None:
    return None if comparison.difference is None else comparison.difference.verdict


def _answer(comparison: Comparison) -> str:
    difference = comparison.difference
    if difference is None:
        return "not finished"
    answer = {"better": "shown", "worse": "refuted", "hinted better": "hinted at", "hinted worse": "hinted against"}
    return f"{answer.get(difference.verdict, 'not shown')} ({difference.mean:+.2f})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
