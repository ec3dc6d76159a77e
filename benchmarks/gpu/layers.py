"""Layers of 23x23 at ConvNeXt-T's four stages, output and gradients, against 23x23 and 7x7 of torch's and others'.

Batch 128. Torch's side is `F.conv2d` in the memory format in which it is the faster. Where NVIDIA's
`subquadratic-ops-torch` is installed, its `fused_fft_conv2d` is timed too.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conv import STAGES, Layer, ours, tensors, torchs, trained
from ..timing import Timings, ratio_words
from . import Problem, clock, measured

SUMMARY = "layers of 23x23 against F.conv2d and fused_fft_conv2d"
SECONDS = 120

BATCH = 128
DTYPES = (torch.bfloat16, torch.float32)
FUSED = "fused_fft_conv2d"


def problems() -> dict[str, Problem]:
    """Against torch's 7x7 and 23x23 first: bfloat16, then float32."""
    against: dict[str, Callable[[Layer], Mapping[str, Callable[[], object]]]] = {
        "F.conv2d 7x7": partial(_torchs_sides, kernel=7),
        "F.conv2d 23x23": partial(_torchs_sides, kernel=23),
    }
    if find_spec("subquadratic_ops_torch") is not None:
        against[FUSED] = _fused_sides
    return {
        f"stage {stage}, {str(dtype)[6:]}, against {whose}": partial(
            _compare, Layer(channels, side, 23, BATCH, dtype=dtype), others
        )
        for dtype in DTYPES
        for whose, others in against.items()
        for stage, (channels, side) in enumerate(STAGES, start=1)
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first."""
    table = [[f"23x23 on a GPU, batch {BATCH}, output and gradients", "torchdcls, ms", "other, ms", "speedup"]]
    for entry in measured(result):
        times = [f"{entry[side]:.3f}" for side in ("candidate_ms", "baseline_ms")]
        table.append([entry["name"], *times, ratio_words(entry)])
    return table


def _compare(layer: Layer, others: Callable[[Layer], Mapping[str, Callable[[], object]]]) -> dict[str, Any]:
    made = others(layer)
    fastest = min(made, key=lambda name: _second_call(made[name]))
    run = trained(ours, *tensors(layer, layer.kernel, torch.channels_last, clock.DEVICE))
    times = clock.seconds_a_call({"ours": run, "other": made[fastest]})
    return {"other": fastest, **Timings(tuple(times["ours"]), tuple(times["other"])).to_json()}


def _second_call(run: Callable[[], object]) -> float:
    run()
    return clock.seconds_of_one(run)


def _torchs_sides(layer: Layer, kernel: int) -> dict[str, Callable[[], object]]:
    formats = (torch.contiguous_format, torch.channels_last)
    return {str(each)[6:]: trained(torchs, *tensors(layer, kernel, each, clock.DEVICE)) for each in formats}


def _fused_sides(layer: Layer) -> dict[str, Callable[[], object]]:
    return {FUSED: trained(fused, *tensors(layer, layer.kernel, torch.contiguous_format, clock.DEVICE))}


def fused(input: Tensor, weight: Tensor) -> Tensor:
    """What `ours` gives, by `fused_fft_conv2d`: a convolution, turned, whose middle is half a tile away."""
    from subquadratic_ops_torch.fused_fft_conv2d import fused_fft_conv2d

    taps, tile = weight.shape[-1], 1
    while tile < max(2 * max(input.shape[2:]), taps):
        tile *= 2
    before = tile // 2 - (taps - 1) // 2
    placed = F.pad(weight[:, 0].flip(-2, -1), [before, tile - taps - before] * 2)
    output: Tensor = fused_fft_conv2d(input, placed, fft_size=tile)
    return output
