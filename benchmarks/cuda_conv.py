"""The convolution of one layer on a GPU: against `F.conv2d` of the same kernel and of 7x7, and against what bounds it.

The layers are the depthwise ones of ConvNeXt-T's four stages at batch 128, bfloat16, channels_last. Times are between
CUDA events around a CUDA graph of up to ten calls.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .conv import STAGES, Layer, comparison_rows, ours, tensors, torchs, trained
from .parity import check_parity
from .timing import Timings, time_in_turns

SUMMARY = "one layer's convolution on a GPU, against torch's"
PACKAGES: tuple[str, ...] = ("torch", "triton", "torchdcls")

DEVICE = "cuda"
# Calls between two looks at the clock: as many as take so long, but no more than these. Unit: seconds.
LONG, MOST_CALLS = 0.02, 10
# Channels that are enough to check a layer by: as many as programs take at once, and as fill vectors of all dtypes.
CHECKED_CHANNELS = 16
# Side of the matrices whose product says at what rate products are made.
SQUARE = 4096
# Largest errors allowed, as a share of the largest value.
PARITY_TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 1e-4}


@dataclass(frozen=True)
class GpuLayer(Layer):
    """A depthwise layer on a square map, forward and backward, against torch's convolution of a kernel size."""

    batch: int = 128
    against: int = 23
    dtype: torch.dtype = torch.bfloat16

    def __str__(self) -> str:
        size = f"{self.kernel}x{self.kernel} on {self.map}"
        return f"{size}, {str(self.dtype)[6:]}, against F.conv2d {self.against}x{self.against}"


@dataclass(frozen=True)
class Floor:
    """The forward pass of a layer against what no program can go below: bytes to move, products to make."""

    layer: GpuLayer

    def __str__(self) -> str:
        layer = str(self.layer).rpartition(",")[0]
        return f"forward alone of {layer}, against the least time that its bytes and products take at measured rates"


PROBLEMS: dict[str, GpuLayer | Floor] = {
    **{f"stage {stage}": GpuLayer(*sizes) for stage, sizes in enumerate(STAGES, start=1)},
    **{f"stage {stage}, 7x7": GpuLayer(*sizes, against=7) for stage, sizes in enumerate(STAGES, start=1)},
    "RepLKNet": GpuLayer(384, 32, 31, 64, 31, torch.float32),
    "spectra": GpuLayer(96, 128, 101, 8, 101, torch.float32),
    "floor": Floor(GpuLayer(96, 56)),
}


def verify(names: Sequence[str]) -> None:
    """Checks output and gradients against torch's in float64: each layer's own maps and kernel, of fewer channels.

    Raises:
        ParityError: They differ; the message names the layer.
    """
    problems = (PROBLEMS[name] for name in names)
    for layer in dict.fromkeys(each if isinstance(each, GpuLayer) else each.layer for each in problems):
        few = replace(layer, channels=min(layer.channels, CHECKED_CHANNELS))
        input, weight, gradient = tensors(few, few.kernel, torch.channels_last, DEVICE)
        exact_input, exact_weight = (tensor.detach().double().requires_grad_() for tensor in (input, weight))
        wanted = trained(torchs, exact_input, exact_weight, gradient.double())
        got = trained(ours, input, weight, gradient)
        for part, one, other in zip(("output", "gradient of input", "of weight"), got(), wanted(), strict=True):
            check_parity(f"{few}: {part}", one.double(), other, PARITY_TOLERANCES[layer.dtype])


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    """Measures the problems one after the other."""
    entries = []
    for name in names:
        problem = PROBLEMS[name]
        compare = _compare if isinstance(problem, GpuLayer) else _compare_with_floor
        layer = problem if isinstance(problem, GpuLayer) else problem.layer
        comparison = compare(layer, arguments.turns, after_turn)
        entries.append({"name": name, "problem": str(problem), **comparison.to_json()})
    return {"comparisons": entries}


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first."""
    return comparison_rows("on a GPU, forward and backward of", result, digits=3)


def note(result: Mapping[str, Any]) -> str:
    """What the table's columns mean."""
    return (
        f"Median of {result['settings']['turns']} turns, the ratio's spread in brackets; channels_last, F.conv2d in "
        "the memory format in which it is the faster."
    )


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


def _compare(layer: GpuLayer, turns: int, after_turn: Callable[[], None]) -> Timings:
    formats = (torch.contiguous_format, torch.channels_last)
    theirs = {str(format): trained(torchs, *tensors(layer, layer.against, format, DEVICE)) for format in formats}
    first = _times(theirs, 3)
    fastest = min(theirs, key=lambda name: sorted(first[name])[1])
    run = trained(ours, *tensors(layer, layer.kernel, torch.channels_last, DEVICE))
    times = _times({"ours": run, "torchs": theirs[fastest]}, turns, after_turn)
    return Timings(tuple(times["ours"]), tuple(times["torchs"]))


def _compare_with_floor(layer: GpuLayer, turns: int, after_turn: Callable[[], None]) -> Timings:
    input, weight, _ = (tensor.detach() for tensor in tensors(layer, layer.kernel, torch.channels_last, DEVICE))
    square = torch.randn(SQUARE, SQUARE, dtype=layer.dtype, device=DEVICE)
    sides: dict[str, Callable[[], object]] = {
        "forward": lambda: ours(input, weight),
        "bytes": lambda: torch.empty_like(input).copy_(input),  # as many in and out
        "products": lambda: square @ square,
    }
    times = _times(sides, turns, after_turn)
    share = layer.batch * layer.channels * _products_along(layer.side, layer.kernel) ** 2 / SQUARE**3
    floors = [max(copied, made * share) for copied, made in zip(times["bytes"], times["products"], strict=True)]
    return Timings(tuple(times["forward"]), tuple(floors))


def _times(
    sides: Mapping[str, Callable[[], object]], turns: int, after_turn: Callable[[], None] | None = None
) -> dict[str, list[float]]:
    # Seconds of one call, a number for each turn.
    counts = {name: _calls(run) for name, run in sides.items()}
    repeated = {name: captured(run, counts[name]) for name, run in sides.items()}
    times = time_in_turns(repeated, turns=turns, clock=cuda_clock, after_turn=after_turn)
    return {name: [seconds / counts[name] for seconds in each] for name, each in times.items()}


def _calls(run: Callable[[], object]) -> int:
    # How many calls are timed together: few of what takes long, as torch's own convolution of large kernels.
    run()  # compiles, and measures configurations
    start = cuda_clock()
    run()
    return max(1, min(MOST_CALLS, round(LONG / max(cuda_clock() - start, 1e-9))))


def _products_along(side: int, taps: int) -> int:
    # Along one axis, how often a tap falls on a cell of the map and not on padding.
    starts = (cell - taps // 2 for cell in range(side))
    return sum(min(side, start + taps) - max(0, start) for start in starts)


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
