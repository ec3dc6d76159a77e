"""ConvNeXt-T with 23x23 kernels of 26 Gaussian elements on a GPU, against its own 7x7 layers.

Bfloat16 autocast, channels_last, both models compiled. A training step is forward, loss, backward and an AdamW step on
random images of 224 pixels; inference is a forward pass in evaluation mode.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .cuda_conv import cuda_clock
from .model import ModelProblem, Side, make, measured, model_rows, repeated
from .parity import check_parity
from .timing import compare_in_turns

SUMMARY = "ConvNeXt-T with 23x23 Gaussian layers on a GPU, against 7x7 layers"
PACKAGES: tuple[str, ...] = ("torch", "triton", "timm", "torchdcls")

DEVICE = "cuda"
PIXELS = 224
PARITY_TOLERANCE = 1e-3
PROBLEMS = {
    "training": ModelProblem("training step", 128, "7x7"),
    "inference": ModelProblem("inference", 128, "7x7"),
    "memory": ModelProblem("peak memory of a training step", 128, "7x7"),
}


def verify(names: Sequence[str]) -> None:
    """Checks that the model gives on the GPU, in float32, what it gives on the CPU.

    Raises:
        ParityError: It does not.
    """
    model, images = make("torchdcls").eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(images)
        got = model.to(DEVICE)(images.to(DEVICE)).cpu()
    check_parity("ConvNeXt-T on the GPU: the output", got, wanted, PARITY_TOLERANCE)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    """Measures the problems one after the other."""
    return measured(
        "benchmarks.cuda_model",
        [(name, PROBLEMS[name]) for name in names],
        _run,
        partial(compare_in_turns, turns=arguments.turns, clock=cuda_clock, after_turn=after_turn),
    )


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first."""
    header = ["ConvNeXt-T, 23x23, 26 Gaussian elements, on a GPU", "torchdcls", "7x7"]
    return model_rows(header, result, digits=1)


def note(result: Mapping[str, Any]) -> str:
    """One sentence on what the table's columns mean."""
    return (
        f"Images of {PIXELS} pixels, bfloat16 autocast, channels_last, torch.compile on both sides, median of "
        f"{result['settings']['turns']} turns, the ratio's spread in brackets."
    )


def peak_of_training(side: Side, batch: int) -> int:
    """Most bytes that tensors take on the GPU in a training step, the model's own among them."""
    step = _run(side, ModelProblem("training step", batch, "7x7"))
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def _run(side: Side, problem: ModelProblem) -> Callable[[], object]:
    model = make(side).to(DEVICE).to(memory_format=torch.channels_last).train(problem.doing != "inference")
    compiled: Any = torch.compile(model)
    images = torch.randn(problem.batch, 3, PIXELS, PIXELS, device=DEVICE).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=DEVICE == "cuda")
    return repeated(problem, compiled, images, optimizer, torch.autocast(DEVICE, torch.bfloat16))
