"""The time of each operation on CPU. `python -m benchmarks.fit` writes `rates.json`."""

import json
from pathlib import Path

from ..caches import cached

FILE = Path(__file__).with_name("rates.json")


@cached(maxsize=1)
def _rates() -> dict[str, float]:
    rates: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))["nanoseconds"]
    return rates


def nanoseconds(operation: str) -> float:
    """The time of one operation of that name (on two cores, in float32)."""
    return _rates().get(operation, 0.0)
