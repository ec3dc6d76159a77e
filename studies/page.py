"""The page of a study: Markdown, with every number out of its records."""

from collections.abc import Sequence
from pathlib import Path

from torchdcls._tables import half_interval, markdown_table
from torchdcls_train.comparison.record import model_title

from .conclusions import answers, crowding, limits, shows, speeds_compare, sweep_note, tuning_note
from .config import BASELINE, Start
from .pictures import draw_study
from .plan import SWEEPS, Sweep, plan, remaining
from .records import Study
from .results import (
    Comparison,
    Final,
    comparisons,
    finals,
    late_epochs,
    progress,
    shown,
    sweep_baseline,
    sweep_points,
    tuned,
    used_ids,
)

_HEADINGS: dict[Sweep, str] = {
    "kernel size": "Accuracy against kernel size",
    "kernel count": "Does the number of elements matter?",
    "start": "Does it matter where positions start?",
}


def write_page(study: Study, folder: Path) -> list[Path]:
    """Writes `results.md` and the pictures of a study into a folder, and returns what was written."""
    pictures = draw_study(study, folder)
    page = folder / "results.md"
    page.write_text(page_text(study, pictures={path.stem: path.name for path in pictures}), encoding="utf-8")
    return [page, *pictures]


def page_text(study: Study, pictures: dict[str, str]) -> str:
    """The page.

    Args:
        study: The records.
        pictures: What pictures there are, and where the page finds them.
    """
    parts = [f"# Study {study.name}", notice(study), _setting(study), answers(study)]
    for model in study.config.models:
        parts += [f"## {model_title(model)}", model_section(study, model)]
    parts += [_picture("Test accuracy and paired differences", pictures.get("accuracy")), _how_to_read(study)]
    for sweep in SWEEPS:
        if rows := _sweep_rows(study, sweep):
            heading = _HEADINGS[sweep]
            picture = _picture(heading, pictures.get(sweep.replace(" ", "-")))
            parts += [f"## {heading}", picture, markdown_table(rows), sweep_note(study, sweep)]
    if any(sweep_points(study, sweep) for sweep in SWEEPS):
        parts += [_sweep_words(study), crowding([study.lines[id] for id in used_ids(study)])]
    parts += ["## What this does not test", limits(study)] if limits(study) else []
    parts += ["## How settings were chosen", _tuning_words(study), tuning_note(study)]
    parts.append(markdown_table(_tuning_rows(study)))
    parts += ["## Where the numbers come from", _provenance(study)]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_text(study: Study) -> str:
    """What stands in the README: what the papers claim, and model by model a table and whatever shows anything."""
    parts = [f"**Study {study.name}.** {_setting(study)}", notice(study), answers(study)]
    for model in study.config.models:
        parts += [f"{model_title(model)}:", model_section(study, model, brief=True)]
    return "\n\n".join(part for part in parts if part)


def notice(study: Study) -> str:
    """What a reader must know first, or nothing."""
    done, total = progress(study)
    if done == total:
        return ""
    left: dict[str, int] = {}
    for entry in remaining(plan(study.config, study.place, study.lines), study.lines):
        what = {"tune": "of the tuning", "final": f"final of {entry.method}"}.get(
            entry.phase, f"of the sweep over {entry.phase}"
        )
        left[what] = left.get(what, 0) + 1
    missing = ", ".join(f"{count} {what}" for what, count in left.items())
    return (
        f"**The study is not complete: {done} of {total} trainings are done, and only these are shown; left are "
        f"{missing}.**"
    )


def model_section(study: Study, model: str, brief: bool = False) -> str:
    """The table of one model and what it shows, in brief or with every comparison."""
    mine = [final for final in finals(study) if final.model == model]
    found = [comparison for comparison in comparisons(study) if comparison.model == model]
    against = {entry.method: entry for entry in found if entry.other == BASELINE}
    header = ["method", "kernel", "elements or taps", "start", "rate", "decay", "parameters", "seeds"]
    header += ["test accuracy (%)", f"against {BASELINE} (points)", "pairs", "95 % interval", "corrected"]
    warning = crowding([line for final in mine for line in final.lines.values()])
    header += [] if warning else ["training images/s"]
    rows = [header, *(_row(final, against.get(final.method))[: len(header)] for final in mine)]
    if brief:
        found = [comparison for comparison in found if shows(comparison)]
    sentences = [*_sentences(mine, found), *([warning] if warning else [])]
    return f"{markdown_table(rows)}\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)


def _picture(title: str, path: str | None) -> str:
    return "" if path is None else f"![{title}]({path})"


def _row(final: Final, against: Comparison | None) -> list[str]:
    line, choice = final.whole, final.choice
    accuracies = list(final.accuracies.values())
    difference = None if against is None else against.difference
    row: list[str] = [final.method]
    if choice is None:
        row += ["not chosen", *["-"] * 4]
    else:
        count = None if line is None else line["kernel_count"]
        row += [
            "7" if choice.kernel_size is None else str(choice.kernel_size),
            "49" if choice.kernel_size is None else "-" if count is None else str(count),
            _start(choice.start),
            f"{choice.lr:g}",
            f"{choice.weight_decay:g}",
        ]
    row.append("-" if line is None else f"{line['parameters']:,}")
    row.append(str(len(accuracies)))
    row.append("-" if not accuracies else _mean(accuracies))
    if difference is None:
        row += ["-"] * 4
    else:
        row += [f"{difference.mean:+.2f}", str(difference.pairs)]
        row += [_interval(difference.interval), _interval(difference.corrected)]
    speed = final.images_per_second
    return [*row, "-" if speed is None else f"{speed:.0f}"]


def _sentences(mine: Sequence[Final], found: Sequence[Comparison]) -> list[str]:
    sentences = [shown(comparison)[0].upper() + shown(comparison)[1:] for comparison in found]
    baseline = next((final.whole for final in mine if final.method == BASELINE), None)
    for final in mine:
        if baseline is not None and final.whole is not None:
            more = final.whole["parameters"] - baseline["parameters"]
            if more > 0:
                sentences.append(f"{final.method} has {more:,} parameters more than {BASELINE}.")
        failed = [seed for seed, line in final.lines.items() if line["failure"] is not None]
        if failed:
            seeds = ", ".join(map(str, failed))
            sentences.append(f"{final.method} broke off with seed {seeds}, which is left out: a result against it.")
    gains = [f"{final.method} {final.late_gain:+.2f}" for final in mine if final.late_gain is not None]
    if gains:
        late = late_epochs(max(len(line["epochs"]) for final in mine for line in final.lines.values()))
        sentences.append(
            f"Validation accuracy changed over the last {'epoch' if late == 1 else f'{late} epochs'} by (points): "
            f"{', '.join(gains)}. Rates fall to zero there: much above 0 the trainings have not converged, while a "
            "small change is no sign that they have."
        )
    return sentences


def _setting(study: Study) -> str:
    config, data = study.config, study.data
    where = "GPU" if study.place.device == "cuda" else study.place.device.upper()
    sizes = [f"{data[f'{name}_images']:,} {name}" for name in ("training", "validation", "test")]
    candidates = len(config.candidates(BASELINE))
    chosen = (
        f"Settings were chosen on the validation images, with {candidates} candidates for each method and model"
        if candidates > 1
        else "Settings were fixed before the study"
    )
    note = "" if config.note is None else f" {config.note.strip()}"
    return (
        f"{data['name']}: {sizes[0]}, {sizes[1]} and {sizes[2]} images of {config.side} pixels. "
        f"{_counted(config.epochs, 'epoch')}, batch {config.batch_size}, {config.precision} on {where}, "
        f"{len(config.seeds)} seeds. {chosen}; final models are trained on the "
        f"training images alone, and scored on the test images once, after the last epoch.{note}"
    )


def _how_to_read(study: Study) -> str:
    number = len(comparisons(study))
    return (
        "± is the 95 % interval of the mean over seeds (Student's t). Differences are paired, of the seeds that both "
        "methods have: methods of one seed have the same order and augmentation of images and the same initial weights "
        "but for depthwise layers. The "
        f"intervals of differences are those of scipy's paired t-test, by themselves and corrected for all {number} "
        "comparisons of this study (Bonferroni); a difference counts as shown where the corrected interval leaves out "
        "0. Intervals over seeds say nothing of other data, sizes or longer trainings. *dense* has every tap of its "
        "extent, *dilated* 5x5 taps at equal distances (torch's dilated convolution), *frozen* Gaussian elements at "
        "random places that don't move while weights and spreads learn. A start of 0 is the papers' normal "
        "distribution of 0.5 cells, others are uniform within so many cells, *whole* all over the kernel."
    )


def _sweep_rows(study: Study, sweep: Sweep) -> list[list[str]]:
    points = sweep_points(study, sweep)
    if not points:
        return []
    header = ["model", "method", sweep, "elements", "parameters", "seeds", "validation accuracy (%)"]
    if speeds_compare(study):
        header.append("training, ms/image")
    models = dict.fromkeys(point.model for point in points)
    baselines = [(model, line) for model in models if (line := sweep_baseline(study, model)) is not None]
    plain = [
        [
            model,
            f"{BASELINE}, for comparison",
            "-",
            "49",
            f"{line['parameters']:,}",
            "1",
            _mean([line["validation"]["accuracy"]]),
            f"{1000 / line['images_per_second']:.3g}",
        ]
        for model, line in baselines
    ]
    measured = [
        [
            point.model,
            point.method,
            _start(point.value),
            str(point.kernel_count),
            f"{point.parameters:,}",
            str(len(point.accuracies)),
            _mean(point.accuracies),
            f"{point.ms_per_image:.3g}",
        ]
        for point in points
    ]
    return [header, *(row[: len(header)] for row in plain + measured)]


def _sweep_words(study: Study) -> str:
    config, sweeps = study.config, study.config.sweeps
    epochs = config.epochs if sweeps.epochs is None else sweeps.epochs
    more = " From such a start larger kernels are sparser ones as well." if sweeps.start == "whole" else ""
    if not speeds_compare(study):
        more += (
            " What a size costs in time is measured by itself: `python -m benchmarks.run sizes`, with its table in the "
            "README."
        )
    return (
        f"Sweeps are scored on the validation images after {_counted(epochs, 'epoch')}, at a rate of {config.lr:g}; "
        f"what is not swept over is {sweeps.kernel_size} cells, a start of {_start(sweeps.start)} (never beyond the "
        "kernel's edge), and as many elements as the parameters of 7x7 allow. The sweep over elements goes beyond that "
        f"number where its parameters say so. A kernel of {config.side} cells is as large as the images.{more}"
    )


def _tuning_words(study: Study) -> str:
    config = study.config
    candidates = len(config.candidates(BASELINE))
    if candidates == 1:
        return "They were fixed before the study; no method was tuned on its images."
    epochs = config.epochs if config.tuning.epochs is None else config.tuning.epochs
    return (
        f"Every method had {candidates} candidates, each trained for "
        f"{_counted(epochs, 'epoch')} with seed {', '.join(map(str, config.tuning.seeds))}, which no final training "
        "has. The best mean accuracy on the validation images was taken, of equal ones that with the smaller loss."
    )


def _tuning_rows(study: Study) -> list[list[str]]:
    rows = [["model", "method", "kernel", "start", "rate", "weight decay", "validation accuracy (%)", "chosen"]]
    for entry in tuned(study):
        candidate = entry.candidate
        size = "7" if candidate.kernel_size is None else str(candidate.kernel_size)
        accuracy = "-" if entry.accuracy is None else f"{entry.accuracy:.2f}{' =' * entry.like_another}"
        settings = [size, _start(candidate.start), f"{candidate.lr:g}", f"{candidate.weight_decay:g}"]
        rows.append([entry.model, entry.method, *settings, accuracy, "yes" if entry.chosen else ""])
    return rows


def _provenance(study: Study) -> str:
    lines = [study.lines[id] for id in used_ids(study)]
    if not lines:
        return "No training is finished."
    machines: dict[str, None] = {}  # dicts as sets that keep their order
    versions: dict[str, None] = {}
    commits: dict[str, None] = {}
    commands: dict[str, None] = {}
    for line in lines:
        machine = line["machine"]
        gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
        machines[f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['os']}"] = None
        versions[", ".join(f"{name} {version}" for name, version in line["versions"].items())] = None
        commit = (line["commit"] or "unknown")[:10]
        commits[commit + (" with uncommitted changes, which are not on record" if line["dirty"] else "")] = None
        commands[f"`{line['command']}`"] = None
    dates = sorted({line["date"][:10] for line in lines})
    minutes = sum(line["seconds"] for line in lines) / 60
    time = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    threads = "" if study.place.threads is None else f"; {_counted(study.place.threads, 'thread')}"
    return (
        f"{len(lines)} trainings, {time} in all, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. "
        f"{'; '.join(machines)}{threads}. "
        f"{'; '.join(versions)}. Commit {', '.join(commits)}. {', '.join(commands)}. Each training has a line in the "
        f"records, with its settings, curve, versions, commit, machine and date."
    )


def _mean(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.2f}"
    if len(values) == 2:  # an interval would be ten times as wide as they are apart
        return f"{mean} ({min(values):.2f}, {max(values):.2f})"
    return mean if len(values) < 2 else f"{mean} ± {half_interval(values):.2f}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _start(start: Start | None) -> str:
    if start is None:
        return "-"
    return start if isinstance(start, str) else f"{start:g}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
