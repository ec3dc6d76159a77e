"""What a comparison of delays has found: its tables, and sentences in plain words."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchdcls_results import half_interval, mean_and_interval

from ..config import LEARNED
from ..report import Section
from .result import DigitsResult, DigitsRun

# What is asked of each pair: the first against the second.
_QUESTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "Do delays help? Fixed delays against none, with as many weights": [("fixed", "none")],
    "Do learned delays help? On as many synapses, with more parameters": [(method, "none") for method in LEARNED],
    "Are learned delays better than fixed ones?": [(method, "fixed") for method in LEARNED],
    "Are learned delays better than a dense kernel with as many parameters?": [(method, "dense") for method in LEARNED],
}


def chosen_runs(result: DigitsResult) -> dict[tuple[str, str, int], DigitsRun]:
    """For each speaker, method and seed the run that counts.

    Of runs with all learning rates it is that with the best accuracy on validation recordings; of equal ones that with
    the smaller loss there. A speaker and seed count when all methods are done, so that means are of the same ones.
    """
    config = result.config
    candidates: dict[tuple[str, str, int], list[DigitsRun]] = {}
    for run in result.runs:
        candidates.setdefault((run.speaker, run.method, run.seed), []).append(run)

    def done(speaker: str, seed: int) -> bool:
        cells = [candidates.get((speaker, method, seed), []) for method in config.methods]
        return all(set(config.lrs) <= {run.lr for run in runs} for runs in cells)

    return {
        (speaker, method, seed): min(runs, key=lambda run: (-run.validation, run.validation_loss))
        for (speaker, method, seed), runs in candidates.items()
        if done(speaker, seed)
    }


def by_speaker(result: DigitsResult, method: str, *, rounded: bool = False) -> dict[str, float]:
    """Accuracy on each speaker who was left out, mean over seeds. Unit: percent.

    With whole delays, where that is asked and they have any.
    """
    values: dict[str, list[float]] = {}
    for (speaker, name, _), run in chosen_runs(result).items():
        accuracy = run.test_rounded if rounded else run.test
        if name == method and accuracy is not None:
            values.setdefault(speaker, []).append(accuracy)
    return {speaker: statistics.mean(values[speaker]) for speaker in result.config.speakers or () if speaker in values}


def differences(result: DigitsResult, method: str, other: str) -> list[float]:
    """By how many points a method is better than another, for each speaker who was left out."""
    mine, theirs = by_speaker(result, method), by_speaker(result, other)
    return [mine[speaker] - theirs[speaker] for speaker in mine if speaker in theirs]


def finished_methods(result: DigitsResult) -> list[str]:
    """The methods, in the order of the settings, where all have finished with a speaker; else none."""
    done = {method for _, method, _ in chosen_runs(result)}
    return [method for method in result.config.methods if method in done]


def digit_rows(result: DigitsResult) -> list[list[str]]:
    """The table, header first: a row for each method."""
    rows = [["delays", "parameters", "accuracy (%)", "rounded (%)", "against none", "against fixed", "minutes per run"]]
    for method in finished_methods(result):
        mine = [run for run in result.runs if run.method == method]
        rounded = list(by_speaker(result, method, rounded=True).values())
        against = [differences(result, method, other) if method != other else [] for other in ("none", "fixed")]
        rows.append(
            [
                method,
                f"{mine[0].parameters:,}",
                mean_and_interval(list(by_speaker(result, method).values()), ".1f"),
                mean_and_interval(rounded, ".1f") if rounded else "-",
                *(mean_and_interval(points, "+z.1f") if points else "-" for points in against),
                f"{statistics.median(run.seconds for run in mine) / 60:.1f}",
            ]
        )
    return rows


def speaker_rows(result: DigitsResult) -> list[list[str]]:
    """Accuracies by the speaker who was left out, header first: a row for each method."""
    speakers = result.config.speakers or ()
    rows = [["delays", *speakers]]
    for method in finished_methods(result):
        accuracy = by_speaker(result, method)
        rows.append([method, *(f"{accuracy[name]:.1f}" if name in accuracy else "-" for name in speakers)])
    return rows


def tuning_rows(result: DigitsResult) -> list[list[str]]:
    """How often each learning rate was chosen, header first: a row for each method."""
    rates = result.config.lrs
    rows = [["delays", *(f"{lr:g}" for lr in rates), "validation accuracy (%)"]]
    for method in finished_methods(result):
        runs = [run for (_, name, _), run in chosen_runs(result).items() if name == method]
        counts = Counter(run.lr for run in runs)
        best = statistics.mean(run.validation for run in runs)
        rows.append([method, *(str(counts[lr]) for lr in rates), f"{best:.1f}"])
    return rows


def comparisons(result: DigitsResult) -> list[tuple[str, str]]:
    """All pairs that are compared, where there are two speakers at least."""
    pairs = [pair for asked in _QUESTIONS.values() for pair in asked]
    return [pair for pair in pairs if len(differences(result, *pair)) > 1]


def verdict(result: DigitsResult, method: str, other: str) -> str:
    """Whether a method is better than another, by paired differences over speakers, corrected for all comparisons."""
    points = differences(result, method, other)
    mean = statistics.mean(points)
    corrected = half_interval(points, 1 - 0.05 / len(comparisons(result)))
    ends = f"corrected interval {mean - corrected:+z.1f} to {mean + corrected:+z.1f}"
    found = "not significant" if abs(mean) <= corrected else f"significantly {'better' if mean > 0 else 'worse'}"
    return f"{method} {mean_and_interval(points, '+z.1f')} points against {other} ({ends}): {found}"


def findings(result: DigitsResult) -> list[str]:
    """What was found, a sentence or two to each point, and what is significant of it."""
    means = {method: statistics.mean(by_speaker(result, method).values()) for method in finished_methods(result)}
    if not means:
        return []
    order = sorted(means, key=lambda method: -means[method])
    said = [
        "Accuracy on a speaker who was never heard, best first: "
        + ", ".join(f"{method} {means[method]:.1f} %" for method in order)
        + "."
    ]
    compared = comparisons(result)
    for question, pairs in _QUESTIONS.items():
        told = [verdict(result, *pair) for pair in pairs if pair in compared]
        if told:
            said.append(f"{question}{'' if question.endswith('?') else ':'} {'; '.join(told)}.")
    costs = []
    for method in (name for name in LEARNED if name in means):
        rounded, exact = by_speaker(result, method, rounded=True), by_speaker(result, method)
        costs.append(f"{method} {mean_and_interval([rounded[name] - exact[name] for name in exact], '+z.1f')}")
    if costs:
        said.append(f"Rounding delays to whole steps changes accuracy by these points: {', '.join(costs)}.")
    return said


def explanations(result: DigitsResult) -> list[str]:
    """What the names and numbers mean, how sure they are, and what they do not say."""
    config, data = result.config, result.data
    speakers, rates = len(config.speakers or ()), ", ".join(f"{lr:g}" for lr in config.lrs)
    tuned = (
        f"Each run was made with the learning rates {rates}, and the one with the best accuracy on "
        f"{data.validation_recordings} other recordings of each training speaker and digit counts: the same effort "
        "for all methods. Recordings of the test speaker are not used for this choice."
        if len(config.lrs) > 1
        else f"The learning rate was {rates} for all methods, and was not tuned."
    )
    said = [
        "None has no delays. Fixed delays are drawn at random from 0 to "
        f"{config.max_delay} steps of 10 ms, and are whole. Bilinear, triangle and gaussian name the interpolation "
        "of learned delays. The sigma of triangle is learned, a third number for each synapse. The sigma of gaussian "
        "is not learned: it falls from half the window to 0.23 in the first half of training. Dense has a weight for "
        f"each delay, and {data.dense_hidden} neurons in each hidden layer instead of {data.hidden}, so that it has as "
        "many parameters as the networks with weights and delays.",
        f"{tuned} Other settings were the same for all, and were not tuned by method: delays and sigmas have "
        f"{data.position_lr_scale:g} times the learning rate of weights.",
        f"{data.name}: {data.recordings:,} recordings by {data.speakers} speakers. Networks were tested on "
        f"{speakers} of them in turn, and trained on the others.",
    ]
    if comparisons(result):
        said.append(
            "± is half the 95 % interval of the mean over speakers (Student's t); seeds are averaged first. "
            "Differences are paired by speaker. 'Significantly' is at 5 % after Bonferroni correction over "
            f"{len(comparisons(result))} comparisons. Folds share most of their training speakers, so that intervals "
            "may be too narrow."
        )
    said.append(
        f"Limits: {speakers} speakers, {config.seeds} seed{'' if config.seeds == 1 else 's'}, one size of "
        f"network and {config.epochs} epochs. Dense kernels of fewer taps in wider networks, larger networks and "
        "other data are not tested; results say nothing about Spiking Heidelberg Digits."
    )
    return said


def digits_section(result: DigitsResult, folder: Path) -> Section:
    """What a report says, with the pictures of the run folder."""
    return Section(
        "Do learned delays recognize spoken digits better?",
        "Spiking networks learn ten spoken digits from some speakers, and are tested on one whom they never heard. "
        "They differ in the delays of their synapses.",
        [] if result.config.quick else findings(result),
        explanations(result),
        {"Accuracy on speakers never heard": digit_rows(result)},
        {
            folder / "accuracy.png": "Accuracy by test speaker; bars are means",
            folder / "delays.png": "Delays of the second layer over training, uniform at the start; the first and the "
            "last bin reach half a step beyond the window",
            folder / "fields.png": "Receptive fields of some neurons of the first layer after training",
            folder / "raster.png": "A recording as spikes, and the spikes of the two hidden layers",
        },
        result,
        {
            "Accuracy by test speaker (%)": speaker_rows(result),
            "How often each learning rate was chosen": tuning_rows(result),
        },
    )
