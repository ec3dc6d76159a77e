"""Timing on a GPU: between CUDA events, around a CUDA graph of several calls, so that no time of Python's counts."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..timing import time_in_turns

DEVICE = "cuda"
TURNS = 5
# Calls between two looks at the clock: as many as take so long, but no more than these. Unit: seconds.
LONG, MOST_CALLS = 0.02, 10


def cuda_clock() -> float:
    """Seconds by the GPU's own clock, once all work given to it so far is done; for differences."""
    if not _start:
        _start.append(_event())
    return float(_start[0].elapsed_time(_event())) / 1e3


_start: list[Any] = []


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    event.synchronize()
    return event


def seconds_a_call(
    sides: Mapping[str, Callable[[], object]], turns: int = TURNS, seconds: float = 0.1
) -> dict[str, list[float]]:
    """Seconds of one call of each side, a number for each turn; `seconds` is how long the calls of a turn go on."""
    counts = {name: calls_together(run) for name, run in sides.items()}
    repeated = {name: captured(run, counts[name]) for name, run in sides.items()}
    times = time_in_turns(repeated, turns=turns, seconds=seconds, clock=cuda_clock)
    return {name: [each / counts[name] for each in turns_of] for name, turns_of in times.items()}


def calls_together(run: Callable[[], object]) -> int:
    """How many calls are timed together: few of what takes long, as torch's own convolution of large kernels."""
    run()  # compiles, and measures configurations
    return max(1, min(MOST_CALLS, round(LONG / max(seconds_of_one(run), 1e-9))))


def seconds_of_one(run: Callable[[], object]) -> float:
    """Seconds of a single call."""
    start = cuda_clock()
    run()
    return cuda_clock() - start


def captured(run: Callable[[], object], calls: int) -> Callable[[], object]:
    """So many calls as a CUDA graph: what the GPU does, without the time that Python takes to ask for it."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # compiles, measures configurations, takes memory
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return graph.replay
