"""The page of a study: Markdown, with every number out of its records."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchdcls_results import markdown_table, mean_and_interval, model_title

from .conclusions import answers, counted, crowding, limits, sweep_note, tuning_note, verdict_words
from .config import BASELINE, Start
from .pictures import draw_study
from .results import Comparison, Final, Results, late_epochs
from .schedule import SWEEPS, Sweep

_HEADINGS: dict[Sweep, str] = {
    "kernel size": "Accuracy against kernel size",
    "kernel count": "Does the number of elements matter?",
    "start": "Does it matter where positions start?",
}


def write_page(results: Results, folder: Path) -> list[Path]:
    """Writes `results.md` and the pictures of a study into a folder, and returns what was written."""
    pictures = draw_study(results, folder)
    page = folder / "results.md"
    page.write_text(page_text(results, pictures={path.stem: path.name for path in pictures}), encoding="utf-8")
    return [page, *pictures]


def page_text(results: Results, pictures: dict[str, str]) -> str:
    """The page; `pictures` says where it finds those that there are."""
    parts = [f"# Study {results.study.name}", notice(results), _setting(results), answers(results)]
    for model in results.study.config.models:
        parts += [f"## {model_title(model)}", model_section(results, model)]
    parts += [_picture("Test accuracy and paired differences", pictures.get("accuracy")), _how_to_read(results)]
    for sweep in SWEEPS:
        if rows := _sweep_rows(results, sweep):
            heading = _HEADINGS[sweep]
            picture = _picture(heading, pictures.get(sweep.replace(" ", "-")))
            parts += [f"## {heading}", picture, markdown_table(rows), sweep_note(results, sweep)]
    if any(results.sweeps.values()):
        parts += [_sweep_words(results), crowding(results.schedule.used)]
    parts += ["## What this does not test", limits(results)] if limits(results) else []
    parts += ["## How settings were chosen", _tuning_words(results), tuning_note(results)]
    parts.append(markdown_table(_tuning_rows(results)))
    parts += ["## Where the numbers come from", _provenance(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def notice(results: Results) -> str:
    """What a reader must know first, or nothing."""
    done, entries = len(results.schedule.used), results.schedule.left
    if not entries:
        return ""
    left: dict[str, int] = {}
    for entry in entries:
        what = {"tune": "of the tuning", "final": f"final of {entry.method}"}.get(
            entry.phase, f"of the sweep over {entry.phase}"
        )
        left[what] = left.get(what, 0) + 1
    missing = ", ".join(f"{count} {what}" for what, count in left.items())
    return (
        f"**The study is not complete: {done} of {done + len(entries)} training runs are done, and only these are "
        f"shown; left are {missing}.**"
    )


def model_section(results: Results, model: str) -> str:
    """The tables of one model, its accuracies and its comparisons, and what they do not show."""
    mine = [final for final in results.finals if final.model == model]
    header = ["method", "kernel", "elements or taps", "start", "learning rate", "weight decay", "parameters", "seeds"]
    warning = crowding([cell for final in mine for cell in final.cells.values()])
    header += ["test accuracy (%)", *([] if warning else ["training images/s"])]
    rows = [header, *(_row(final)[: len(header)] for final in mine)]
    compared = [["comparison", "points", "paired seeds", "95 % interval", "corrected interval", "verdict"]]
    compared += [_comparison_row(it) for it in results.comparisons if it.model == model]
    sentences = [*_sentences(mine), *([warning] if warning else [])]
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    return "\n\n".join(part for part in (markdown_table(rows), markdown_table(compared), listed) if part)


def _picture(title: str, path: str | None) -> str:
    return "" if path is None else f"![{title}]({path})"


def _row(final: Final) -> list[str]:
    one, choice = final.one, final.choice
    accuracies = list(final.accuracies.values())
    if choice is None:
        settings = ["not chosen", *["-"] * 4]
    else:
        count = None if one is None else one.kernel_count
        settings = [
            "7" if choice.kernel_size is None else str(choice.kernel_size),
            "49" if choice.kernel_size is None else "-" if count is None else str(count),
            _start(choice.start),
            f"{choice.lr:g}",
            f"{choice.weight_decay:g}",
        ]
    parameters = "-" if one is None else f"{one.parameters:,}"
    speed = "-" if final.images_per_second is None else f"{final.images_per_second:.0f}"
    accuracy = _mean(accuracies) if accuracies else "-"
    return [final.method, *settings, parameters, str(len(accuracies)), accuracy, speed]


def _comparison_row(comparison: Comparison) -> list[str]:
    found, numbers = comparison.difference, ["-"] * 4
    if found is not None:
        ends = [f"{low:+.2f} to {high:+.2f}" for low, high in (found.interval, found.corrected)]
        numbers = [f"{found.mean:+.2f}", str(found.pairs), *ends]
    return [f"{comparison.method} against {comparison.other}", *numbers, verdict_words(found)]


def _sentences(mine: Sequence[Final]) -> list[str]:
    sentences = []
    baseline = next((final.one for final in mine if final.method == BASELINE), None)
    for final in mine:
        if baseline is not None and final.one is not None:
            more = final.one.parameters - baseline.parameters
            if more > 0:
                sentences.append(f"{final.method} has {more:,} parameters more than {BASELINE}.")
        failed = [seed for seed, cell in final.cells.items() if cell.failure is not None]
        if failed:
            seeds = ", ".join(map(str, failed))
            sentences.append(f"{final.method} diverged with seed {seeds}, which is left out: a result against it.")
    gains = [f"{final.method} {final.late_gain:+.2f}" for final in mine if final.late_gain is not None]
    if gains:
        late = late_epochs(max(len(cell.epochs) for final in mine for cell in final.cells.values()))
        sentences.append(
            f"Validation accuracy changed over the last {'epoch' if late == 1 else f'{late} epochs'} by (points): "
            f"{', '.join(gains)}. The learning rate falls to zero there. Far above 0 the runs have not converged; a "
            "small change is no sign that they have."
        )
    return sentences


def _setting(results: Results) -> str:
    config, data = results.study.config, results.study.data
    where = "GPU" if results.study.platform.device == "cuda" else results.study.platform.device.upper()
    candidates = len(config.candidates(BASELINE))
    chosen = (
        f"Settings were chosen on the validation images, with {candidates} candidates for each method and model"
        if candidates > 1
        else "Settings were fixed before the study"
    )
    note = "" if config.note is None else f" {config.note.strip()}"
    return (
        f"{data.name}: {data.training_images:,} training, {data.validation_images:,} validation and "
        f"{data.test_images:,} test images of {config.side} pixels. "
        f"{counted(config.epochs, 'epoch')}, batch {config.batch_size}, {config.precision} on {where}, "
        f"{len(config.seeds)} seeds. {chosen}; final models are trained on the "
        f"training images alone, and scored on the test images once, after the last epoch.{note}"
    )


def _how_to_read(results: Results) -> str:
    number = len(results.comparisons)
    return (
        "± is the 95 % interval of the mean over seeds (Student's t). Differences are paired, of the seeds that both "
        "methods have: methods of one seed have the same order and augmentation of images and the same initial weights "
        "but for depthwise layers. The "
        f"intervals of differences are those of scipy's paired t-test, by themselves and corrected for all {number} "
        "comparisons of this study (Bonferroni). A difference is significant where the corrected interval leaves out "
        "0, and differences beyond its ends are unlikely. *By itself* counts a comparison as if it were the only one. "
        "Intervals over seeds say nothing of other data, sizes or longer runs. *dense* has every tap of its extent. "
        "*dilated* has 5x5 taps at equal distances (torch's dilated convolution). *frozen* has Gaussian elements at "
        "random places that do not move while weights and sigmas learn. A start of 0 is the papers' normal "
        "distribution of 0.5 cells, others are uniform within so many cells, *whole* all over the kernel."
    )


def _sweep_rows(results: Results, sweep: Sweep) -> list[list[str]]:
    points = results.sweeps[sweep]
    if not points:
        return []
    header = ["model", "method", sweep, "elements", "parameters", "seeds", "validation accuracy (%)"]
    if results.speeds_compare:
        header.append("training, ms/image")
    models = {point.model for point in points}
    baselines = [point for model, point in results.baselines.items() if model in models]
    rows = [
        [
            point.model,
            f"{BASELINE}, for comparison" if point.value is None else point.method,
            _start(point.value),
            str(point.kernel_count),
            f"{point.parameters:,}",
            str(len(point.accuracies)),
            _mean(point.accuracies),
            f"{point.ms_per_image:.3g}",
        ]
        for point in (*baselines, *points)
    ]
    return [header, *(row[: len(header)] for row in rows)]


def _sweep_words(results: Results) -> str:
    config, sweeps = results.study.config, results.study.config.sweeps
    epochs = config.epochs if sweeps.epochs is None else sweeps.epochs
    more = " From such a start larger kernels are sparser ones as well." if sweeps.start == "whole" else ""
    if not results.speeds_compare:
        more += " The page Speed on CPU has the time that a size costs."
    return (
        f"Sweeps are scored on the validation images after {counted(epochs, 'epoch')}, at a learning rate of "
        f"{config.lr:g}. What is not swept over is {sweeps.kernel_size} cells, a start of {_start(sweeps.start)} "
        "(never beyond the kernel's edge), and as many elements as the parameters of 7x7 allow. The sweep over "
        f"elements has larger numbers too. A kernel of {config.side} cells is as large as the images.{more}"
    )


def _tuning_words(results: Results) -> str:
    config = results.study.config
    candidates = len(config.candidates(BASELINE))
    if candidates == 1:
        return "They were fixed before the study; no method was tuned on its images."
    epochs = config.epochs if config.tuning.epochs is None else config.tuning.epochs
    return (
        f"Every method had {candidates} candidates, each trained for "
        f"{counted(epochs, 'epoch')} with seed {', '.join(map(str, config.tuning.seeds))}, which no final run "
        "has. The best mean accuracy on the validation images was taken, of equal ones that with the smaller loss."
    )


def _tuning_rows(results: Results) -> list[list[str]]:
    rows = [
        ["model", "method", "kernel", "start", "learning rate", "weight decay", "validation accuracy (%)", "chosen"]
    ]
    for row in results.schedule.tuned:
        candidate = row.candidate
        size = "7" if candidate.kernel_size is None else str(candidate.kernel_size)
        accuracy = "-" if row.score is None else f"{row.score.accuracy:.2f}{' =' if row.like_another else ''}"
        settings = [size, _start(candidate.start), f"{candidate.lr:g}", f"{candidate.weight_decay:g}"]
        rows.append([row.model, row.method, *settings, accuracy, "yes" if row.chosen else ""])
    return rows


def _provenance(results: Results) -> str:
    cells = results.schedule.used
    if not cells:
        return "No training run is finished."
    dates = sorted({cell.date[:10] for cell in cells})
    minutes = sum(cell.seconds for cell in cells) / 60
    time = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    threads = "" if results.study.platform.threads is None else f"; {counted(results.study.platform.threads, 'thread')}"
    return (
        f"{len(cells)} training runs, {time} in all, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. "
        f"{each_once('; ', (machine_words(cell.machine) for cell in cells))}{threads}. "
        f"{each_once('; ', (version_words(cell.versions) for cell in cells))}. "
        f"Commit {each_once(', ', (commit_words(cell.commit, cell.dirty) for cell in cells))}. "
        f"{each_once(', ', (f'`{cell.command}`' for cell in cells))}. "
        "Each run has a line in the records, with its settings, curve, versions, commit, machine and date."
    )


def each_once(separator: str, words: Iterable[str]) -> str:
    """Words in their order, each once."""
    return separator.join(dict.fromkeys(words))


def machine_words(machine: Mapping[str, Any]) -> str:
    """A record's machine."""
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    return f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['os']}"


def version_words(versions: Mapping[str, str]) -> str:
    """A record's versions."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def commit_words(commit: str | None, dirty: bool | None) -> str:
    """A record's commit."""
    return (commit or "unknown")[:10] + (" with uncommitted changes, which are not on record" if dirty else "")


def _mean(values: Sequence[float]) -> str:
    # The interval of two would be ten times as wide as they are apart.
    both = f" ({min(values):.2f}, {max(values):.2f})" if len(values) == 2 else ""
    return mean_and_interval(values, least=3) + both


def _start(start: Start | None) -> str:
    if start is None:
        return "-"
    return start if isinstance(start, str) else f"{start:g}"
