"""Kernel construction, forward and backward, against the PyPI package DCLS 0.1.1; Gaussian elements, float32.

Both sides get the same elements at the recipe's start values and the same gradient of the kernel, and give the kernel
and the gradients of weights, positions and sigmas. Memory is what one layer's forward pass saves for its backward pass,
parameters aside; the model's is the sum over its layers.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchdcls import construct_kernel

from .memory import saved_bytes
from .timing import check_parity, compare_in_turns, duration, ratio_words, size, turns_note

SUMMARY = "kernel construction, forward and backward, against DCLS 0.1.1"
PACKAGES: tuple[str, ...] = ("torch", "DCLS", "torchdcls")

# Kernels of the parity check: what one of them is does not depend on how many there are.
PARITY_CHANNELS = 8
# Largest difference allowed, as a part of the largest value: float64 rounds at 1e-16, sums of some hundred terms above.
PARITY_TOLERANCE = 1e-12


@dataclass(frozen=True)
class ConstructionProblem:
    """The kernels of one stage's depthwise layers: how many, how large, out of how many elements."""

    channels: int  # kernels per layer, one per channel
    dilated_kernel_size: tuple[int, int]
    kernel_count: int  # elements per kernel
    layers: int  # of the model that have this shape

    def __str__(self) -> str:
        rows, columns = self.dilated_kernel_size
        return f"{self.channels} channels, {rows}x{columns}, {self.kernel_count} elements, layers: {self.layers}"


# ConvNeXt-T with Gaussian layers: 26 elements are the most at 23x23 that do not exceed the 7x7 model's parameters.
PROBLEMS = {
    f"convnext-t-stage-{stage}": ConstructionProblem(channels, (23, 23), 26, layers)
    for stage, (channels, layers) in enumerate([(96, 3), (192, 3), (384, 9), (768, 3)], start=1)
}


@dataclass(frozen=True)
class Side:
    """One way to construct kernels, with its inputs: weight, position and sigma in the order of axes it wants."""

    construct: Callable[[Tensor, Tensor, Tensor], Tensor]
    inputs: tuple[Tensor, Tensor, Tensor]

    def forward(self) -> Tensor:
        return self.construct(*self.inputs)

    def forward_and_backward(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """The kernel and the gradients of the inputs, `cotangent` being the gradient of the kernel."""
        kernel = self.forward()
        return kernel, *torch.autograd.grad(kernel, self.inputs, cotangent)


def verify(names: Sequence[str]) -> None:
    """Checks in float64 and at a few channels that both sides make the same kernels and gradients.

    Raises:
        ParityError: They do not; the message names the problem and the tensor.
    """
    for name in names:
        problem = replace(PROBLEMS[name], channels=PARITY_CHANNELS)
        ours, theirs, cotangent = _sides(problem, torch.float64)
        kernel, weight, position, sigma = theirs.forward_and_backward(cotangent)
        expected = (kernel, weight, position.flip(0), sigma.flip(0))
        results = ours.forward_and_backward(cotangent)
        for what, result, wanted in zip(("kernel", "weight", "position", "sigma"), results, expected, strict=True):
            tensor = what if what == "kernel" else f"gradient of {what}"
            check_parity(f"{name}: {tensor} of torchdcls and of DCLS", result, wanted, PARITY_TOLERANCE)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    measured = [_measure_problem(name, PROBLEMS[name], arguments.turns, after_turn) for name in names]
    return {"problems": measured, "total": _total(measured)}


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    total = result["total"]
    return [
        ["stage", "torchdcls", "DCLS", "speedup", "torchdcls saves", "DCLS saves"],
        *(_row(problem["name"], problem, ratio_words(problem)) for problem in result["problems"]),
        _row(f"all {total['layers']} layers", total, ""),
    ]


def _row(name: str, entry: Mapping[str, Any], ratio: str) -> list[str]:
    times = [duration(entry[f"{side}_ms"]) for side in ("candidate", "baseline")]
    return [name, *times, ratio, *(size(entry[f"{side}_saved_bytes"]) for side in ("candidate", "baseline"))]


def note(result: Mapping[str, Any]) -> str:
    what = "Construction of one layer's kernels, forward and backward, and the memory saved for backward"
    return f"{what}; {turns_note(result)}"


def _measure_problem(
    name: str, problem: ConstructionProblem, turns: int, after_turn: Callable[[], None]
) -> dict[str, Any]:
    ours, theirs, cotangent = _sides(problem, torch.float32)
    comparison = compare_in_turns(
        lambda: ours.forward_and_backward(cotangent),
        lambda: theirs.forward_and_backward(cotangent),
        turns=turns,
        after_turn=after_turn,
    )
    return {
        "name": name,
        "channels": problem.channels,
        "dilated_kernel_size": list(problem.dilated_kernel_size),
        "kernel_count": problem.kernel_count,
        "layers": problem.layers,
        **comparison.to_json(),
        "candidate_saved_bytes": saved_bytes(ours.forward, ours.inputs),
        "baseline_saved_bytes": saved_bytes(theirs.forward, theirs.inputs),
    }


def _total(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # Of a model: each problem as often as it has layers.
    keys = ("candidate_ms", "baseline_ms", "candidate_saved_bytes", "baseline_saved_bytes")
    totals = {key: sum(problem["layers"] * problem[key] for problem in measured) for key in keys}
    return {"layers": sum(problem["layers"] for problem in measured), **totals}


def _sides(problem: ConstructionProblem, dtype: torch.dtype) -> tuple[Side, Side, Tensor]:
    from DCLS.construct.modules import ConstructKernel2d

    generator = torch.Generator().manual_seed(0)
    shape = (problem.channels, 1, problem.kernel_count)
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    position = 0.5 * torch.randn(2, *shape, generator=generator, dtype=dtype)
    sigma = torch.full_like(position, 0.23)
    cotangent = torch.randn(problem.channels, 1, *problem.dilated_kernel_size, generator=generator, dtype=dtype)

    def ours(weight: Tensor, position: Tensor, sigma: Tensor) -> Tensor:
        return construct_kernel(weight, position, sigma, problem.dilated_kernel_size, "gaussian")

    # Groups 1 and one input channel: what a depthwise layer of DCLS gives its construction.
    theirs = ConstructKernel2d(problem.channels, 1, 1, problem.kernel_count, problem.dilated_kernel_size, "gauss")
    # DCLS counts a position's axes as (column, row).
    return (
        Side(ours, _leaves(weight, position, sigma)),
        Side(theirs, _leaves(weight, position.flip(0), sigma.flip(0))),
        cotangent,
    )


def _leaves(weight: Tensor, position: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return weight.clone().requires_grad_(), position.clone().requires_grad_(), sigma.clone().requires_grad_()
