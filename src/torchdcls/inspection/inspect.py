"""A model and its possible conversions in numbers."""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from .. import _checks
from ..conversion import ConversionReport, Skipped, convert, parameter_count
from ..conversion.replace import Job, find_jobs, iso_kernel_count
from ..conversion.select import Where, is_convolution, stages
from ..conversion.swap import convolution_like, swap_modules_
from ..nn import Dcls1d, Dcls2d, Dcls3d, DclsLayer, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d
from ..profiles import INTERPOLATIONS, Interpolation, Profile, description
from .receptive_field import ReceptiveField, receptive_field

Size = int | tuple[int, ...]

# A subclass may compute something else than the plain convolution with its dense kernel.
_LAYERS = (Dcls1d, Dcls2d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d)


@dataclass(frozen=True)
class Layer:
    """A layer that can become a DCLS layer, or is one.

    Attributes:
        name: The layer.
        stage: Name of the layers that it shares positions with, or would.
        channels: Its output channels.
        kernel_size: Size of its dense kernel.
        map_size: Size of its output; None if the model did not call it.
        kernel_count: Elements of a DCLS layer's kernel, or None.
        interpolation: Name of a DCLS layer's interpolation, with its scale if the package does not have it; None for
            others.
    """

    name: str
    stage: str
    channels: int
    kernel_size: tuple[int, ...]
    map_size: tuple[int, ...] | None
    kernel_count: int | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class Conversion:
    """A preview of a conversion.

    Attributes:
        dilated_kernel_size: Size of the new dense kernels.
        interpolation: Name of the new layers' interpolation.
        iso_kernel_count: The most elements with which the model has no more parameters than before; None if even one is
            too many, or nothing can be replaced.
        kernel_count: Elements that the numbers below are for; None where there are none.
        replaced: Layers that would be replaced.
        parameters: Parameters of the converted model.
        operations: Operations of the converted model, as `ModelInfo.operations`.
        receptive_field: Receptive field of the converted model.
        reason: Why there are no numbers, or None.
    """

    dilated_kernel_size: Size
    interpolation: str
    iso_kernel_count: int | None = None
    kernel_count: int | None = None
    replaced: int = 0
    parameters: int | None = None
    operations: int | None = None
    receptive_field: ReceptiveField | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """A model and its possible conversions in numbers.

    Attributes:
        name: The given name, or the model's type.
        input_shape: Shape of the example's first tensor.
        layers: Layers that can become DCLS layers, or are, in the model's order.
        skipped: Convolutions that a conversion leaves alone, each with the reason.
        parameters: Number of parameters. A shared parameter counts once.
        operations: Operations of one forward pass on the example, as torch.utils.flop_counter counts them: two for each
            product of convolutions, matrix products and attention, none for anything else. A DCLS layer counts as the
            plain convolution with its dense kernel; the library takes spectra or other methods where these are faster.
        receptive_field: What the center of the last feature map depends on.
        conversions: One for each size and interpolation that was given.
    """

    name: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    parameters: int
    operations: int
    receptive_field: ReceptiveField
    conversions: tuple[Conversion, ...]


@dataclass(frozen=True)
class _Run:
    """Results of a forward pass: operations, receptive field, and the size of each convolution's output by name."""

    operations: int
    receptive_field: ReceptiveField
    maps: dict[str, tuple[int, ...]]


def inspect_model(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    dilated_kernel_size: Size | Sequence[Size] = (),
    interpolation: Interpolation | Profile | Sequence[Interpolation | Profile] = INTERPOLATIONS,
    kernel_count: int | Literal["iso"] = "iso",
    where: Where | None = None,
    name: str | None = None,
) -> ModelInfo:
    """Describes a model, and previews conversions by `torchdcls.convert`. The model does not change.

    A copy runs on the meta device in evaluation mode, so that weights take neither memory nor time. A model that cannot
    run there, for example because it reads values of tensors, is copied and run where it is.

    Args:
        model: Any module; its DCLS layers, if any, are described as they are.
        example: Its input, or a tuple of its arguments, of which the first is (batch, channels, *map).
        dilated_kernel_size: Sizes to convert to, each an integer or a tuple of one per axis. None by default.
        interpolation: One interpolation to convert to, or several.
        kernel_count: Elements per kernel, or "iso" for the most that need no more parameters than before.
        where: As in `torchdcls.convert`.
        name: The model's name in the result; by default its type.

    Raises:
        ValueError: The model cannot be run on the example, or an argument is out of range.
        TypeError: An argument of a wrong type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 7, padding=3, groups=8))
        >>> info = inspect_model(model, torch.randn(1, 3, 32, 32), dilated_kernel_size=17, interpolation=["bilinear"])
        >>> info.conversions[0].iso_kernel_count, str(info.receptive_field), str(info.conversions[0].receptive_field)
        (16, '28 x 28', '68 x 68')
    """
    _checks.module("model", model)
    _checks.of_type("dilated_kernel_size", dilated_kernel_size, (int, Sequence), "a size or a list of them")
    sizes = [dilated_kernel_size] if isinstance(dilated_kernel_size, int) else list(dilated_kernel_size)
    sizes = [
        tuple(size) if isinstance(size, list | tuple) else _checks.integer("dilated_kernel_size", size, 1)
        for size in sizes
    ]
    one = isinstance(interpolation, str) or not isinstance(interpolation, Sequence)
    asked: Any = [interpolation] if one else interpolation
    profiles = [_checks.profile(each) for each in asked]
    kernel_count = _checks.element_count(kernel_count)
    inputs = example if isinstance(example, tuple) else (example,)
    for tensor in inputs:
        _checks.tensor("example", tensor)

    run, bare = _first_run(model, _meta_copy(model).eval(), inputs)
    jobs, skipped = find_jobs(bare, 1, where)
    conversions = []
    for size in sizes:
        replaced, left = find_jobs(bare, size, where)
        jobs, skipped = (replaced, left) if len(replaced) >= len(jobs) else (jobs, skipped)
        if not replaced:
            why = "nothing can be replaced" if left else "it has no convolutions"
            conversions += [Conversion(size, profile.name, reason=why) for profile in profiles]
            continue
        # Neither operations nor pixels depend on elements and how they spread.
        converted, _ = _converted(bare, size, 1, "bilinear", where)
        after = _run(converted, inputs)
        for profile in profiles:
            iso, parameters, reason = None, None, None
            with suppress(ValueError):
                iso = iso_kernel_count(replaced, profile, None)
            count = iso if kernel_count == "iso" else kernel_count
            if count is None:
                reason = "even one element per kernel needs more parameters than before"
            else:
                parameters = _converted(bare, size, count, profile, where)[1].parameters_after
            conversions.append(
                Conversion(
                    dilated_kernel_size=size,
                    interpolation=profile.name,
                    iso_kernel_count=iso,
                    kernel_count=count,
                    replaced=len(replaced),
                    parameters=parameters,
                    operations=after.operations,
                    receptive_field=after.receptive_field,
                    reason=reason,
                )
            )
    return ModelInfo(
        name=type(model).__name__ if name is None else name,
        input_shape=tuple(inputs[0].shape),
        layers=_layers(bare, jobs, run.maps),
        skipped=tuple(skipped),
        parameters=parameter_count(bare),
        operations=run.operations,
        receptive_field=run.receptive_field,
        conversions=tuple(conversions),
    )


def _converted(
    model: nn.Module, size: Size, count: int, interpolation: Interpolation | Profile, where: Where | None
) -> tuple[nn.Module, ConversionReport]:
    converted = deepcopy(model)
    report = convert(converted, dilated_kernel_size=size, kernel_count=count, interpolation=interpolation, where=where)
    return converted, report


def _first_run(model: nn.Module, bare: nn.Module, inputs: Sequence[Tensor]) -> tuple[_Run, nn.Module]:
    """Runs the copy without weights, or else a copy with them; and the copy that ran."""
    try:
        return _run(bare, inputs), bare
    except Exception as error:  # a model may raise anything there
        problem = error
    if not any(tensor.is_meta for tensor in model.parameters()):
        whole = deepcopy(model).eval()
        try:
            return _run(whole, inputs), whole
        except Exception as error:
            problem = error
    raise ValueError(
        f"example: expected an input that {type(model).__name__} can be run on, got "
        f"{', '.join(str(tuple(tensor.shape)) for tensor in inputs)}: {_checks.first_line(problem)}"
    ) from problem


def _run(model: nn.Module, inputs: Sequence[Tensor]) -> _Run:
    plain = _with_plain_layers_(deepcopy(model))
    device = next((tensor.device for tensor in plain.parameters()), torch.device("meta"))
    moved = [tensor.to(device) for tensor in inputs]
    names = {module: name for name, module in plain.named_modules() if is_convolution(module)}
    maps: dict[str, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if module in names:
            maps[names[module]] = tuple(output.shape[2:])

    with register_module_forward_hook(note), torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(*moved)
    return _Run(counter.get_total_flops(), receptive_field(plain, *moved), maps)


def _meta_copy(model: nn.Module) -> nn.Module:
    """The model on the meta device, where it takes no memory; layers share what they share in the model."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return deepcopy(model, memo)


def _with_plain_layers_(model: nn.Module) -> nn.Module:
    """Replaces each DCLS layer by torch's convolution of the same dense size, with any weights."""
    plain: dict[nn.Module, nn.Module] = {
        layer: convolution_like(
            layer, layer.dilated_kernel_size, layer.padding, layer.weight.device, layer.weight.dtype
        )
        for layer in model.modules()
        if isinstance(layer, DclsLayer) and parametrize.type_before_parametrizations(layer) in _LAYERS
    }
    swap_modules_(model, plain)
    return model


def _layers(model: nn.Module, jobs: Sequence[Job], maps: dict[str, tuple[int, ...]]) -> tuple[Layer, ...]:
    replaceable = {job.name: job for job in jobs}
    made = {name: module for name, module in model.named_modules() if isinstance(module, DclsLayer)}
    # Layers that hold one position parameter are a stage, whatever they are called.
    named = stages(made)
    first: dict[nn.Parameter, str] = {}
    stage = {name: first.setdefault(layer.position, named[name]) for name, layer in made.items()}
    rows = []
    for name, _ in model.named_modules():
        size = maps.get(name)
        if name in replaceable:
            job = replaceable[name]
            rows.append(Layer(name, job.stage, job.module.out_channels, job.module.kernel_size, size))
        elif name in made:
            layer = made[name]
            own = (layer.kernel_count, description(layer.interpolation))
            rows.append(Layer(name, stage[name], layer.out_channels, layer.dilated_kernel_size, size, *own))
    return tuple(rows)
