"""Timing two callables against each other, in turns, in one process, once both are known to give the same numbers.

A machine's speed drifts: its clock, its temperature, what else runs on it. Two callables timed one after the other in
turns see the same drift, so that each turn gives one ratio, and the ratios of all turns give its spread.

In a turn each side runs once untimed and then several times timed; the turn keeps the median of those. The untimed call
is not there for warm caches alone. A callable that takes and frees hundreds of MiB makes the allocator give memory back
to the operating system, and whoever runs next pays for getting it again: without the untimed call a side would be
charged for what the other one did. Both sides are treated alike, and the side that goes first changes with every turn.

The callables time themselves as a whole: one that starts work elsewhere (on a GPU) has to wait for its end.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

# How sure the spread is to hold the true median ratio, where there are turns enough (six).
CONFIDENCE = 0.95


class ParityError(Exception):
    """Results differ, so their times mean nothing."""


def check_parity(what: str, result: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Compares what was computed, named in the error, with what it should be.

    Raises:
        ParityError: They differ by more than the tolerance, a share of the largest value wanted.
    """
    error = ((result - wanted).abs().max() / wanted.abs().max()).item()
    if not error <= tolerance:
        raise ParityError(f"{what} differs by {error:.1e} of its largest value")


@dataclass(frozen=True)
class Timings:
    """What came out of comparing a candidate with a baseline: seconds per call, one number per turn."""

    candidate: tuple[float, ...]
    baseline: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster than the baseline the candidate was, one number per turn."""
        return tuple(baseline / candidate for candidate, baseline in zip(self.candidate, self.baseline, strict=True))

    @property
    def ratio(self) -> float:
        """Median of `ratios`."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Interval of `ratios` that holds their true median with `CONFIDENCE`; below six turns, least and greatest."""
        ordered = sorted(self.ratios)
        outside = _ranks_outside(len(ordered))
        return ordered[outside], ordered[-1 - outside]

    @property
    def verdict(self) -> Literal["faster", "slower", "no difference"]:
        """What the candidate is. A ratio of 1 inside the spread is no difference, and one turn has no spread."""
        low, high = self.spread
        if len(self.ratios) < 2 or low <= 1 <= high:
            return "no difference"
        return "faster" if low > 1 else "slower"

    def to_json(self) -> dict[str, Any]:
        """The comparison for a result file, times in milliseconds a call."""
        return {
            "candidate_ms": statistics.median(self.candidate) * 1e3,
            "baseline_ms": statistics.median(self.baseline) * 1e3,
            "ratio": self.ratio,
            "spread": list(self.spread),
            "verdict": self.verdict,
            "candidate_ms_by_turn": [seconds * 1e3 for seconds in self.candidate],
            "baseline_ms_by_turn": [seconds * 1e3 for seconds in self.baseline],
            "ratio_by_turn": list(self.ratios),
        }


def compare_in_turns(
    candidate: Callable[[], object],
    baseline: Callable[[], object],
    *,
    turns: int,
    seconds: float = 0.2,
    least_calls: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    after_turn: Callable[[], None] | None = None,
) -> Timings:
    """Times what is measured against a baseline; the module says how, `time_in_turns` what the arguments are.

    Raises:
        ValueError: `turns` or `least_calls` below 1.
    """
    times = time_in_turns(
        {"candidate": candidate, "baseline": baseline},
        turns=turns,
        seconds=seconds,
        least_calls=least_calls,
        clock=clock,
        after_turn=after_turn,
    )
    return Timings(tuple(times["candidate"]), tuple(times["baseline"]))


def compare_problems(
    names: Sequence[str], problems: Mapping[str, object], compare: Callable[[str], Mapping[str, Any]]
) -> dict[str, Any]:
    """The part of a result file that has an entry for each problem: its name, words, and what `compare` gives."""
    return {"problems": [{"name": name, "problem": str(problems[name]), **compare(name)} for name in names]}


def comparison_rows(header: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Entries as a table below a header, which lacks its last title: times, or memory where that was compared."""
    table = [[*header, "speedup"]]
    for entry in entries:
        if "candidate_bytes" in entry:
            sides = [size(entry[side]) for side in ("candidate_bytes", "baseline_bytes")]
            ratio = f"{entry['ratio']:.2f} times the memory"
        else:
            sides = [duration(entry[side]) for side in ("candidate_ms", "baseline_ms")]
            ratio = ratio_words(entry)
        table.append([entry["problem"], *sides, ratio])
    return table


def turns_note(result: Mapping[str, Any]) -> str:
    """How the times of a result's table came about, for the end of a sentence."""
    settings = result["settings"]
    return f"threads: {settings['threads']}, median of {settings['turns']} turns, the ratio's spread in brackets."


def duration(milliseconds: float) -> str:
    """A time, in seconds from ten on."""
    if milliseconds >= 1e4:
        return f"{milliseconds / 1e3:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def size(count: float) -> str:
    """An amount of memory."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def ratio_words(entry: Mapping[str, Any]) -> str:
    """How many times as fast the candidate of a result's entry was by the medians beside it, with the turns' spread."""
    low, high = entry["spread"]
    if len(entry["ratio_by_turn"]) < 2:
        return f"{_short(entry['ratio'])}, one turn"
    if entry["verdict"] == "no difference":
        return f"no difference ({_short(low)} to {_short(high)})"
    return f"{_short(entry['baseline_ms'] / entry['candidate_ms'])} ({_short(low)} to {_short(high)})"


def _short(ratio: float) -> str:
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def time_in_turns(
    sides: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    seconds: float = 0.2,
    least_calls: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    after_turn: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Times any number of callables in turns; gives each one's seconds a call, a number for each turn.

    Args:
        sides: What is timed.
        turns: How often each side has its turn.
        seconds: How long the timed calls of a side's turn go on.
        least_calls: How many timed calls a turn has even where they take longer.
        clock: Gives the time in seconds.
        after_turn: Called when all sides have had a turn.

    Raises:
        ValueError: `turns` or `least_calls` below 1.
    """
    if turns < 1 or least_calls < 1:
        raise ValueError(f"turns and least_calls: expected at least 1, got {turns} and {least_calls}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides.items())
    for _ in range(turns):
        for name, run in order:
            times[name].append(_seconds_a_call(run, seconds, least_calls, clock))
        order.reverse()
        if after_turn is not None:
            after_turn()
    return times


def _seconds_a_call(run: Callable[[], object], seconds: float, least_calls: int, clock: Callable[[], float]) -> float:
    run()
    calls: list[float] = []
    while len(calls) < least_calls or sum(calls) < seconds:
        start = clock()
        run()
        calls.append(clock() - start)
    return statistics.median(calls)


def _ranks_outside(count: int) -> int:
    # How many values each end of the spread may leave out. The median lies outside only if at most that many of `count`
    # values fall on one side of it; each does so as likely as not, hence binomial terms, twice for the two ends.
    outside, missed = 0, 2 / 2**count
    while 2 * (outside + 1) < count:
        missed += 2 * math.comb(count, outside + 1) / 2**count
        if missed > 1 - CONFIDENCE:
            break
        outside += 1
    return outside
