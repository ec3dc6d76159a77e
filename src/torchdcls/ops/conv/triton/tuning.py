"""Which configuration a launch takes: one that is pinned, the one measured to be the fastest, or the best guess."""

import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch

from ...caches import enlist
from ...tracing import gpu_waits
from .configurations import Banded, BandedWeightGradient, Multiplied

Role = Literal["output", "weight gradient"]
_Blocks = TypeVar("_Blocks")

# Launches that are timed together, after one that compiles, and how often. So many GPU cycles of waiting come before
# them that the first does not start before the last is launched: it is the GPU that is timed.
LAUNCHES, TIMES, CYCLES = 5, 5, 2_000_000
# How much faster than the best guess another configuration has to be, as a share of its time.
MARGIN = 0.95
_measured: dict[Hashable, Any] = {}
enlist(_measured.clear)
_pinned: dict[Role, Any] = {}


@contextmanager
def pinned(
    output: Banded | Multiplied | None = None, weight_gradient: BandedWeightGradient | None = None
) -> Iterator[None]:
    """While it lasts, every launch takes the given configuration, whatever was measured; of None, what it would take.

    Args:
        output: For the output and the gradient of the input.
        weight_gradient: For the gradient of the kernel.

    Raises:
        TypeError: A configuration of another kind.
    """
    if not isinstance(output, Banded | Multiplied | None):
        raise TypeError(f"output: expected Banded, Multiplied or None, got {output!r}")
    if not isinstance(weight_gradient, BandedWeightGradient | None):
        raise TypeError(f"weight_gradient: expected BandedWeightGradient or None, got {weight_gradient!r}")
    before = dict(_pinned)
    _pinned.update({"output": output, "weight gradient": weight_gradient})
    try:
        yield
    finally:
        _pinned.clear()
        _pinned.update(before)


def tuned(
    role: Role, candidates: Sequence[_Blocks], key: Hashable, run: Callable[[_Blocks], object], device: torch.device
) -> _Blocks:
    """The configuration to launch.

    Args:
        role: What is made.
        candidates: What may make it, best guess first.
        key: What the fastest one depends on; measured once in a process for each.
        run: Launches with a configuration.
        device: Where. Only GPUs are measured on, and not while a CUDA graph is captured.
    """
    pinned: _Blocks | None = _pinned.get(role)
    if pinned is not None:
        return pinned
    guess, *others = candidates
    if torch.are_deterministic_algorithms_enabled():
        return guess  # others may round otherwise, and no bit must depend on a measurement
    measured: _Blocks | None = _measured.get((role, key))
    if measured is not None:
        return measured
    if not others or not may_measure(device):
        return guess
    times = {guess: MARGIN * milliseconds(run, guess), **{other: milliseconds(run, other) for other in others}}
    fastest = _measured[role, key] = min(candidates, key=lambda candidate: times[candidate])
    return fastest


def may_measure(device: torch.device) -> bool:
    """Whether a measurement means something and disturbs nothing."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def milliseconds(run: Callable[[_Blocks], object], candidate: _Blocks) -> float:
    """Median time of a launch on the current GPU; infinity where it has not the memory that the candidate takes."""
    from triton.runtime.errors import OutOfResources

    try:
        run(candidate)
    except OutOfResources:
        return float("inf")
    times: list[float] = []
    for _ in range(TIMES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        gpu_waits(CYCLES)
        start.record()
        for _ in range(LAUNCHES):
            run(candidate)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)
