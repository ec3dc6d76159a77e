"""What the size of a kernel costs: training steps of the small ConvNeXt of the studies, each size against 7x7.

A step is forward, loss, backward and an AdamW step on random images as large as those of Fashion-MNIST; elements are as
many as the parameters of 7x7 allow.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torchdcls import convert
from torchdcls.ops.conv import MethodName
from torchdcls.optim import dcls_layers, param_groups
from torchdcls.profiles import Interpolation

from .timing import check_parity, compare_in_turns, compare_problems, comparison_rows, turns_note

SUMMARY = "training steps of the studies' small ConvNeXt by kernel size, against 7x7"
PACKAGES: tuple[str, ...] = ("torch", "timm", "torchdcls")

BATCH, PIXELS, CLASSES = 64, 28, 10


@dataclass(frozen=True)
class SizeProblem:
    """Kernels of an interpolation and a size."""

    interpolation: Interpolation
    size: int

    def __str__(self) -> str:
        whole = ", the whole map" if self.size == PIXELS else ""
        return f"{self.interpolation}, {self.size}x{self.size}{whole}"


PROBLEMS = {
    f"{interpolation}-{size}": SizeProblem(interpolation, size)
    for interpolation in ("bilinear", "gaussian")
    for size in (5, 9, 17, 23, PIXELS)
}


def verify(names: Sequence[str]) -> None:
    """Checks that models give what they give by torch's own convolution.

    Raises:
        ParityError: They do not.
    """
    images = torch.randn(2, 1, PIXELS, PIXELS)
    for name in names:
        with torch.no_grad():
            one, other = (make(PROBLEMS[name], method)(images) for method in ("auto", "direct"))
        check_parity(f"{PROBLEMS[name]}: the output", one, other, 1e-4)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    def compare(name: str) -> dict[str, Any]:
        sides = _step(make(PROBLEMS[name])), _step(make(None))
        found = compare_in_turns(*sides, turns=arguments.turns, seconds=0, least_calls=1, after_turn=after_turn)
        return found.to_json()

    return compare_problems(names, PROBLEMS, compare)


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    return comparison_rows(["small ConvNeXt, a training step", "torchdcls", "7x7"], result["problems"])


def note(result: Mapping[str, Any]) -> str:
    return f"Batch {BATCH}, images of {PIXELS} pixels, float32, {turns_note(result)}"


def make(problem: SizeProblem | None, method: MethodName = "auto") -> nn.Module:
    """The model with these kernels, or with its own."""
    from torchdcls_train.comparison.small import comparison_model

    torch.manual_seed(0)
    model = comparison_model("convnext", 1, CLASSES, PIXELS)
    if problem is not None:
        convert(
            model,
            dilated_kernel_size=problem.size,
            kernel_count="iso",
            interpolation=problem.interpolation,
            position_init=("uniform", problem.size / 2),
        )
        for layer in dcls_layers(model):
            layer.method = method
    return model


def _step(model: nn.Module) -> Callable[[], object]:
    images, labels = torch.randn(BATCH, 1, PIXELS, PIXELS), torch.randint(0, CLASSES, (BATCH,))
    optimizer = torch.optim.AdamW(param_groups(model, 1e-3, 0.05))

    def step() -> object:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return optimizer.step()

    return step
