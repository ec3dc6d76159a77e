"""The configuration of a launch: a pinned one, the one measured as fastest, or the best guess."""

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

# Launches that are timed together, and how often, after one that compiles. The GPU first waits for so many cycles that
# all of them are launched before the first starts: only the GPU is timed.
LAUNCHES, TIMES, CYCLES = 5, 5, 2_000_000
# Another configuration has to take less than this share of the time of the best guess.
MARGIN = 0.95
_measured: dict[Hashable, Any] = {}
enlist(_measured.clear)
_pinned: dict[Role, Any] = {}


@contextmanager
def pinned(
    output: Banded | Multiplied | None = None, weight_gradient: BandedWeightGradient | None = None
) -> Iterator[None]:
    """Inside, every launch takes the given configuration, or with None the usual one.

    Args:
        output: For the output and the gradient of the input.
        weight_gradient: For the gradient of the kernel.
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
    """The configuration to launch, one of `candidates`, of which the first is the best guess.

    `run` launches with a configuration. The fastest is measured once in a process for each `key`.
    """
    pinned: _Blocks | None = _pinned.get(role)
    if pinned is not None:
        return pinned
    guess, *others = candidates
    if torch.are_deterministic_algorithms_enabled():
        return guess  # others may round differently, and no bit must depend on a measurement
    measured: _Blocks | None = _measured.get((role, key))
    if measured is not None:
        return measured
    if not others or not may_measure(device):
        return guess
    times = {guess: MARGIN * milliseconds(run, guess), **{other: milliseconds(run, other) for other in others}}
    fastest = _measured[role, key] = min(candidates, key=lambda candidate: times[candidate])
    return fastest


def may_measure(device: torch.device) -> bool:
    """Whether a measurement is possible: on GPUs, and not while a CUDA graph is captured."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def milliseconds(run: Callable[[_Blocks], object], candidate: _Blocks) -> float:
    """Median time of a launch on the current GPU; infinity if the GPU is out of memory for it."""
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
