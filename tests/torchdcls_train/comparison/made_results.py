"""Results of comparisons that nobody ran."""

from typing import Any

from torchdcls_train.comparison.result import AnyResult, result_from

ORIGIN = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "dirty": True,
    "command": "torchdcls compare",
    "machine": {"cpu": "A <fast> one", "cores": 2, "memory_gib": 23.5, "os": "Debian"},
    "load": 0.5,
    "versions": {"torch": "2.14"},
    "complete": True,
    "status": "finished",
    "threads": 1,
}


def made_result(kind: type[AnyResult], **stored: Any) -> AnyResult:
    """The results that a file with these keys holds."""
    return result_from(kind, {"benchmark": kind.benchmark, **ORIGIN, **stored})
