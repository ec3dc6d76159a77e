"""The parts of a session on a GPU: `python -m benchmarks.gpu_session`. They need torch, Triton and nothing else."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

# Measures one problem, and gives what its entry of the result file says beside its name.
Problem = Callable[[], dict[str, Any]]


class GpuPart(Protocol):
    """A module of this folder.

    `SECONDS` is how long it may take. `problems` are in the order in which they are wanted. `rows` makes the table of
    the entries that were measured, the header first.
    """

    SUMMARY: str
    SECONDS: int

    def problems(self) -> Mapping[str, Problem]: ...

    def rows(self, result: Mapping[str, Any]) -> list[list[str]]: ...


def measured(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a result that were measured: those that failed have an `error` and nothing else."""
    return [entry for entry in result["entries"] if "error" not in entry]
