"""The base of all delay layers: delays of elements, layouts, rounding, and streams."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks
from ..nn import DclsLayer
from ..ops.autocast import autocast_is_on
from ..ops.conv import MethodName, large_kernel_conv
from ..ops.kernel import construct_kernel
from ..ops.tracing import special_tensors
from ..profiles import Interpolation, Profile
from .state import DelayState, Source

# Delays at the start: drawn over the whole window, or given in steps.
DelayInit = Literal["uniform"] | float | Tensor


class Rounding:
    """Whether a layer rounds its delays: for good, or inside `rounded_delays`, which does not hold for copies."""

    def __init__(self, final: bool = False) -> None:
        self.final = final
        self.contexts = 0

    @property
    def is_on(self) -> bool:
        """Whether delays are rounded now."""
        return self.final or self.contexts > 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Rounding, (self.final,)


class DelayLayer(DclsLayer, ABC):
    """The base of `SynapticDelays`, `AxonalDelays` and `DendriticDelays`; use those.

    With weights `w`, delays `d` and a spread `g` that sums to 1 over the window (one step alone for whole delays):

        output[o, t] = sum_i sum_k w[o, i, k] sum_s g(s - d[o, i, k]) input[i, t - s],  s = 0 .. max_delay

    Source:
        Hammouamri et al., arXiv:2306.17670.
    """

    dims = 1
    # The axes of the weight, 0 for outputs and 1 for inputs, whose neurons have delays of their own.
    delay_axes: tuple[int, ...]
    tail: int
    time_first: bool

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        *,
        kernel_count: int = 1,
        interpolation: Interpolation | Profile = "gaussian",
        init: DelayInit = "uniform",
        sigma_init: float | None = None,
        bias: bool = False,
        tail: int = 0,
        time_first: bool = False,
        method: MethodName = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Creates the parameters and initializes them.

        Args:
            in_features: Neurons of the input.
            out_features: Neurons of the output.
            max_delay: The largest delay. Unit: time steps. The window of an output is `max_delay + 1` steps.
            kernel_count: Number of weights for each pair of neurons. Each has its own delay, shared by the synapses of
                an axon or a dendrite.
            interpolation: "bilinear", "triangle", "gaussian" or a `torchdcls.Profile`.
            init: Start of the delays: "uniform" from 0 to `max_delay`, or a number or tensor to which `delay` is set.
            sigma_init: The start of every sigma, at least 0, in steps. None: the start of the interpolation.
            bias: Whether to add a learned bias to the output.
            tail: Steps by which the output is longer than the input. With `tail=max_delay` all spikes arrive. With
                less, late spikes are lost, and a loss that sums the output over time pulls delays toward 0.
            time_first: Whether input and output are (time, batch, neurons); otherwise (batch, neurons, time).
            method: How to convolve, see `torchdcls.large_kernel_conv`.
            device: Device of the parameters.
            dtype: Dtype of weight and bias. Position and sigma have at least float32.

        Attributes:
            weight: (out_features, in_features, kernel_count).
            delay: The delays, which can be read and set.
            position: `max_delay - (max_delay + 1) // 2 - delay`, the parameter behind `delay`: (1, out_features,
                in_features, kernel_count), with 1 along the axis of neurons that share their delays. Unit: time steps.
                With 5 times the learning rate, the default of `torchdcls.param_groups`, delays of tens of steps barely
                move. Use `position_lr_scale=100.0`, as SNN-delays, or tune it with the learning rate.
            sigma: The shape of `position`; None for "bilinear". Spread is the profile's smallest scale plus |sigma|.
            bias: (out_features) or None.

        Raises:
            ValueError: An argument is out of range; the message names it.
            TypeError: An argument of a wrong type.
        """
        steps = _checks.integer("max_delay", max_delay, 0) + 1
        if steps == 1 and _checks.integer("kernel_count", kernel_count, 1) > 1:
            raise ValueError(f"max_delay: expected at least 1 for kernel_count={kernel_count}, got {max_delay}")
        super().__init__(
            in_channels=_checks.integer("in_features", in_features, 1),
            out_channels=_checks.integer("out_features", out_features, 1),
            kernel_count=kernel_count,
            stride=1,
            dilated_kernel_size=steps,
            groups=1,
            bias=bias,
            interpolation=interpolation,
            learned_dims=None,
            position_init=("uniform", steps // 2),  # over the whole window, see reset_parameters
            sigma_init=sigma_init,
            method=method,
            device=device,
            dtype=dtype,
        )
        self.rounding = Rounding()
        self._set(padding=(0,), padding_mode="zeros", tail=tail, time_first=time_first)
        if isinstance(init, str):
            _checks.one_of("init", init, ("uniform",))
        else:
            start = self.undelayed - self._checked_delay("init", init).reshape(self.position.shape)
            self.position_init = start
            self._write_position(start, "to begin with, got positions")

    def _checked(self, name: str, value: Any) -> Any:
        match name:
            case "dilated_kernel_size" | "stride" | "padding" | "padding_mode" if self._is_set(name):
                raise ValueError(f"{name}: expected no change, got {value!r}; make another layer, with its max_delay")
            case "tail":
                return _checks.integer("tail", value, 0)
            case "time_first":
                _checks.flags(time_first=value)
            case "delay":
                return self._checked_delay(name, value)
        return super()._checked(name, value)

    @property
    def in_features(self) -> int:
        """Neurons of the input."""
        return self.in_channels

    @property
    def out_features(self) -> int:
        """Neurons of the output."""
        return self.out_channels

    @property
    def max_delay(self) -> int:
        """The largest delay. Unit: time steps."""
        return self.dilated_kernel_size[0] - 1

    @property
    def position_channels(self) -> tuple[int, int]:
        """(out_features, in_features), with 1 for the neurons that share their delays."""
        outside, inside = self.weight_channels
        return outside if 0 in self.delay_axes else 1, inside if 1 in self.delay_axes else 1

    @property
    def delay_shape(self) -> tuple[int, ...]:
        """The shape of `delay`: the neurons that have delays of their own, and `kernel_count`."""
        return (*(self.weight_channels[axis] for axis in self.delay_axes), self.kernel_count)

    @property
    def delay(self) -> Tensor:
        """The delays in use, from 0 to `max_delay`, differentiable. Unit: time steps.

        Shape (out_features, in_features, kernel_count) of synaptic, (in_features, kernel_count) of axonal,
        (out_features, kernel_count) of dendritic delays. They can be set to a number or to a tensor that broadcasts to
        this shape; its last axis may be left out where `kernel_count` is 1.

        Raises:
            ValueError: Set to delays that are not finite, beyond the window, or of another shape.
            TypeError: Set to what is neither a number nor a tensor.
        """
        return self.undelayed - self._placed().reshape(self.delay_shape)

    @delay.setter
    def delay(self, delay: Tensor) -> None:
        self._write_position((self.undelayed - delay).reshape(self.position.shape), "to set, got positions")

    def _checked_delay(self, name: str, value: object) -> Tensor:
        if not isinstance(value, Tensor):
            _checks.number(name, value)
            value = torch.tensor(float(value), dtype=torch.float64)  # type: ignore[arg-type]  # a number, as was asked
        if value.is_complex() or value.dtype == torch.bool:
            raise _checks.WrongTypeError(f"{name}: expected real numbers, got {value.dtype}")
        shape = self.delay_shape
        given = value.detach().to(self.position)
        if self.kernel_count == 1 and given.shape == shape[:-1]:
            given = given.unsqueeze(-1)
        try:
            given = given.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"{name}: expected a number or a tensor that broadcasts to {shape}, got shape {tuple(value.shape)}"
            ) from None
        if given.is_meta:
            return given
        outside = ~((given >= 0) & (given <= self.max_delay))
        if outside.any():
            raise ValueError(
                f"{name}: expected delays from 0 to max_delay={self.max_delay} steps, got {given[outside][0].item():g}"
            )
        return given

    @property
    def undelayed(self) -> int:
        """The position of an element without delay, and the delay of an element at position 0."""
        return self.max_delay - (self.max_delay + 1) // 2

    def reset_parameters(self) -> None:
        """Initializes weight and bias as in torch's convolutions, and delays by `init`."""
        super().reset_parameters()
        # An even window is not symmetric about position 0.
        if not isinstance(self.position_init, Tensor) and self.position_init == ("uniform", (self.max_delay + 1) // 2):
            drawn = torch.empty_like(self.position).uniform_(0, self.max_delay)
            self._write_position(self.undelayed - drawn, "to draw, got positions")

    def _placed(self) -> Tensor:
        """Positions clamped to the grid, with gradients as if they were not, or rounded, without gradients."""
        position = self.position
        inside = position.detach().clamp(self.undelayed - self.max_delay, self.undelayed)
        return inside.round() if self.rounding.is_on else position - position.detach() + inside

    def _taps(self, weight: Tensor) -> Tensor:
        """One weight (a, b, n) for each delay, at its place: (a, b, max_delay + 1), the oldest step first."""
        position = self._placed().reshape(1, *weight.shape)
        if self.rounding.is_on:
            # Clamped only to stay within memory: NaN, which has no integer, is refused before.
            index = (position[0] + (self.max_delay + 1) // 2).long().clamp(0, self.max_delay)
            return weight.new_zeros((*weight.shape[:2], self.max_delay + 1)).scatter_add(-1, index, weight)
        sigma = None if self.sigma is None else self.sigma.reshape(position.shape)
        return construct_kernel(weight, position, sigma, self.max_delay + 1, self.interpolation)

    def _settings(self) -> tuple[Any, ...]:
        return self.dilated_kernel_size, self.interpolation, self.rounding.is_on

    def kernel_text(self) -> str:
        """See `DclsLayer.kernel_text`; it also says whether delays were rounded for good."""
        text = super().kernel_text()
        return f"{text}, delays rounded by round_delays_" if self.rounding.final else text

    @property
    def why_not_plain(self) -> str | None:
        """Why `torchdcls.fuse` cannot replace the layer, or None."""
        return "has time_first=True; torch's convolutions take (batch, neurons, time)" if self.time_first else None

    def with_plain(self, convolution: nn.Module) -> nn.Module:
        """See `DclsLayer.with_plain`; the input is padded before by the window, and after by the tail."""
        return nn.Sequential(nn.ConstantPad1d((self.max_delay, self.tail), 0.0), convolution).train(self.training)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *settings: Any) -> None:
        # Whole delays cannot be NaN: they would hide it.
        position = state_dict.get(f"{prefix}position")
        if self.rounding.is_on and isinstance(position, Tensor) and position.isnan().any():
            *_, error_msgs = settings
            error_msgs.append(f"{prefix}position: expected finite delays for a layer that is rounded, got NaN")
            return
        super()._load_from_state_dict(state_dict, prefix, *settings)

    def forward(self, input: Tensor) -> Tensor:
        """The delayed and weighted input.

        Args:
            input: (batch, in_features, time), with `time_first` (time, batch, in_features). The batch axis may be
                missing. Before the input there are no spikes.

        Returns:
            (batch, out_features, time + tail), in the layout of `input`.

        Raises:
            ValueError: `input` has another shape or dtype than expected, or no time step.
            TypeError: `input` is not a tensor.
        """
        neurons = self.neurons_then_time(input)
        return self._in_layout(self._leave(self._delayed(self._enter(neurons), self.tail)))

    def stream(self, input: Tensor, state: DelayState | None = None) -> tuple[Tensor, DelayState]:
        """A part of a sequence, of any length; the outputs of all parts together are those of the whole sequence.

        Args:
            input: As in `forward`.
            state: The state that the previous part returned. None: this is the first part.

        Returns:
            The output at the steps of `input`, in its layout, and the state for the next part. There is no `tail`: pass
            zeros at the end to get the spikes that are still delayed.

        Raises:
            ValueError: `input` has another shape or dtype than expected, or no time step, or `state` belongs to other
                inputs.
            TypeError: Not a tensor, or not a state.
        """
        neurons = self.neurons_then_time(input)
        steps = neurons.shape[-1]
        due = self._with_pending(self._delayed(self._enter(neurons), self.max_delay), state)
        return self._in_layout(self._leave(due[..., :steps])), DelayState(due[..., steps:])

    def step(self, input: Tensor, state: DelayState | None = None) -> tuple[Tensor, DelayState]:
        """One time step of a stream; `step` and `stream` can follow each other.

        On CPU, and without a gradient of the input, synaptic delays only read the synapses of active inputs.

        Args:
            input: (batch, in_features) or (in_features).
            state: The state that the previous step returned. None: this is the first step. A state keeps the kernel of
                the parameters. It is made again after any change, except one through `.data`, which needs a new stream.

        Returns:
            (batch, out_features) or (out_features), and the state for the next step.

        Raises:
            ValueError: `input` has another shape or dtype than expected, or `state` belongs to other inputs.
            TypeError: Not a tensor, or not a state.
        """
        _checks.tensor("input", input)
        if input.dim() not in (1, 2) or input.shape[-1] != self.in_channels:
            raise ValueError(
                f"input: expected one step, (batch, {self.in_channels}) or ({self.in_channels},), "
                f"got shape {tuple(input.shape)}"
            )
        self._check_dtype(input)
        source = self._source()
        kept = state.taps if isinstance(state, DelayState) and source is not None and state.source == source else None
        taps = self._step_taps() if kept is None else kept
        due = self._with_pending(self._step_due(self.entered(input), taps), state)
        return self.left(due[..., 0]), DelayState(due[..., 1:], taps, source)

    def entered(self, step: Tensor) -> Tensor:
        """The input of the delays at one step: (batch, in_features) -> (batch, what is delayed)."""
        return self._enter(step.unsqueeze(-1)).squeeze(-1)

    def left(self, delayed: Tensor) -> Tensor:
        """The output of the layer at one step: (batch, what was delayed) -> (batch, out_features)."""
        return self._leave(delayed.unsqueeze(-1)).squeeze(-1)

    def _source(self) -> Source | None:
        """The parameters and settings that the taps of a step depend on, or None if they cannot be compared."""
        if special_tensors() or self.weight.is_meta:
            return None
        tensors = [self._parameters.get(name) for name in ("weight", "position", "sigma")]
        if any(tensor is None for tensor in tensors[:2]) or any(t is not None and t.is_inference() for t in tensors):
            return None
        return Source([t for t in tensors if t is not None], (torch.is_grad_enabled(), *self._settings()))

    def _with_pending(self, due: Tensor, state: DelayState | None) -> Tensor:
        """Sums that are due from now on, (..., steps to come), plus the pending ones of a state."""
        if state is None:
            return due
        pending = self.pending_of(state, due[..., 0])
        return torch.cat((due[..., : self.max_delay] + pending, due[..., self.max_delay :]), -1)

    def pending_of(self, state: DelayState, delayed: Tensor) -> Tensor:
        """The pending sums of a state, after a check that they fit delayed neurons of this shape."""
        _checks.of_type("state", state, DelayState, "a state that step or stream returned")
        expected = *delayed.shape, self.max_delay
        pending = state.pending
        _checks.tensor("state", pending)
        if not pending.is_floating_point():
            raise ValueError(f"state: expected floating-point numbers, got {pending.dtype}")
        if pending.shape != expected or pending.device != delayed.device:
            raise ValueError(
                f"state: expected one of these inputs, {expected} on {delayed.device}, "
                f"got {tuple(pending.shape)} on {pending.device}"
            )
        return pending.to(delayed.dtype)

    def _check_dtype(self, input: Tensor) -> None:
        if autocast_is_on(input.device.type) and input.is_floating_point():
            return
        if input.dtype != self.weight.dtype:
            raise ValueError(f"input: expected the dtype of weight, {self.weight.dtype}, got {input.dtype}")

    def neurons_then_time(self, input: Tensor) -> Tensor:
        """The input as (batch, in_features, time), after the checks of `forward`."""
        _checks.tensor("input", input)
        neurons = input.movedim(0, -1) if self.time_first and input.dim() else input
        if input.dim() not in (2, 3) or neurons.shape[-2] != self.in_channels:
            layouts = f"(batch, {self.in_channels}, time)", f"(time, batch, {self.in_channels})"
            hint = ""
            if input.dim() in (2, 3) and input.shape[-2 if self.time_first else -1] == self.in_channels:
                hint = f"; make the layer with time_first={not self.time_first} for {layouts[not self.time_first]}"
            raise ValueError(
                f"input: expected {layouts[self.time_first]}, with or without batch, got {tuple(input.shape)}{hint}"
            )
        if neurons.shape[-1] == 0:
            raise ValueError(f"input: expected at least one time step, got shape {tuple(input.shape)}")
        self._check_dtype(input)
        return neurons

    def _in_layout(self, output: Tensor) -> Tensor:
        return output.movedim(-1, 0) if self.time_first else output

    # The kinds of delays differ in these methods. Between `_enter` and `_leave` neurons are delayed.
    def _enter(self, neurons: Tensor) -> Tensor:
        """(batch, in_features, time) -> (batch, what is delayed, time)."""
        return neurons

    @abstractmethod
    def filters(self) -> Tensor:
        """The delays as filters of a cross-correlation, (what was delayed, of how many each, max_delay + 1)."""

    def _delayed(self, neurons: Tensor, after: int) -> Tensor:
        """-> (batch, what was delayed, time + after)."""
        filters = self._kept(self.filters, *self._settings())
        groups = neurons.shape[-2] // filters.shape[1]
        if after > self.max_delay:  # zeros after all delays
            neurons, after = F.pad(neurons, (0, after - self.max_delay)), self.max_delay
        around = ((self.max_delay, after),)
        return large_kernel_conv(neurons, filters, padding=around, groups=groups, method=self.method)

    @abstractmethod
    def _leave(self, delayed: Tensor) -> Tensor:
        """-> (batch, out_features, time)."""

    def _step_taps(self) -> Tensor:
        # (of how many, what was delayed * steps): the synapses of an input are one row.
        return self.filters().flip(-1).transpose(0, 1).flatten(1)

    @abstractmethod
    def _step_due(self, neurons: Tensor, taps: Tensor) -> Tensor:
        """The sums that one step, (batch, what is delayed), adds to itself and later: (batch, ..., max_delay + 1)."""

    def extra_repr(self) -> str:
        """The settings without defaults, for `print(model)`."""
        fields = [f"{self.in_features}, {self.out_features}, max_delay={self.max_delay}"]
        fields += [f"kernel_count={self.kernel_count}"] if self.kernel_count > 1 else []
        fields.append(f"interpolation={self.interpolation.name}")
        fields += [f"tail={self.tail}"] if self.tail else []
        fields += ["bias=True"] if self.bias is not None else []
        fields += ["time_first=True"] if self.time_first else []
        fields += [f"method={self.method}"] if self.method != "auto" else []
        fields += ["rounded"] if self.rounding.is_on else []
        return ", ".join(fields)
