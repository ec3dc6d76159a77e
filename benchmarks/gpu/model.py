"""ConvNeXt-T with 23x23 kernels of 26 Gaussian elements, against its own 7x7 layers; batch 128, images of 224 pixels.

Bfloat16 autocast, channels_last, both models compiled. A training step is forward, loss, backward and an AdamW step.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from torchdcls import convert

from ..model import COUNT, GIB, KERNEL, PIXELS, ModelProblem, repeated
from ..timing import Timings, compare_in_turns, ratio_words
from . import Problem, clock, measured
from .convnext import ConvNeXt

SUMMARY = "ConvNeXt-T with 23x23 Gaussian layers against 7x7 layers, both compiled"
SECONDS = 165

BATCH = 128


def problems() -> dict[str, Problem]:
    """Training, with its memory, first."""
    return {
        f"{doing}, batch {BATCH}": partial(_compare, ModelProblem(doing, BATCH, "7x7"))
        for doing in ("training step", "inference")
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first."""
    table = [["ConvNeXt-T, 23x23, 26 Gaussian elements, on a GPU", "torchdcls", "7x7", "speedup"]]
    for entry in measured(result):
        times = [f"{entry[side]:.1f} ms" for side in ("candidate_ms", "baseline_ms")]
        table.append([entry["name"], *times, ratio_words(entry)])
        memory = [entry[f"{side}_bytes"] for side in ("candidate", "baseline")]
        ratio = f"{memory[0] / memory[1]:.2f} times the memory"
        table.append([f"peak memory of {entry['name']}", *(f"{each / GIB:.2f} GiB" for each in memory), ratio])
    return table


def _compare(problem: ModelProblem) -> dict[str, Any]:
    (ours, our_bytes), (theirs, their_bytes) = _prepared(True, problem), _prepared(False, problem)
    times: Timings = compare_in_turns(ours, theirs, turns=clock.TURNS, seconds=0.5, clock=clock.cuda_clock)
    return {"candidate_bytes": our_bytes, "baseline_bytes": their_bytes, **times.to_json()}


def _prepared(with_dcls: bool, problem: ModelProblem) -> tuple[Callable[[], object], int]:
    # What to time, compiled, and the most bytes that its model and a step take together.
    before = _allocated()
    torch.manual_seed(0)
    model = ConvNeXt()
    if with_dcls:
        convert(model, dilated_kernel_size=KERNEL, kernel_count=COUNT, weight_std=0.02)
    model = model.to(clock.DEVICE).to(memory_format=torch.channels_last).train(problem.doing != "inference")
    images = torch.randn(problem.batch, 3, PIXELS, PIXELS, device=clock.DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    compiled: Any = torch.compile(model)
    precision = torch.autocast(clock.DEVICE, torch.bfloat16)
    step = repeated(problem, compiled, images.contiguous(memory_format=torch.channels_last), optimizer, precision)
    step()
    step()
    _forget_peak()
    step()
    return step, _peak() - before


def _allocated() -> int:
    return torch.cuda.memory_allocated()


def _forget_peak() -> None:
    torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    return torch.cuda.max_memory_allocated()
