"""The page "Choosing settings" and its picture, with every number from the records of the study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING, Any

from torchdcls_results import INPUTS as IN_WORDS
from torchdcls_results import half_interval, markdown_table, mean_and_interval

from ..differences import Difference, paired_difference
from .plan import INPUTS, QUESTIONS, SEEDS, NetworkCell, Question, baseline, planned, task_of
from .records import Records, TapsOutcome

if TYPE_CHECKING:
    from torchdcls_train.comparison.config import Inputs

# More than the kernels of any seed, which are numbered after each other.
_KERNELS = 1000


@dataclass(frozen=True)
class Effect:
    """What a row of a question changes against the first one.

    Args:
        question: The question.
        row: Its row.
        column: Beside what.
        inputs: What kernels see; None for networks.
        difference: By scipy's paired t-test. Unit: points of percent.
    """

    question: Question
    row: str
    column: str
    inputs: "Inputs | None"
    difference: Difference

    @property
    def significant(self) -> bool:
        """At 5 %, after Bonferroni correction over all effects of the study."""
        return self.difference.verdict in ("better", "worse")

    @property
    def place(self) -> str:
        """Beside what, in words."""
        return _place(self.column, self.inputs)


def page(records: Records) -> str:
    """The page."""
    effects = list(effects_of(records))
    parts = [
        "# Choosing settings",
        "<!-- Made by `python -m benchmarks.tables` from benchmarks/results/settings.jsonl: no figure is typed in. -->",
        _introduction(records),
        *filter(None, [_notice(records)]),
        "## What matters",
        markdown_table(_summary(effects)),
        *filter(None, [_no_effect(effects)]),
        "![Taps found by setting](images/settings.png)",
    ]
    for question in QUESTIONS:
        if rows := question_rows(question, records, effects):
            parts += [f"## {question.title}", markdown_table(rows)]
            if question.task == "networks":
                parts.append(_baseline_words(records))
    return "\n\n".join([*parts, "## How to read it", _how_to_read(effects), _provenance(records)]) + "\n"


def values(question: Question, row: str, column: str, inputs: "Inputs | None", records: Records) -> dict[int, float]:
    """What the runs at one place of a question led to, by kernel (recovery task) or seed (networks). Unit: percent.

    The recovery task has the share of taps found, or the loss over the teacher's power; networks have accuracy.
    """
    found: dict[int, float] = {}
    for seed in range(_KERNELS):
        outcome = records.outcomes.get(question.cell(row, column, seed, inputs or "edges").id)
        if outcome is None:
            return found
        if not isinstance(outcome, TapsOutcome):
            found[seed] = outcome.accuracy
            continue
        each = outcome.loss if question.by_loss else [count / outcome.taps for count in outcome.found]
        found |= {seed * _KERNELS + kernel: 100 * value for kernel, value in enumerate(each)}
    return found


def effects_of(records: Records) -> Iterator[Effect]:
    """All differences from first rows that can be computed."""
    number = sum((len(it.rows) - 1) * len(it.columns) * len(_inputs(it)) for it in QUESTIONS)
    for question in QUESTIONS:
        first, *rows = question.rows
        for column, inputs, row in product(question.columns, _inputs(question), rows):
            mine, reference = (values(question, it, column, inputs, records) for it in (row, first))
            difference = paired_difference(mine, reference, number)
            if difference is not None:
                yield Effect(question, row, column, inputs, difference)


def question_rows(question: Question, records: Records, effects: Sequence[Effect]) -> list[list[str]]:
    """The table of a question, header first; without rows where nothing is done."""
    places = list(product(question.columns, _inputs(question)))
    known = {
        (effect.row, effect.column, effect.inputs): effect.difference
        for effect in effects
        if effect.question is question
    }
    rows = []
    for row in question.rows:
        cells = []
        for column, inputs in places:
            there = list(values(question, row, column, inputs, records).values())
            difference = known.get((row, column, inputs))
            told = "" if difference is None else f" ({_signed(difference)})"
            cells.append(f"{mean_and_interval(there, '.1f')}{told}" if there else "-")
        rows.append([row, *cells])
    if all(cell == "-" for _, *cells in rows for cell in cells):
        return []
    return [["", *(_place(*place) for place in places)], *rows]


def draw(records: Records) -> Any:
    """The picture: taps found at each setting of the recovery task, a panel for each kind of inputs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    questions = [question for question in QUESTIONS if question.task == "taps" and not question.by_loss]
    heights = [len(question.rows) + 1 for question in questions]
    figure = Figure(figsize=(10, 0.24 * sum(heights) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(questions), len(INPUTS), sharex=True, squeeze=False, height_ratios=heights)
    marks = list(zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7"), "osD^", strict=True))
    for question, panels in zip(questions, grid, strict=True):
        for axes, inputs in zip(panels, INPUTS, strict=True):
            for (color, marker), column in zip(marks, question.columns, strict=False):
                told = [list(values(question, row, column, inputs, records).values()) for row in question.rows]
                means = [mean(there) if there else float("nan") for there in told]
                halves = [half_interval(there) if len(there) > 1 else 0.0 for there in told]
                axes.errorbar(
                    means, range(len(told)), xerr=halves, color=color, fmt=marker, ms=4, capsize=2, label=column
                )
            axes.set_yticks(range(len(question.rows)), list(question.rows) if inputs == INPUTS[0] else [])
            axes.tick_params(labelsize="x-small")
            axes.set_ylim(len(question.rows) - 0.5, -0.5)
            axes.set_xlim(0, 100)
            axes.grid(axis="x", alpha=0.3)
        panels[0].set_title(question.title, fontsize="small", fontweight="bold", loc="left")
        panels[-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axes, inputs in zip(grid[-1], INPUTS, strict=True):
        axes.set_xlabel(f"taps found (%), inputs: {IN_WORDS[inputs]}", fontsize="small")
    return figure


def _inputs(question: Question) -> "Sequence[Inputs | None]":
    return INPUTS if question.task == "taps" else (None,)


def _place(column: str, inputs: "Inputs | None") -> str:
    return column if inputs is None else f"{column}, {inputs}"


def _signed(difference: Difference) -> str:
    number = f"{difference.mean:+z.1f}"
    return f"**{number}**" if difference.verdict in ("better", "worse") else number


def _introduction(records: Records) -> str:
    taps = [outcome for outcome in records.outcomes.values() if isinstance(outcome, TapsOutcome)]
    networks = " A smaller part asks the same of the small network of `torchdcls compare images`."
    return (
        "Which interpolation, which start of sigma and of positions, how many elements, which size? Each setting is "
        "varied around the paper's: a Gaussian whose sigma starts at 0.23, positions that start as normal numbers of "
        "standard deviation 0.5 cells, and a learning rate of positions 5 times that of weights. The measure is the "
        "recovery task of `torchdcls compare positions`: in 400 updates, which share of 6 taps within 9 cells of the "
        "center do 6 elements of a 23x23 kernel find? Inputs are images, which are smooth, or their edges, which vary "
        f"from cell to cell. {len(taps):,} runs of {len(taps[0].found) if taps else 0} independent kernels each."
        + (networks if len(taps) < len(records.outcomes) else "")
    )


def _notice(records: Records) -> str:
    """What is not done yet, or nothing."""
    left = []
    for task, word in (("taps", "of the recovery task"), ("networks", "of networks")):
        cells = [cell for cell in planned(SEEDS) if task_of(cell) == task]
        done = sum(cell.id in records.outcomes for cell in cells)
        left += [f"{done:,} of {len(cells):,} runs {word}"] if done < len(cells) else []
    return f"**The study is not complete: {' and '.join(left)} are done, and only these are shown.**" if left else ""


def _summary(effects: Sequence[Effect]) -> list[list[str]]:
    """The largest effect of each question and kind of inputs, the largest first."""
    largest: dict[tuple[str, Inputs | None], Effect] = {}
    for effect in effects:
        key = (effect.question.title, effect.inputs)
        if effect.significant and (
            key not in largest or abs(effect.difference.mean) > abs(largest[key].difference.mean)
        ):
            largest[key] = effect
    rows = [["setting", "largest effect", "beside", "difference (points)", "95 % interval, corrected"]]
    for effect in sorted(largest.values(), key=lambda effect: -abs(effect.difference.mean)):
        low, high = effect.difference.corrected
        what = " of loss" if effect.question.by_loss else ""
        rows.append(
            [
                effect.question.title,
                f"{next(iter(effect.question.rows))} to {effect.row}",
                effect.place,
                f"{effect.difference.mean:+z.1f}{what}",
                f"{low:+z.1f} to {high:+z.1f}",
            ]
        )
    return rows


def _no_effect(effects: Sequence[Effect]) -> str:
    """Which questions have no significant effect, and how large one would have had to be."""
    told = []
    for question in QUESTIONS:
        mine = [effect for effect in effects if effect.question is question]
        if mine and not any(effect.significant for effect in mine):
            widths = [(effect.difference.corrected[1] - effect.difference.corrected[0]) / 2 for effect in mine]
            told.append(f"{question.title} (differences under {max(widths):.1f} points are below the resolution)")
    return f"No significant effect: {'; '.join(told)}." if told else ""


def _baseline_words(records: Records) -> str:
    found: list[float] = []
    for seed in range(_KERNELS):
        outcome = records.outcomes.get(baseline(NetworkCell(seed=seed)).id)
        if outcome is None or isinstance(outcome, TapsOutcome):
            break
        found.append(outcome.accuracy)
    if not found:
        return ""
    return (
        "Accuracy on 1,000 validation images (%) after training on 5,000 images of Fashion-MNIST; 17x17 kernels. The "
        f"same network with 7x7 layers: {mean_and_interval(found, '.1f')} ({len(found)} seeds)."
    )


def _how_to_read(effects: Sequence[Effect]) -> str:
    return (
        "Tables show taps found in percent, in the question about the number of elements the loss in percent of the "
        "teacher's power (less is better), and for networks accuracy. ± is the 95 % interval of the mean (Student's t) "
        "over independent kernels, for networks over seeds. Brackets: the difference from the first row, paired by "
        "kernel or seed; bold where it is significant at 5 % by scipy's paired t-test after Bonferroni correction over "
        f"all {len(effects)} differences of this page. A tap is found by an element of its sign less than a cell away. "
        "*Narrow start* is the paper's; *spread start* is uniform within 9 cells along each axis. An annealed sigma is "
        "not learned and falls to 0 in three quarters of the updates.\n\n"
        "Limits: the recovery task asks whether elements get where they belong, not how accurate a network becomes; "
        "runs are short; one learning rate of weights; images of one data set."
    )


def _provenance(records: Records) -> str:
    def each(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    origins: list[Mapping[str, Any]] = records.origins
    if not origins:
        return ""
    machines = [f"{it['machine']['cpu']}, {it['machine']['cores']} cores" for it in origins]
    versions = [", ".join(f"{name} {number}" for name, number in it["versions"].items()) for it in origins]
    changes = [" with uncommitted changes" if it["dirty"] else "" for it in origins]
    commits = [(it["commit"] or "unknown")[:10] + more for it, more in zip(origins, changes, strict=True)]
    return (
        f"Run again: `python -m studies.run settings`, then `python -m benchmarks.publish runs/study-settings` and "
        f"`python -m benchmarks.tables`. {each(machines)}; {each(versions)}; commit {each(commits)}; "
        f"{each([it['date'][:10] for it in origins])}."
    )
