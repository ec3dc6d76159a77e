"""Where the time of a layer goes, kernel by kernel, and the least that its bytes and products could take.

The rates of this GPU are measured beside it: a copy says how fast bytes move, a matrix product how fast products are
made. A map is read and written once, and a tap is multiplied where it falls on the map and not on padding.
"""

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

from ..conv import STAGES, Layer, ours, tensors, trained
from . import Problem, clock, measured

SUMMARY = "time by kernel against bytes and products"
SECONDS = 45

BATCH = 128
# Side of the matrices whose product says at what rate products are made.
SQUARE = 4096
# Three maps, each of which reads two tensors and writes one; the tensors of a map's size among them.
MAPS, TENSORS = 3, 6
CALLS = 5


def problems() -> dict[str, Problem]:
    """The stages, bfloat16, then float32."""
    return {
        f"stage {stage}, {str(dtype)[6:]}": partial(_profiled, Layer(channels, side, 23, BATCH, dtype=dtype))
        for dtype in (torch.bfloat16, torch.float32)
        for stage, (channels, side) in enumerate(STAGES, start=1)
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first: each kernel's time a call."""
    table = [["23x23, kernel by kernel", "ms a call", "least ms", "what bounds it"]]
    for entry in measured(result):
        least = max(entry["bytes_ms"], entry["products_ms"])
        bound = "bytes" if entry["bytes_ms"] == least else "products"
        table.append([f"{entry['name']}: in all", f"{sum(entry['kernels_ms'].values()):.3f}", f"{least:.3f}", bound])
        table += [[f"  {name[:60]}", f"{time:.3f}", "", ""] for name, time in list(entry["kernels_ms"].items())[:4]]
    return table


def _profiled(layer: Layer) -> dict[str, Any]:
    run = trained(ours, *tensors(layer, layer.kernel, torch.channels_last, clock.DEVICE))
    for _ in range(3):  # compiles, and measures configurations
        run()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, activity.CUDA]) as profiler:
        for _ in range(CALLS):
            run()
        torch.cuda.synchronize()
    times = {each.key: each.self_device_time_total / 1e3 / CALLS for each in profiler.key_averages()}
    kernels = dict(sorted(((name, ms) for name, ms in times.items() if ms > 0), key=lambda pair: -pair[1]))
    input, other = torch.empty(layer.map, dtype=layer.dtype, device=clock.DEVICE), torch.empty_like
    square = torch.randn(SQUARE, SQUARE, dtype=layer.dtype, device=clock.DEVICE)
    copied = other(input)
    rates = clock.seconds_a_call({"bytes": lambda: copied.copy_(input), "products": lambda: square @ square}, turns=3)
    products = MAPS * layer.batch * layer.channels * products_along(layer.side, layer.kernel) ** 2
    return {
        "kernels_ms": kernels,
        "bytes_ms": median(rates["bytes"]) * 1e3 * TENSORS / 2,
        "products_ms": median(rates["products"]) * 1e3 * products / SQUARE**3,
    }


def products_along(side: int, taps: int) -> int:
    """Along one axis, how often a tap falls on a cell of the map and not on padding."""
    starts = (cell - taps // 2 for cell in range(side))
    return sum(min(side, start + taps) - max(0, start) for start in starts)
