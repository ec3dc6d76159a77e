"""What a comparison on images has found: its table, and sentences in plain words."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from torchdcls_results import half_interval, mean_and_interval, model_title

from ..config import BASELINE
from ..report import Section
from .result import ImagesResult, ImagesRun

# With fewer, an interval over seeds would say more than they can.
_SEEDS_FOR_A_VERDICT = 3


def finished_runs(result: ImagesResult) -> dict[str, list[ImagesRun]]:
    """Runs that went through all their epochs, by method, in the order of the settings."""
    done = [run for run in result.runs if len(run.epochs) == result.config.epochs]
    runs = {method: [run for run in done if run.method == method] for method in result.config.methods}
    return {method: mine for method, mine in runs.items() if mine}


def comparison_rows(result: ImagesResult) -> list[list[str]]:
    """The table, header first: one row per method, of the runs that finished."""
    rows = [["method", "elements", "parameters", "seeds", "test accuracy (%)", "training images/s"]]
    for method, runs in finished_runs(result).items():
        accuracies = [run.accuracy for run in runs]
        speeds = [epoch.images_per_second for run in runs for epoch in run.epochs]
        count = runs[0].kernel_count
        rows.append(
            [
                method,
                "-" if count is None else str(count),
                f"{runs[0].parameters:,}",
                str(len(runs)),
                mean_and_interval(accuracies, least=_SEEDS_FOR_A_VERDICT),
                f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})",
            ]
        )
    return rows


def verdicts(result: ImagesResult) -> list[str]:
    """The conclusion, then for each method the difference from the baseline and its significance."""
    runs = finished_runs(result)
    baseline = {run.seed: run.accuracy for run in runs.get(BASELINE, [])}
    paired = {method: [run for run in done if run.seed in baseline] for method, done in runs.items()}
    differences = {
        method: [run.accuracy - baseline[run.seed] for run in done]
        for method, done in paired.items()
        if done and method != BASELINE
    }
    if not differences:
        return []
    if min(map(len, differences.values())) < _SEEDS_FOR_A_VERDICT:
        seeds, images = max(map(len, differences.values())), result.data.test_images
        # Of the difference of two such accuracies, if the models err independently.
        share = statistics.mean(run.accuracy for done in paired.values() for run in done) / 100
        error = 100 * math.sqrt(2 * share * (1 - share) / images)
        told = [
            f"No conclusion from {seeds} {'seed' if seeds == 1 else 'seeds'}: with {images:,} test images, a "
            f"difference has a standard error of about {error:.1f} points even without the variation of seeds. "
            f"Use --seeds {_SEEDS_FOR_A_VERDICT} or more."
        ]
        return told + [
            f"{method}: {statistics.mean(values):+z.2f} points against {BASELINE}."
            for method, values in differences.items()
        ]
    least = {method: half_interval(values, 1 - 0.05 / len(differences)) for method, values in differences.items()}
    gains = [method for method, values in differences.items() if statistics.mean(values) > least[method]]
    losses = [method for method, values in differences.items() if -statistics.mean(values) > least[method]]
    parts = [f"Significantly more accurate than {BASELINE}: {', '.join(gains)}."] if gains else []
    parts += [f"Significantly less accurate than {BASELINE}: {', '.join(losses)}."] if losses else []
    low, high = f"{min(least.values()):.1f}", f"{max(least.values()):.1f}"
    if len(gains) + len(losses) == len(differences):
        parts.append(f"All differences from {BASELINE} are significant.")
    else:
        parts.append(
            f"{'Of the rest, no' if parts else 'No'} difference from {BASELINE} is significant; a difference of "
            f"{low if low == high else f'{low} to {high}'} points or more would have been, and smaller ones are below "
            "the resolution of this comparison."
        )
    return [" ".join(parts), *(_verdict(method, values, least[method]) for method, values in differences.items())]


def _verdict(method: str, differences: Sequence[float], least: float) -> str:
    mean, half = statistics.mean(differences), half_interval(differences)
    found = "not significant" if abs(mean) <= least else f"significantly {'better' if mean > 0 else 'worse'}"
    return (
        f"{method}: {mean:+z.2f} points against {BASELINE}, 95 % interval {mean - half:+z.2f} to {mean + half:+z.2f} "
        f"over {len(differences)} seeds, paired: {found}; {least:.2f} points or more would be significant."
    )


def setting(result: ImagesResult) -> str:
    """How the accuracies were measured, and their limits."""
    config, data = result.config, result.data
    size = config.dilated_kernel_size
    start = f"uniform within {config.position_radius:g} cells" if config.position_radius else "normal, 0.5 cells"
    if config.sigma_init is not None:
        start += f", sigmas at {config.sigma_init:g} cells"
    return (
        f"{model_title(config.model)} on {data.name} ({data.train_images:,} training and "
        f"{data.test_images:,} test images of {data.image_size} pixels), {config.epochs} epochs. "
        f"DCLS kernels are {size}x{size}, their positions start {start}; methods other than {BASELINE} name their "
        "interpolation. Accuracy is measured after the last epoch; ± is the 95 % interval of the mean over seeds "
        "(Student's t), which says nothing about other training and test images. A difference is significant at 5 % by "
        "the paired t-test, after Bonferroni correction for the number of comparisons. All layers are computed by "
        f"torchdcls, also the {BASELINE} ones. Images per second are those of whole training steps, median and range "
        "over epochs. Other processes slow them: where ranges overlap, no method is known to be faster."
    )


def limits(result: ImagesResult) -> str:
    """The limits of the comparison: effort, computation and controls."""
    size = result.config.dilated_kernel_size
    return (
        "Limits: all methods have the same learning rate and weight decay. This comparison does not tune them. "
        f"Equal parameters are not equal computation: dense kernels have {size * size} cells instead of 49. "
        "No method here has fixed positions or a larger dense kernel, so a difference does not show what learning "
        "positions adds."
    )


def images_section(result: ImagesResult, folder: Path) -> Section:
    """What a report says, with the pictures of the run folder."""
    title, size = model_title(result.config.model), result.config.dilated_kernel_size
    return Section(
        "Do networks with learned positions classify images better?",
        f"The same network ({title}) has {BASELINE} layers, or DCLS layers of {size}x{size} instead, which by default "
        "have no more parameters. Which is more accurate on test images?",
        [] if result.config.quick else verdicts(result),
        [setting(result), limits(result)],
        {"Accuracy after the last epoch": comparison_rows(result)},
        {
            folder / "accuracy.png": "Test accuracy by epoch",
            folder / "positions.png": "Positions of the elements before and after training",
            folder / "kernels.png": "Some of the dense kernels after training",
        },
        result,
    )
