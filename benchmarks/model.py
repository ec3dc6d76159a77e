"""ConvNeXt-T with 23x23 kernels of 26 Gaussian elements, against its own 7x7 layers and against DCLS 0.1.1; float32.

A training step is forward, loss, backward and an SGD step on random images of 224 pixels; inference is a forward pass
in evaluation mode. Peak memory is a process's own: each side runs in one of its own, and what it held before its first
step does not count.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import convert
from torchdcls.conversion.select import stages
from torchdcls.conversion.swap import swap_modules_

from .memory import in_a_process, peak_beyond_start
from .timing import check_parity, compare_in_turns, compare_problems, comparison_rows, turns_note

SUMMARY = "ConvNeXt-T with 23x23 Gaussian layers against 7x7 layers and against DCLS 0.1.1"
PACKAGES: tuple[str, ...] = ("torch", "timm", "DCLS", "torchdcls")

Side = Literal["torchdcls", "7x7", "DCLS"]
KERNEL, COUNT, PIXELS = 23, 26, 224
GIB = 2**30


@dataclass(frozen=True)
class ModelProblem:
    """What is done with which batch, against which model."""

    doing: Literal["training step", "inference", "peak memory"]
    batch: int
    against: Side

    def __str__(self) -> str:
        return f"{self.doing}, batch {self.batch}, against {self.against}"


PROBLEMS = {
    **{
        f"{doing.split()[0]}-{batch}": ModelProblem(doing, batch, "7x7")
        for doing in ("training step", "inference")
        for batch in (4, 16)
    },
    "training-4-dcls": ModelProblem("training step", 4, "DCLS"),
    "inference-4-dcls": ModelProblem("inference", 4, "DCLS"),
    "memory-16": ModelProblem("peak memory", 16, "7x7"),
}


def verify(names: Sequence[str]) -> None:
    """Checks that our model and DCLS's give the same output for the same elements.

    Raises:
        ParityError: They do not.
    """
    ours, theirs = make("torchdcls").eval(), make("DCLS").eval()
    # DCLS has other names, and counts the axes of positions and sigmas as (column, row).
    state = {
        name.replace(".position", ".P").replace(".sigma", ".SIG"): value.flip(0)
        if name.endswith((".position", ".sigma"))
        else value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = ours(images), theirs(images)
    check_parity("ConvNeXt-T of torchdcls and of DCLS: the output", one, other, 1e-4)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    def compare(name: str) -> dict[str, Any]:
        problem = PROBLEMS[name]
        sides: tuple[Side, Side] = ("torchdcls", problem.against)
        if problem.doing == "peak memory":
            ours, theirs = (in_a_process("benchmarks.model", "peak_of_training", side, problem.batch) for side in sides)
            return {"candidate_bytes": ours, "baseline_bytes": theirs, "ratio": ours / theirs}
        runs = (_run(side, problem) for side in sides)
        found = compare_in_turns(*runs, turns=arguments.turns, seconds=0, least_calls=1, after_turn=after_turn)
        return found.to_json()

    return compare_problems(names, PROBLEMS, compare)


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    return comparison_rows(["ConvNeXt-T, 23x23, 26 Gaussian elements", "torchdcls", "other"], result["problems"])


def note(result: Mapping[str, Any]) -> str:
    return f"Images of {PIXELS} pixels, float32, {turns_note(result)}"


def peak_of_training(side: Side, batch: int) -> int:
    """Bytes that training steps take beyond what this process held before the first."""
    return peak_beyond_start(_run(side, ModelProblem("peak memory", batch, "7x7")), times=3)


def make(side: Side) -> nn.Module:
    """ConvNeXt-T with the layers of a side."""
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model("convnext_tiny")
    if side == "torchdcls":
        convert(model, dilated_kernel_size=KERNEL, kernel_count=COUNT, weight_std=0.02)
    elif side == "DCLS":
        _put_dcls(model)
    return model


def _put_dcls(model: nn.Module) -> None:
    # As the authors' code: version "gauss", positions and sigmas shared by the layers of a stage.
    from DCLS.construct.modules import Dcls2d

    layers = {name: module for name, module in model.named_modules() if name.endswith("conv_dw")}
    first: dict[str, nn.Module] = {}
    others: dict[nn.Module, nn.Module] = {}
    for name, stage in stages(layers).items():
        width = layers[name].in_channels
        size = {"padding": KERNEL // 2, "dilated_kernel_size": KERNEL}
        others[layers[name]] = layer = Dcls2d(width, width, COUNT, groups=width, version="gauss", **size)
        layer.P, layer.SIG = first.setdefault(stage, layer).P, first[stage].SIG
    swap_modules_(model, others)


def _run(side: Side, problem: ModelProblem) -> Callable[[], object]:
    model = make(side).train(problem.doing != "inference")
    images = torch.randn(problem.batch, 3, PIXELS, PIXELS)
    return repeated(problem, model, images, torch.optim.SGD(model.parameters(), lr=1e-4), nullcontext())


def repeated(
    problem: ModelProblem,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    precision: AbstractContextManager[object],
) -> Callable[[], object]:
    """What a problem does again and again: inference, or a training step."""
    labels = torch.randint(0, 1000, (len(images),), device=images.device)

    def infer() -> object:
        with torch.inference_mode(), precision:
            return forward(images)

    def step() -> object:
        with precision:
            loss = F.cross_entropy(forward(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return optimizer.step()

    return infer if problem.doing == "inference" else step
