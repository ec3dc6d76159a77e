"""Which configuration a launch takes: one that is pinned, the one measured to be the fastest, or the best guess."""

import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch

from .configurations import Banded, BandedWeightGradient, Multiplied

Role = Literal["output", "weight gradient"]
Blocks = TypeVar("Blocks")

# Timed calls of a configuration, after one that compiles it.
CALLS = 5
_measured: dict[Hashable, Any] = {}
_pinned: dict[Role, Any] = {}


@contextmanager
def pinned(
    output: Banded | Multiplied | None = None, weight_gradient: BandedWeightGradient | None = None
) -> Iterator[None]:
    """While it lasts, every launch takes the given configuration, whatever was measured; of None, what it would take.

    Args:
        output: For the output and the gradient of the input.
        weight_gradient: For the gradient of the kernel.
    """
    before = dict(_pinned)
    _pinned.update({"output": output, "weight gradient": weight_gradient})
    try:
        yield
    finally:
        _pinned.update(before or {"output": None, "weight gradient": None})


def choose(
    role: Role, candidates: Sequence[Blocks], key: Hashable, run: Callable[[Blocks], object], device: torch.device
) -> Blocks:
    """The configuration to launch.

    Args:
        role: What is made.
        candidates: What may make it, best guess first.
        key: What the fastest one depends on; measured once in a process for each.
        run: Launches with a configuration.
        device: Where. Only GPUs are measured on, and not while a CUDA graph is captured.
    """
    configuration: Blocks | None = _pinned.get(role) or _measured.get((role, key))
    if configuration is not None:
        return configuration
    if len(candidates) == 1 or not may_measure(device):
        return candidates[0]
    times = {candidate: milliseconds(run, candidate) for candidate in candidates}
    fastest = _measured[role, key] = min(candidates, key=lambda candidate: times[candidate])
    return fastest


def may_measure(device: torch.device) -> bool:
    """Whether a measurement means something and disturbs nothing."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def milliseconds(run: Callable[[Blocks], object], candidate: Blocks) -> float:
    """Median time of a launch on the current GPU; infinity where it has not the memory that the candidate takes."""
    from triton.runtime.errors import OutOfResources

    try:
        run(candidate)
    except OutOfResources:
        return float("inf")
    times: list[float] = []
    for _ in range(CALLS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run(candidate)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)
