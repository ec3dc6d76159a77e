"""The spread of elements, epoch by epoch: wide at first, so that gradients reach far, then narrow."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from .. import _checks
from ..ops.tracing import own_parameters
from ..optim import dcls_layers

ScheduleKind = Literal["exponential", "linear"]
_KINDS: tuple[ScheduleKind, ...] = get_args(ScheduleKind)


class SigmaSchedule:
    """Sets every sigma of a model, equal for all elements of a layer, and moves it from `start` to `end`.

    In epoch `e`, counted from 0 and not beyond `epochs`:

        exponential: sigma = start * (end / start) ** (e / epochs)
        linear:      sigma = start + (end - start) * e / epochs

    Sigmas are frozen and not learned. Call `step` after each epoch.

    Args:
        model: A model with DCLS layers of any dimension. Layers without sigma ("bilinear") do not change, also if there
            are no others: code that compares interpolations needs no branch.
        start: Sigma in epoch 0, in steps or grid cells, at least 0. The width is the smallest scale (0.27 of
            "gaussian") plus sigma. None: half of the window, `(max_delay + 1) // 2`, in each layer and along each axis.
        end: Sigma from epoch `epochs` on.
        epochs: Epochs from `start` to `end`, at least 1.
        kind: "exponential", for which `start` and `end` are more than 0, or "linear".

    Attributes:
        epoch: The number of finished epochs.

    Raises:
        ValueError: A number out of range, an unknown kind, a model without DCLS layers, or a sigma that a
            parametrization computes.
        TypeError: An argument of a wrong type.

    Source:
        Hammouamri et al., arXiv:2306.17670.

    Example:
        >>> from torchdcls.delays import SigmaSchedule, SynapticDelays
        >>> layer = SynapticDelays(16, 8, max_delay=24)
        >>> schedule = SigmaSchedule(layer, start=12, end=0.75, epochs=4)
        >>> for epoch in range(5):
        ...     print(layer.sigma.mean().item())
        ...     schedule.step()
        12.0
        6.0
        3.0
        1.5
        0.75
    """

    def __init__(
        self,
        model: nn.Module,
        start: float | None,
        end: float,
        epochs: int,
        kind: ScheduleKind = "exponential",
    ) -> None:
        self._layers = [layer for layer in dcls_layers(model) if layer.sigma is not None]
        self.epoch = 0
        self._set(start, end, epochs, kind)
        owned = (own_parameters(layer).get("sigma") for layer in self._layers)
        sigmas = [sigma for sigma in owned if sigma is not None]
        if len(sigmas) < len(self._layers):
            raise ValueError("model: expected sigmas that are parameters, got one that is computed")
        for sigma in sigmas:
            sigma.requires_grad_(False)
        self._write()

    @classmethod
    def snn_delays(cls, model: nn.Module, epochs: int) -> Self:
        """As the code of arXiv:2306.17670: half of each window to 0.23 in a quarter of all `epochs`."""
        return cls(model, None, 0.23, max(_checks.integer("epochs", epochs, 1) // 4, 1))

    @classmethod
    def delrec(cls, model: nn.Module, epochs: int) -> Self:
        """As the code of DelRec, for "triangle" delays: 10 times 0.95 ** 100, spread over all `epochs` of training."""
        return cls(model, 10.0, 10 * 0.95**100, epochs)

    def step(self) -> None:
        """Ends an epoch."""
        self.epoch += 1
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to resume."""
        names = "start", "end", "epochs", "kind", "epoch"
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resumes a schedule with its settings, and sets the model's sigmas.

        Raises:
            ValueError: Not a state of a schedule.
            TypeError: Not a mapping, or a value of a wrong type.
        """
        _checks.of_type("state_dict", state_dict, Mapping, "the state of a schedule")
        if missing := [name for name in self.state_dict() if name not in state_dict]:
            raise ValueError(f"state_dict: expected {', '.join(self.state_dict())}, got none of {', '.join(missing)}")
        epoch = _checks.integer("epoch", state_dict["epoch"], 0)
        self._set(*(state_dict[name] for name in ("start", "end", "epochs", "kind")))
        self.epoch = epoch
        self._write()

    def _set(self, start: float | None, end: float, epochs: int, kind: ScheduleKind) -> None:
        start = None if start is None else _checks.at_least_0("start", start)
        end, epochs = _checks.at_least_0("end", end), _checks.integer("epochs", epochs, 1)
        _checks.one_of("kind", kind, _KINDS)
        for name, value in (("start", start), ("end", end)):
            if kind == "exponential" and value == 0:
                raise ValueError(f"{name}: expected more than 0 for kind='exponential', got {value!r}")
        self.start, self.end, self.epochs, self.kind = start, end, epochs, kind

    def _write(self) -> None:
        with torch.no_grad():
            for layer in self._layers:
                for axis, size in enumerate(layer.learned_size):
                    assert layer.sigma is not None
                    layer.sigma[axis].fill_(self._sigma(size))

    def _sigma(self, size: int) -> float:
        if self.epoch >= self.epochs:
            return self.end
        start = max(float(size // 2), self.end) if self.start is None else self.start
        share = self.epoch / self.epochs
        if self.kind == "linear":
            return start + (self.end - start) * share
        return start * math.pow(self.end / start, share)
