"""Whether a file computes what the model does.

A file and the model round differently. How far they may differ is taken from the model itself: its own distance from
the same model in float64.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.tracing import tree_leaves
from .copies import copied
from .errors import ExportError, reason

# Largest errors of two ways to round scatter by a few times; what is exported wrongly is off by thousands of them.
_TIMES = 10.0
# For models that cannot be computed in float64: about what a hundred layers lose.
_UNKNOWN_UNITS = 1000.0
# A model may happen to round well on a few numbers: so many rounding units of the largest output are always allowed.
_UNITS = 64.0


@dataclass(frozen=True)
class Check:
    """A comparison of the file with the model.

    Attributes:
        shape: Shape of the input.
        difference: Largest absolute difference of the outputs.
        tolerance: The largest difference that is allowed.
    """

    shape: tuple[int, ...]
    difference: float
    tolerance: float


@dataclass(frozen=True)
class _Expected:
    """An input, the model's outputs for it, and its outputs in float64."""

    given: Tensor
    own: list[Tensor]
    double: list[Tensor]


class Reference:
    """The outputs of a model in evaluation mode on the CPU, and how far they are from its outputs in float64."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._double: nn.Module | None = copied(model).double()
        self._expected: list[_Expected] = []

    @torch.no_grad()
    def add(self, given: Tensor) -> None:
        """Computes the expected outputs for an input; raises what the model raises."""
        own = outputs(self._model(given))
        double = [tensor.double() for tensor in own]
        if self._double is not None:
            try:
                double = outputs(self._double(given.double()))
            except Exception:  # such as a forward pass that names float32
                self._double = None
        self._expected.append(_Expected(given, own, double))

    def error(self) -> float:
        """The model's largest relative distance from itself in float64; an ExportError if outputs are not finite."""
        error = max(
            _distance(mine, exact) / _largest(exact)
            for expected in self._expected
            for mine, exact in zip(expected.own, expected.double, strict=True)
        )
        if self._double is None:
            error = _UNKNOWN_UNITS * max(torch.finfo(expected.given.dtype).eps for expected in self._expected)
        if not (error < 1 and all(bool(own.isfinite().all()) for expected in self._expected for own in expected.own)):
            raise ExportError(
                "model: expected outputs that are finite and near those of the same model in float64, got a relative "
                f"difference of {error:.2g}; nothing can be compared with them"
            )
        return error

    def check(
        self, run: Callable[[Tensor], Sequence[Tensor]], what: str, sizes: Container[tuple[int, ...]] | None = None
    ) -> tuple[Check, ...]:
        """Compares the outputs of `run` for the inputs of some sizes, for all by default.

        Raises:
            ExportError: It fails for an input, or an output differs by more than its tolerance. `what` names the file.
        """
        error = self.error()
        return tuple(
            _compared(run, what, error, expected)
            for expected in self._expected
            if sizes is None or tuple(expected.given.shape[2:]) in sizes
        )


def _compared(run: Callable[[Tensor], Sequence[Tensor]], what: str, error: float, expected: _Expected) -> Check:
    shape = tuple(expected.given.shape)
    try:
        got = list(run(expected.given))
    except Exception as problem:
        raise ExportError(f"model: {what} fails for an input of shape {shape} ({reason(problem)})") from None
    shapes, wanted = [tuple(tensor.shape) for tensor in got], [tuple(tensor.shape) for tensor in expected.own]
    if shapes != wanted:
        raise ExportError(
            f"model: expected outputs of shapes {wanted} for an input of shape {shape}, got {shapes} from {what}"
        )
    relative = _TIMES * error + _UNITS * torch.finfo(expected.given.dtype).eps
    checks = []
    for mine, exact, other in zip(expected.own, expected.double, got, strict=True):
        tolerance = relative * _largest(exact)
        if not _distance(other, exact) <= tolerance:
            raise ExportError(
                f"model: expected outputs within {tolerance:.2g} of the model's for an input of shape {shape}, got "
                f"{_distance(other, exact):.2g} from {what}; please report this model"
            )
        checks.append(Check(shape, _distance(other, mine), tolerance))
    return max(checks, key=lambda check: check.difference)


def outputs(value: object) -> list[Tensor]:
    """The tensors of a model's output, in order. Any other output, and an empty one, is a ValueError."""
    leaves: list[Any] = tree_leaves(value)
    others = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    if others or not leaves:
        raise ValueError(f"model: expected one that returns tensors, got {type((others or [value])[0]).__name__}")
    return leaves


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def _largest(tensor: Tensor) -> float:
    tiny = torch.finfo(torch.float64).tiny
    return max(float(tensor.abs().max()), tiny) if tensor.numel() else tiny
