"""Paired differences between methods, with intervals that say how sure they are, and whether settings matter at all."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "not significant", "no conclusion"]


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another, over seeds. Unit: percentage points."""

    pairs: int  # seeds that both have
    mean: float
    interval: tuple[float, float]  # its 95 % interval (Student's t), as if this were the only comparison
    # The interval that, with those of all comparisons, holds everything at once in 95 % of studies (Bonferroni: each at
    # 1 - 5 % / comparisons).
    corrected: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """What the corrected interval shows."""
        low, high = self.corrected
        if low == high:
            return "no conclusion"  # all differences are one: two seeds of a tiny test set
        return "better" if low > 0 else "worse" if high < 0 else "not significant"


def paired_difference(method: Mapping[int, float], other: Mapping[int, float], comparisons: int) -> Difference | None:
    """The difference of two methods' accuracies by scipy's paired t-test, of the seeds that both have.

    Args:
        method: Accuracies by seed. Unit: percent.
        other: Those of what it is compared with.
        comparisons: How many comparisons are made in all, this one among them.

    Returns:
        The difference, or None with fewer than two pairs.

    Example:
        >>> from studies.differences import paired_difference
        >>> found = paired_difference({0: 82.0, 1: 84.0, 2: 86.0}, {0: 81.0, 1: 82.0, 2: 83.0}, comparisons=1)
        >>> found.mean, [round(end, 2) for end in found.interval], found.verdict
        (2.0, [-0.48, 4.48], 'not significant')
    """
    from scipy.stats import ttest_rel  # type: ignore[import-untyped, unused-ignore]

    seeds = sorted(set(method) & set(other))
    if len(seeds) < 2:
        return None
    with warnings.catch_warnings():
        # Differences that are all the same are said to be so by `verdict`.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ttest_rel([method[seed] for seed in seeds], [other[seed] for seed in seeds])
        intervals = [test.confidence_interval(1 - 0.05 / count) for count in (1, comparisons)]
    usual, corrected = ((float(interval.low), float(interval.high)) for interval in intervals)
    return Difference(len(seeds), sum(method[seed] - other[seed] for seed in seeds) / len(seeds), usual, corrected)


def chance_of_spread(groups: Sequence[Sequence[float]]) -> float | None:
    """How often chance alone would give means that differ as much: scipy's one-way analysis of variance.

    Args:
        groups: What was measured at each setting, one number a seed.

    Returns:
        A probability; None where nothing varies within the groups, or no group has two numbers.

    Example:
        >>> from studies.differences import chance_of_spread
        >>> round(chance_of_spread([[1.0, 2.0], [3.0, 4.0]]), 3)
        0.106
    """
    from scipy.stats import f_oneway

    if len(groups) < 2 or all(len(group) < 2 for group in groups):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing varies
        chance = float(f_oneway(*groups).pvalue)
    return chance if 0 < chance <= 1 and not math.isnan(chance) else None
