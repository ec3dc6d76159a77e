"""Tables of results in Markdown, and how sure a mean over seeds in them is."""

import math
import statistics
from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the header first, as Markdown: the first column to the left, the others to the right."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def half_interval(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of the confidence interval of the mean (Student's t), for two values or more."""
    from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]

    return float(t.ppf((1 + confidence) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
