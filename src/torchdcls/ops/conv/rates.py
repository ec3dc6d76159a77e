"""What operations take on CPU. The numbers are in `rates.json`, which `python -m benchmarks.fit` writes."""

import json
from pathlib import Path

from ..caches import cached

FILE = Path(__file__).with_name("rates.json")


@cached(maxsize=1)
def _rates() -> dict[str, float]:
    rates: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))["nanoseconds"]
    return rates


def nanoseconds(operation: str) -> float:
    """What one operation of that name takes (on two cores, in float32)."""
    return _rates().get(operation, 0.0)
