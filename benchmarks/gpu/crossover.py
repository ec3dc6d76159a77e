"""From which size on which method is the fastest: what the rule of `auto` on CUDA is made from.

Depthwise, output and gradients, channels_last, as many channels as make maps of a size fill the GPU.
"""

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

from torchdcls.ops.conv import large_kernel_conv
from torchdcls.ops.conv.methods import METHODS
from torchdcls.ops.conv.posing import pose
from torchdcls.ops.conv.select import unsupported_reason

from ..conv import Layer, tensors, trained
from . import Problem, clock, measured

SUMMARY = "every method by size of map and kernel"
SECONDS = 75

CHANNELS, CELLS = 96, 2**24
SIDES = (56, 14, 28, 7, 112)
KERNELS = (23, 7, 13, 5, 9, 31, 51, 3, 71, 101)
# A method that takes so many times as long as the fastest is called once.
FAR = 4


def problems() -> dict[str, Problem]:
    """The sizes of ConvNeXt first, bfloat16 before float32."""
    layers = [
        Layer(CHANNELS, side, kernel, max(1, CELLS // (CHANNELS * side * side)), dtype=dtype)
        for kernel in KERNELS
        for side in SIDES
        if kernel <= 2 * side + 1  # beyond, no tap of the border ever meets the map
        for dtype in (torch.bfloat16, torch.float32)
    ]
    return {
        f"{each.kernel}x{each.kernel} on {each.map}, {str(each.dtype)[6:]}": partial(_times, each) for each in layers
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first: milliseconds of each method."""
    names = [method.name for method in METHODS if any(method.name in entry["ms"] for entry in measured(result))]
    table = [["by every method, ms", *names]]
    for entry in measured(result):
        table.append([entry["name"], *(f"{entry['ms'][name]:.3f}" if name in entry["ms"] else "-" for name in names)])
    return table


def _times(layer: Layer) -> dict[str, Any]:
    input, weight, gradient = tensors(layer, layer.kernel, torch.channels_last, clock.DEVICE)
    _, problem = pose(input, weight, None, 1, layer.kernel // 2, layer.channels)
    sides, once = {}, {}
    for method in METHODS:
        if unsupported_reason(method, problem) is not None:
            continue
        name: Any = method.name
        by = partial(large_kernel_conv, padding=layer.kernel // 2, groups=layer.channels, method=name)
        sides[name] = run = trained(by, input, weight, gradient)
        run()  # compiles, and measures configurations
        once[name] = clock.seconds_of_one(run)
    near = {name: sides[name] for name, seconds in once.items() if seconds <= FAR * min(once.values())}
    times = {name: median(turns) for name, turns in clock.seconds_a_call(near, turns=3, seconds=0.03).items()}
    return {"ms": {name: 1e3 * times.get(name, seconds) for name, seconds in once.items()}}
