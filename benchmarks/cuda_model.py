"""ConvNeXt-T with 23x23 kernels of 26 Gaussian elements on a GPU, against its own 7x7 layers.

Bfloat16 autocast, channels_last, both models compiled. A training step is forward, loss, backward and an AdamW step on
random images of 224 pixels; inference is a forward pass in evaluation mode.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from .cuda_conv import cuda_clock
from .memory import in_a_process
from .model import Side, make
from .parity import check_parity
from .timing import compare_in_turns

SUMMARY = "ConvNeXt-T with 23x23 Gaussian layers on a GPU, against 7x7 layers"
PACKAGES: tuple[str, ...] = ("torch", "triton", "timm", "torchdcls")

DEVICE = "cuda"
PIXELS, BATCH = 224, 128
GIB = 2**30
PARITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ModelProblem:
    """What is done."""

    doing: Literal["training step", "inference", "peak memory of a training step"]

    def __str__(self) -> str:
        return f"{self.doing}, batch {BATCH}, against 7x7"


PROBLEMS = {
    "training": ModelProblem("training step"),
    "inference": ModelProblem("inference"),
    "memory": ModelProblem("peak memory of a training step"),
}


def problems() -> Mapping[str, ModelProblem]:
    """The problems by name."""
    return PROBLEMS


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
    """Measures the problems one after the other.

    Args:
        names: Names of problems.
        arguments: `turns` is used.
        after_turn: Called after each turn of each problem.
    """
    entries = []
    for name in names:
        problem = PROBLEMS[name]
        if problem.doing == "peak memory of a training step":
            ours, theirs = (
                in_a_process("benchmarks.cuda_model", "peak_of_training", side) for side in ("torchdcls", "7x7")
            )
            entry: dict[str, Any] = {"candidate_bytes": ours, "baseline_bytes": theirs, "ratio": ours / theirs}
        else:
            sides = [_run(side, training=problem.doing == "training step") for side in ("torchdcls", "7x7")]
            entry = compare_in_turns(*sides, turns=arguments.turns, clock=cuda_clock, after_turn=after_turn).to_json()
        entries.append({"name": name, "problem": str(problem), **entry})
    return {"problems": entries}


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The result as a table, the header first."""
    table = [["ConvNeXt-T, 23x23, 26 Gaussian elements, on a GPU", "torchdcls", "7x7", "times as fast"]]
    for entry in result["problems"]:
        if "candidate_bytes" in entry:
            held = [f"{entry[side] / GIB:.2f} GiB" for side in ("candidate_bytes", "baseline_bytes")]
            table.append([entry["problem"], *held, f"{entry['ratio']:.2f} times the memory"])
        else:
            low, high = entry["spread"]
            times = [f"{entry[side]:.1f} ms" for side in ("candidate_ms", "baseline_ms")]
            table.append([entry["problem"], *times, f"{entry['ratio']:.2f} ({low:.2f} to {high:.2f})"])
    return table


def unmeasured_rows() -> list[list[str]]:
    """The table that stands where no GPU has been measured on."""
    return [*rows({"problems": []}), *([str(problem), *["not measured"] * 3] for problem in PROBLEMS.values())]


def note(result: Mapping[str, Any]) -> str:
    """One sentence on what the table's columns mean."""
    return (
        f"Images of {PIXELS} pixels, bfloat16 autocast, channels_last, torch.compile on both sides, median of "
        f"{result['settings']['turns']} turns, the ratio's spread in brackets."
    )


def peak_of_training(side: Side) -> int:
    """Most bytes that tensors take on the GPU in a training step, the model's own among them."""
    step = _run(side, training=True)
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def _run(side: Side, training: bool) -> Callable[[], object]:
    model = make(side).to(DEVICE).to(memory_format=torch.channels_last).train(training)
    compiled: Any = torch.compile(model)
    images = torch.randn(BATCH, 3, PIXELS, PIXELS, device=DEVICE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (BATCH,), device=DEVICE)
    if not training:

        def infer() -> object:
            with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16):
                return compiled(images)

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=DEVICE == "cuda")

    def step() -> object:
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = F.cross_entropy(compiled(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return optimizer.step()

    return step
