"""The page "Choosing settings" and its picture, with every number from the records of the study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from torchdcls_results import INPUTS as IN_WORDS
from torchdcls_results import half_interval, markdown_table, mean_and_interval

from ..conclusions import counted
from ..differences import Difference, paired_difference
from ..page import commit_words, each_once, machine_words, version_words
from .plan import INPUTS, QUESTIONS, SEEDS, Question, Task, baseline, planned
from .records import NetworkOutcome, Records, TapsOutcome

if TYPE_CHECKING:
    from torchdcls_train.comparison.config import Inputs

# More than the kernels of any seed, which are numbered after each other.
_KERNELS = 1000


@dataclass(frozen=True)
class Effect:
    """How a row of a question differs from the first one, beside a column and on some inputs (networks: None).

    The difference is in points of what the table shows: taps found, loss or accuracy, all in percent.
    """

    question: Question
    row: str
    column: str
    inputs: "Inputs | None"
    difference: Difference

    @property
    def gain(self) -> float:
        """The mean difference, above 0 where it is better."""
        return -self.difference.mean if self.question.by_loss else self.difference.mean

    @property
    def significant(self) -> bool:
        """At 5 %, after Bonferroni correction over all effects of the question's task."""
        return self.difference.verdict in ("better", "worse")

    @property
    def unseen(self) -> float:
        """Differences below this are not significant, as far as the spread of this one tells. Unit: points."""
        low, high = self.difference.corrected
        return (high - low) / 2


class Findings:
    """What the complete seeds of each question say. A seed of which cells are missing would weigh settings unequally.

    Attributes:
        seeds: How many of each question are complete, by its title.
        effects: All differences from first rows that can be computed.
    """

    def __init__(self, records: Records) -> None:
        self._outcomes = records.outcomes
        self.seeds = {question.title: self._complete(question) for question in QUESTIONS}
        self.effects = list(self._differences())

    def _complete(self, question: Question) -> int:
        places = list(product(question.rows, question.columns, _inputs(question)))
        for seed in range(SEEDS[question.task]):
            ids = (question.cell(row, column, seed, inputs or "edges").id for row, column, inputs in places)
            if not all(id in self._outcomes for id in ids):
                return seed
        return SEEDS[question.task]

    def values(self, question: Question, row: str, column: str, inputs: "Inputs | None") -> dict[int, float]:
        """What the runs at one place of a question led to, by kernel (recovery task) or seed (networks), in percent.

        The recovery task has the share of taps found, or the loss over the teacher's power; networks have accuracy.
        """
        found: dict[int, float] = {}
        for seed in range(self.seeds[question.title]):
            outcome = self._outcomes[question.cell(row, column, seed, inputs or "edges").id]
            if not isinstance(outcome, TapsOutcome):
                found[seed] = outcome.accuracy
                continue
            each = outcome.loss if question.by_loss else [count / outcome.taps for count in outcome.found]
            found |= {seed * _KERNELS + kernel: 100 * value for kernel, value in enumerate(each)}
        return found

    def baselines(self) -> list[float]:
        """Accuracies of the network with its own layers, by seed. Unit: percent."""
        outcomes = (self._outcomes.get(baseline(seed).id) for seed in range(SEEDS["networks"]))
        return [outcome.accuracy for outcome in outcomes if isinstance(outcome, NetworkOutcome)]

    def _differences(self) -> Iterator[Effect]:
        for question in QUESTIONS:
            first, *rows = question.rows
            for column, inputs, row in product(question.columns, _inputs(question), rows):
                mine, reference = (self.values(question, it, column, inputs) for it in (row, first))
                if difference := paired_difference(mine, reference, _number(question.task)):
                    yield Effect(question, row, column, inputs, difference)


def page(records: Records) -> str:
    """The page."""
    findings = Findings(records)
    parts = [
        "# Choosing settings",
        "<!-- Made by `python -m benchmarks.tables` from benchmarks/results/settings.jsonl: no figure is typed in. -->",
        "**Which settings should you use?** The table has this study's answers, the largest effects first. *Edges* are "
        "inputs that vary from cell to cell, as edges of images do. *Images* are smooth inputs.",
        *_advice(findings.effects),
        "## What was measured",
        _measured(findings),
        "![Taps found by setting](images/settings.png)",
    ]
    for question in QUESTIONS:
        if rows := _rows(question, findings):
            parts += [f"## {question.title}", markdown_table(rows)]
    if any(_seeds("networks", findings)):
        parts.append(_network_words(findings))
    return "\n\n".join([*parts, "## How to read it", _how_to_read(), _provenance(records)]) + "\n"


def draw(records: Records) -> Any:
    """The picture: taps found at each setting of the recovery task, a panel for each kind of inputs."""
    from matplotlib.figure import Figure

    findings = Findings(records)
    questions = [question for question in QUESTIONS if question.task == "taps" and not question.by_loss]
    heights = [len(question.rows) + 1 for question in questions]
    figure = Figure(figsize=(10, 0.24 * sum(heights) + 1), layout="constrained")
    grid = figure.subplots(len(questions), len(INPUTS), sharex=True, squeeze=False, height_ratios=heights)
    marks = list(zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7"), "osD^", strict=True))
    for question, panels in zip(questions, grid, strict=True):
        for axes, inputs in zip(panels, INPUTS, strict=True):
            for (color, marker), column in zip(marks, question.columns, strict=False):
                told = [list(findings.values(question, row, column, inputs).values()) for row in question.rows]
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


def _number(task: Task) -> int:
    """How many differences of a task are compared in all, done or not."""
    mine = [it for it in QUESTIONS if it.task == task]
    return sum((len(it.rows) - 1) * len(it.columns) * len(_inputs(it)) for it in mine)


def _advice(effects: Sequence[Effect]) -> list[str]:
    """The table of what to do, and a sentence on what makes no significant difference."""
    told: list[tuple[float, list[str]]] = []
    silent: dict[str, list[tuple[str, float]]] = {}
    for question in QUESTIONS:
        for inputs in _inputs(question):
            mine = [effect for effect in effects if effect.question is question and effect.inputs == inputs]
            largest = max((abs(effect.gain) for effect in mine if effect.significant), default=0.0)
            if largest:
                told.append((largest, [question.choice + (f" ({inputs})" if inputs else ""), *_then(question, mine)]))
            elif mine:
                unseen = max(effect.unseen for effect in mine)
                silent.setdefault(inputs or "networks", []).append((question.title, unseen))
    rows = [row for _, row in sorted(told, key=lambda pair: -pair[0])]
    table = markdown_table([["If you", "then", "difference (points)"], *rows]).replace("---:", "---")  # words
    words = "No difference was significant in these; in brackets is the size that may have been missed, in points:\n"
    words += "".join(
        f"\n- {inputs}: {'; '.join(f'{title} ({unseen:.0f})' for title, unseen in missed)}"
        for inputs, missed in silent.items()
    )
    return [*([table] if rows else []), *([words] if silent else [])]


def _then(question: Question, effects: Sequence[Effect]) -> list[str]:
    """What to take of a question, and the differences that say so, beside the columns from least to most."""
    first, *rows = question.rows
    of = {row: [effect for effect in effects if effect.row == row] for row in rows}
    gaining = [row for row in rows if any(it.significant and it.gain > 0 for it in of[row])]
    gaining.sort(key=lambda row: -mean(it.gain for it in of[row]))
    better = [row for row in gaining if all(it.gain >= 0 for it in of[row])]
    chosen = (better or gaining)[:1]
    losing = [row for row in rows if row not in chosen and any(it.significant and it.gain < 0 for it in of[row])]
    against = f", not {', '.join(losing)}" if losing else ""
    if better:
        words = f"take **{', or '.join([f'{better[0]}**', *better[1:]])}, not {', '.join([first, *losing])}"
    elif gaining:
        beside = ", ".join(it.column for it in of[chosen[0]] if it.significant and it.gain > 0)
        words = f"take **{chosen[0]}** with {beside}; else keep **{first}**{against}"
    else:
        words = f"keep **{first}**{against}"
    worst = sorted(losing, key=lambda row: min(it.gain for it in of[row]))[:1]
    return [words, "; ".join(_range(row, of[row]) for row in (*chosen, *worst))]


def _range(row: str, effects: Sequence[Effect]) -> str:
    found = [effect.difference.mean for effect in effects]
    low, high = f"{min(found):+z.1f}", f"{max(found):+z.1f}"
    of_what = "loss " if effects[0].question.by_loss else ""
    return f"{row}: {of_what}{low if low == high else f'{low} to {high}'}"


def _rows(question: Question, findings: Findings) -> list[list[str]]:
    """The table of a question, header first; nothing before a seed is complete."""
    places = list(product(question.columns, _inputs(question)))
    if not (seeds := findings.seeds[question.title]):
        return []
    known = {(it.row, it.column, it.inputs): it for it in findings.effects if it.question is question}
    header = [
        counted(seeds, "seed"),
        *(column if inputs is None else f"{column}, {inputs}" for column, inputs in places),
    ]
    rows = [header]
    for row in question.rows:
        cells = [row]
        for column, inputs in places:
            told = mean_and_interval(list(findings.values(question, row, column, inputs).values()), ".1f")
            if (effect := known.get((row, column, inputs))) is not None:
                number = f"{effect.difference.mean:+z.1f}"
                told += f" (**{number}**)" if effect.significant else f" ({number})"
            cells.append(told)
        rows.append(cells)
    return rows


def _measured(findings: Findings) -> str:
    parts = [
        "Each setting is varied by itself around the paper's: a Gaussian whose sigma starts at 0.23, positions that "
        "start normally distributed with standard deviation 0.5 cells, and a learning rate of positions 5 times that "
        "of weights.",
        "The measure is the recovery task of `torchdcls compare positions`. A 23x23 kernel has 6 taps that are not "
        "zero, up to 9 cells away from its center. In 400 updates 6 elements look for them, and the share of taps "
        "found counts. Inputs are images, which are smooth, or edges of images, which vary from cell to cell. "
        f"{_done('taps', findings)}",
    ]
    if any(_seeds("networks", findings)):
        parts.append(
            "A smaller part asks for the accuracy of the small network of `torchdcls compare images`. "
            f"{_done('networks', findings)}"
        )
    return "\n\n".join(parts)


def _seeds(task: Task, findings: Findings) -> list[int]:
    return [findings.seeds[question.title] for question in QUESTIONS if question.task == task]


def _done(task: Task, findings: Findings) -> str:
    """How much of a task is done, and what it cannot tell."""
    done, of = _seeds(task, findings), SEEDS[task]
    runs = sum(1 for _ in planned({task: 1}))
    if min(done) == of:
        told = f"All {of} seeds of {runs:,} runs are done."
    else:
        number = " to ".join(map(str, dict.fromkeys((min(done), max(done)))))
        told = (
            f"**{number} of {of} seeds are complete**, of {runs:,} runs each. A table shows the seeds of which all its "
            "cells are done, so that all its settings have equally many."
        )
    unseen = [it.unseen for it in findings.effects if it.question.task == task and not it.question.by_loss]
    if unseen:
        told += (
            f" A difference is significant from about {median(unseen):.0f} points on (up to {max(unseen):.0f} where "
            "results scatter); smaller ones are below the resolution."
        )
    return told


def _network_words(findings: Findings) -> str:
    own = findings.baselines()
    return (
        "Tables of networks have accuracy on 1,000 validation images (%) after 4 epochs on 5,000 images of "
        "Fashion-MNIST, with 17x17 kernels where the size is not asked about. The same network with 7x7 layers: "
        f"{mean_and_interval(own, '.1f')} ({counted(len(own), 'seed')}). Questions after the first were added when "
        "three seeds of it were known."
    )


def _how_to_read() -> str:
    return (
        "Tables show taps found in percent. For the number of elements they show the loss, in percent of the teacher's "
        "power: less is better. For networks they show accuracy. ± is half the 95 % interval of the mean (Student's t) "
        "over independent kernels, for networks over seeds. In brackets is the difference from the first row, paired "
        "by kernel or seed. It is bold where it is significant at 5 % by scipy's paired t-test after Bonferroni "
        f"correction: over {_number('taps')} differences of the recovery task, {_number('networks')} of networks.\n\n"
        "The first table names settings that are significantly better beside one column at least, and worse on average "
        "beside none. Its last column has the range over the columns of the table below. A tap is found by an "
        "element of its sign less than a cell away. *Narrow start* is the paper's. *Spread start* is uniform within 9 "
        "cells along each axis. An annealed sigma is not learned: it falls to 0 in three quarters of the updates.\n\n"
        "Limits: the recovery task asks whether elements get where they belong, not how accurate a network becomes. "
        "Runs are short, weights have one learning rate, and the images are of one data set."
    )


def _provenance(records: Records) -> str:
    origins: Sequence[Mapping[str, Any]] = records.origins
    if not origins:
        return ""
    return (
        f"Run again: `python -m studies.run settings`, then `python -m benchmarks.publish runs/study-settings` and "
        f"`python -m benchmarks.tables`. {each_once('; ', (machine_words(it['machine']) for it in origins))}; "
        f"{each_once('; ', (version_words(it['versions']) for it in origins))}; "
        f"commit {each_once(', ', (commit_words(it['commit'], it['dirty']) for it in origins))}; "
        f"{each_once(', ', (it['date'][:10] for it in origins))}."
    )
