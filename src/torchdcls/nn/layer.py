"""The base of every layer with learnable spacings: its elements, their kernel, and its cache."""

import math
from collections.abc import Callable
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import _checks
from ..ops.caches import LastResult
from ..ops.conv import METHOD_NAMES, MethodName, Padding
from ..ops.kernel import clamp_position_, construct_kernel
from ..ops.tracing import metadata, special_tensors, with_numbers, written_as_onnx
from ..profiles import Profile
from .init import PositionInit, check_position_init, check_sigma_init, position_start_

# The key of `kernel_text` in the metadata of a state dict.
_KERNEL = "dcls kernel"
# The settings that the checks of others need.
_FIRST = ("kernel_count", "learned_dims", "dilated_kernel_size", "stride", "interpolation")
# Endings of the tensors from which torch's older functions compute a parameter: weight_norm, spectral_norm, pruning.
_SOURCE_ENDINGS = ("", "_g", "_v", "_orig", "_u", "_mask")


def arguments_of(names: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, by its `locals()`."""
    return {name: value for name, value in names.items() if name not in ("self", "__class__")}


class DclsLayer(nn.Module):
    """The base of `DclsNd`, `DclsTransposeNd` and delay layers: every module with DCLS parameters is one.

    See `DclsNd` for arguments and attributes. `weight` is (channels, channels/groups, *dense sizes, kernel_count), with
    the channels of `weight_channels`.
    """

    dims: int
    in_channels: int
    out_channels: int
    groups: int
    kernel_count: int
    dilated_kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    padding_mode: str
    method: MethodName
    interpolation: Profile
    learned_dims: tuple[int, ...]
    position_init: PositionInit
    sigma_init: float | None
    weight: nn.Parameter
    position: nn.Parameter
    sigma: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, *, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None, **settings: Any
    ) -> None:
        super().__init__()
        _checks.flags(bias=bias)
        device = None if device is None else _checks.device(device)
        _checks.channels(**{name: settings[name] for name in ("groups", "in_channels", "out_channels")})
        self._set(**{name: settings.pop(name) for name in _FIRST})
        self._set(**settings)

        dense = [self.dilated_kernel_size[dim] for dim in range(self.dims) if dim not in self.learned_dims]
        shape = (*self.weight_channels, *dense, self.kernel_count)
        placed = (*self.position_channels, *dense, self.kernel_count)
        dtype = _checks.dtype(torch.get_default_dtype() if dtype is None else dtype)
        precise = torch.promote_types(dtype, torch.float32)

        def per_axis() -> nn.Parameter:
            return nn.Parameter(torch.empty((len(self.learned_dims), *placed), device=device, dtype=precise))

        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.position = per_axis()
        self.sigma = None if self.interpolation.start is None else per_axis()
        self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if bias else None
        self._cache = LastResult[Tensor]()
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        """As in torch; a setting is checked as in the constructor, and refused if the parameters do not fit it."""
        super().__setattr__(name, self._checked(name, value))

    def _set(self, **settings: Any) -> None:
        # Values are not of the declared types until they are checked.
        for name, value in settings.items():
            setattr(self, name, value)

    def _is_set(self, name: str) -> bool:
        return name in self.__dict__

    def _checked(self, name: str, value: Any) -> Any:
        """The value of a setting in the form that the layer keeps; other attributes unchanged."""
        match name:
            case _ if name in _checks.FOREIGN:
                raise ValueError(_checks.hint_for(name, value))
            case "in_channels" | "out_channels" | "groups" | "kernel_count" | "learned_dims":
                value = _checks.axes(value, self.dims) if name == "learned_dims" else _checks.integer(name, value, 1)
                if self._is_set(name) and value != getattr(self, name):
                    raise ValueError(
                        f"{name}: expected {getattr(self, name)!r}, for which the layer has its parameters, "
                        f"got {value!r}; make another layer"
                    )
            case "dilated_kernel_size":
                value = _checks.kernel_size(value, self.dims, self.learned_dims, self.kernel_count)
                was = self.dilated_kernel_size if self._is_set(name) else value
                if any(was[dim] != value[dim] for dim in range(self.dims) if dim not in self.learned_dims):
                    raise ValueError(
                        f"dilated_kernel_size: expected {was} along the axes other than {self.learned_dims}, for which "
                        f"the layer has its parameters, got {value}; make another layer"
                    )
            case "stride":
                value = _checks.integers("stride", value, self.dims, 1)
            case "method":
                _checks.one_of("method", value, METHOD_NAMES)
            case "interpolation":
                value = _checks.profile(value)
                was = self.interpolation if self._is_set(name) else value
                if (was.start is None) != (value.start is None):
                    own = "without" if was.start is None else "with"
                    raise ValueError(
                        f"interpolation: expected one {own} sigma, as {was.name!r}, for which the layer has its "
                        f"parameters, got {value.name!r}; make another layer"
                    )
            case "position_init":
                value = check_position_init(value, self.learned_size)
            case "sigma_init":
                value = check_sigma_init(value, self.interpolation)
        return value

    @property
    def weight_channels(self) -> tuple[int, int]:
        """The first two axes of `weight`, as in torch's layer: (out_channels, in_channels/groups)."""
        return self.out_channels, self.in_channels // self.groups

    @property
    def position_channels(self) -> tuple[int, int]:
        """The channel axes of `position` and `sigma`: those of `weight`, or 1 where channels share them."""
        return self.weight_channels

    @property
    def learned_size(self) -> tuple[int, ...]:
        """Kernel size along the axes whose positions are learned."""
        return tuple(self.dilated_kernel_size[dim] for dim in self.learned_dims)

    def reset_parameters(self) -> None:
        """Initializes weight and bias as in torch's convolutions, and positions by `position_init`."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            nn.init.uniform_(self.bias, -bound, bound)
        position_start_(self.position, self.position_init)
        self.clamp_position_()
        if self.sigma is not None and self.interpolation.start is not None:
            nn.init.constant_(self.sigma, self.interpolation.start if self.sigma_init is None else self.sigma_init)

    def kernel(self) -> Tensor:
        """The dense kernel, (*two axes of channels as in `weight`, *dilated_kernel_size), differentiable."""
        return construct_kernel(
            self.weight,
            self.position,
            self.sigma,
            self.dilated_kernel_size,
            self.interpolation,
            learned_dims=self.learned_dims,
        )

    def with_plain(self, convolution: nn.Module) -> nn.Module:
        """A module of torch's that computes the same as the layer, from the convolution with its kernel."""
        return convolution

    def kernel_text(self) -> str:
        """The settings of the kernel that no shape shows: size, interpolation, learned axes."""
        size = "x".join(map(str, self.dilated_kernel_size))
        return f"{size} {self.interpolation.name}, axes {self.learned_dims}"

    def clamp_position_(self) -> None:
        """Moves positions outside the grid to its nearest edge, in place, for example after an optimizer step.

        Raises:
            ValueError: Positions are off the grid, and a parametrization without `right_inverse` computes them.
        """
        if "position" in self._parameters:
            clamp_position_(self.position, self.learned_size)
            return
        computed = self.position.detach()
        clamped = clamp_position_(computed.clone(), self.learned_size)
        if not torch.equal(computed, clamped):
            self._write_position(clamped, "to clamp, got positions off the grid")

    def _write_position(self, values: Tensor, purpose: str) -> None:
        """Sets positions in place, through the inverse of their parametrization, if any."""
        if "position" in self._parameters:
            with torch.no_grad():
                self.position.copy_(values)
            return
        chain = self._parametrizations("position")
        if not chain or not all(hasattr(module, "right_inverse") for module in chain):
            raise ValueError(
                f"position: expected a parameter, or parametrizations with a right_inverse, {purpose} that are "
                "computed otherwise; give the parametrization a right_inverse, or have it keep to the grid"
            )
        self.position = values  # type: ignore[assignment]  # a property now, which asks the inverse

    def position_sources(self) -> list[Tensor]:
        """Position and sigma, or the tensors from which they are computed: what learns with their rate."""
        sources: list[Tensor] = []
        for name in ("position", "sigma"):
            chain = self._parametrizations(name)
            if chain is not None:
                sources += [*chain.parameters(), *chain.buffers()]
            else:
                own = self._parameters | self._buffers
                sources += [tensor for end in _SOURCE_ENDINGS if (tensor := own.get(name + end)) is not None]
        return sources

    def _parametrizations(self, name: str) -> parametrize.ParametrizationList | None:
        if not parametrize.is_parametrized(self, name):
            return None
        chain: Any = self.parametrizations
        found: parametrize.ParametrizationList = chain[name]
        return found

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError(
            f"torch.jit.script cannot compile {type(self).__name__}: replace DCLS layers by plain convolutions "
            "first, by torchdcls.fuse(model), or record the model with torch.jit.trace"
        )

    def train(self, mode: bool = True) -> Self:
        """As in torch. In evaluation mode and without gradients, the kernel is kept until an element changes."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    def _kept_kernel(self) -> Tensor:
        return self._kept(self.kernel, self.dilated_kernel_size, self.interpolation, self.learned_dims)

    def _kept(self, make: Callable[[], Tensor], *settings: Any) -> Tensor:
        """The result of `make` for the elements and these settings."""
        if written_as_onnx():  # a constant of the file, as the exporter does not know all that makes it
            with torch.no_grad():
                return with_numbers(make)
        if self.training or torch.is_grad_enabled() or special_tensors() or self.weight.is_meta:
            return make()
        return self._cache.get([self.weight, self.position, self.sigma], settings, make)

    # The text is in the metadata of a state dict, as torch's version numbers: an entry that is not a tensor would break
    # averages, safetensors and older state dicts. Without metadata nothing is compared.
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata(destination).setdefault(prefix[:-1], {})[_KERNEL] = self.kernel_text()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *settings: Any) -> None:
        local_metadata, *_, error_msgs = settings
        own = self.kernel_text()
        saved = local_metadata.get(_KERNEL, own)
        if saved != own:
            error_msgs.append(
                f"{prefix[:-1] or type(self).__name__}: expected the state of a layer as this one ({own}), "
                f"got one of another ({saved}); make the layer with the arguments of the saved one"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *settings)

    def extra_repr(self) -> str:
        """The settings without defaults, for `print(model)`."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_count={self.kernel_count}, "
            f"dilated_kernel_size={self.dilated_kernel_size}, interpolation={self.interpolation.name}"
        )
        for name, value, usual in (
            ("stride", self.stride, (1,) * self.dims),
            ("padding", repr(self.padding), repr((0,) * self.dims)),
            ("groups", self.groups, 1),
            ("bias", self.bias is not None, True),
            ("padding_mode", self.padding_mode, "zeros"),
            ("learned_dims", self.learned_dims, tuple(range(self.dims))),
            ("method", self.method, "auto"),
        ):
            text += "" if value == usual else f", {name}={value}"
        return text

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # In half precision a position would err by a sixteenth of a cell at size 23: it changes its device only.
        precise = self.position_sources()
        kept = {id(tensor) for source in precise for tensor in (source, source.grad) if tensor is not None}

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if id(tensor) in kept and result.dtype.itemsize < 4:
                return tensor.to(result.device)
            return result

        return super()._apply(moved, recurse)  # type: ignore[no-any-return, no-untyped-call]
