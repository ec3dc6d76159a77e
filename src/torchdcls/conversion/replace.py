"""Replacing a model's convolutions by DCLS layers."""

import warnings
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .. import _checks
from ..nn import Dcls1d, Dcls2d, Dcls3d, DclsNd
from ..nn.init import PositionInit
from ..ops.conv import MethodName
from ..profiles import Interpolation, Profile
from . import select
from .report import ConversionReport, Replaced, Skipped, counted
from .select import Convolution, Share, Where
from .swap import swap_modules_
from .warm_start import residuals_by_count, warm_start_

_LAYERS: dict[type[nn.Module], type[DclsNd]] = {nn.Conv1d: Dcls1d, nn.Conv2d: Dcls2d, nn.Conv3d: Dcls3d}

# A warm start whose mean residual is larger, which is a tenth of the kernels' energy, is warned of. At 0.14 and 0.21
# networks compute as well as before: the README's table.
LARGEST_RESIDUAL = 0.3

_NOT_PICKED = "not picked by where"


@dataclass
class Job:
    """A convolution to replace; layers of one `key` share their positions."""

    name: str
    module: Convolution
    kernel_size: tuple[int, ...]
    stage: str
    key: Hashable


# Layers that share their positions, by what is replaced.
_Group = dict[str, tuple[DclsNd, Tensor]]


def convert(
    model: nn.Module,
    *,
    dilated_kernel_size: int | Sequence[int],
    kernel_count: int | Literal["iso"],
    interpolation: Interpolation | Profile = "gaussian",
    where: Where | None = None,
    share: Literal["stage", "none"] | Share = "stage",
    learned_dims: Sequence[int] | None = None,
    position_init: PositionInit = ("normal", 0.5),
    sigma_init: float | None = None,
    weight_std: float | None = None,
    method: MethodName = "auto",
    init: Literal["random", "keep"] = "random",
) -> ConversionReport:
    """Replaces convolutions of any model by DCLS layers, in place.

    Stride, output size, padding mode, groups, bias, device, dtype, training flag and requires_grad are kept. Weights
    are new; with `init="keep"` they make the old kernels as well as the elements can. Train the model afterwards. Hooks
    of the replaced layers are lost.

    Args:
        model: The model; its modules are exchanged.
        dilated_kernel_size: Size of the new dense kernels, one integer or one per axis.
        kernel_count: Elements per kernel, or "iso" for the largest count at which the model has no more parameters than
            before.
        interpolation: "bilinear", "triangle", "gaussian" or a `torchdcls.Profile`.
        where: Predicate on (name, module), asked about every convolution. None picks depthwise ones with as many
            channels out as in, stride 1 and more than one tap.
        share: "stage" gives layers of one shape in one stage the same positions and sigmas, as in the papers; a stage
            is found from the numbers in the modules' names. "none" gives every layer its own. A function of
            (name, module) returns the stage instead. Shared means one Parameter at several layers, which torch's
            `to_empty` and `load_state_dict(assign=True)` take apart.
        learned_dims: Axes along which positions are learned; None for all.
        position_init: Where positions start, see `torchdcls.Dcls2d`. With `init="keep"` it places the elements that
            are not needed, for example ("uniform", 11) to spread them over a kernel of 23, and a tensor is refused.
        sigma_init: Where sigmas start; None for the start of the interpolation. Refused with `init="keep"`. Unit: grid
            cells.
        weight_std: Standard deviation of new weights, truncated normal at two of it (0.02 in ConvNeXt and MetaFormer);
            None for torch's convolution default. Refused with `init="keep"`.
        method: How the new layers convolve, see `torchdcls.large_kernel_conv`.
        init: "random", or "keep" for a warm start. With as many elements as the old kernel has taps, each tap has one,
            as narrow as the interpolation allows: the outputs stay the same up to rounding with "bilinear" and
            "triangle", and up to the narrowest spread, a thousandth of the kernel, with "gaussian". Further elements
            have weight 0. With fewer elements, positions are found from which least squares make the old kernels
            of all layers that share them. What a small or even new kernel cannot hold is lost. The report has the
            difference, layer by layer. Where its mean over layers is above 0.3, the model has likely lost what it had
            learned: a warning names a count that is enough.

    Returns:
        A report: layers replaced, convolutions skipped with reasons, parameters before and after. `print` shows it.

    Raises:
        ValueError: An argument is out of range, nothing would be replaced, the model itself is the convolution, "iso"
            leaves less than one element, or there are no finite weights to keep. The model is as it was.
        TypeError: An argument of a wrong type. The model is as it was.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torchdcls import convert
        >>> model = nn.Sequential(nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        >>> print(convert(model, dilated_kernel_size=17, kernel_count="iso", interpolation="bilinear"))
        1 layer replaced, 1 convolution skipped, 16 elements per kernel
        parameters: 472 before, 464 after (-8)
          0  7x7 -> 17x17  8 channels, stage (root)
          2  skipped: not depthwise (8 to 8 channels in 1 group)
    """
    _checks.module("model", model)
    kernel_count = _checks.element_count(kernel_count)
    if not callable(share):
        _checks.one_of("share", share, ("stage", "none"))
    if weight_std is not None:
        _checks.number("weight_std", weight_std)
        if not 0 < weight_std < float("inf"):
            raise ValueError(f"weight_std: expected a positive number or None, got {weight_std!r}")
    _checks.one_of("init", init, ("random", "keep"))
    if init == "keep" and weight_std is not None:
        raise ValueError(f"weight_std: expected None with init='keep', which draws no weights, got {weight_std!r}")
    if init == "keep" and sigma_init is not None:
        raise ValueError(f"sigma_init: expected None with init='keep', which finds sigmas itself, got {sigma_init!r}")
    if init == "keep" and isinstance(position_init, Tensor):
        raise ValueError(
            "position_init: expected ('normal', standard deviation) or ('uniform', radius) with init='keep', which "
            "finds positions itself, got a tensor"
        )
    profile = _checks.profile(interpolation)
    jobs, skipped = find_jobs(model, dilated_kernel_size, where, share)
    _check_jobs(model, jobs, skipped, init)
    before = parameter_count(model)
    if kernel_count == "iso":
        kernel_count = iso_kernel_count(jobs, profile, learned_dims)

    layers: dict[nn.Module, DclsNd] = {}
    groups: dict[Hashable, _Group] = defaultdict(dict)
    settings = {
        "learned_dims": learned_dims,
        "position_init": position_init,
        "sigma_init": sigma_init,
        "method": method,
    }
    for job in jobs:
        layer = _layer_like(job, kernel_count, weight_std, interpolation=profile, **settings)
        group = groups[job.key]
        group[job.name] = layer, job.module.weight
        first, _ = next(iter(group.values()))
        layer.position, layer.sigma = first.position, first.sigma
        layers[job.module] = layer
    residuals: dict[str, float] = {}
    warning = None
    if init == "keep":
        for group in groups.values():
            residuals |= zip(group, warm_start_(*zip(*group.values(), strict=True)), strict=True)
        warning = _lost(list(groups.values()), residuals)
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    swap_modules_(model, layers)

    replaced = tuple(
        Replaced(
            name=job.name,
            stage=job.stage,
            channels=job.module.out_channels,
            old_kernel_size=job.module.kernel_size,
            new_kernel_size=job.kernel_size,
            residual=residuals.get(job.name),
        )
        for job in jobs
    )
    return ConversionReport(replaced, tuple(skipped), kernel_count, before, parameter_count(model), warning)


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, each counted once however many layers share it; lazy ones have no size yet and count 0."""
    _checks.module("model", model)
    return sum(parameter.numel() for parameter in model.parameters() if not is_lazy(parameter))


def find_jobs(
    model: nn.Module, size: int | Sequence[int], where: Where | None = None, share: str | Share = "stage"
) -> tuple[list[Job], list[Skipped]]:
    """What `convert` would replace with these arguments, if anything, and what it would leave alone."""
    if where is not None and not callable(where):
        raise _checks.WrongTypeError(f"where: expected a function of (name, module) or None, got {where!r}")
    if select.is_convolution(model):
        raise ValueError(
            "model: expected a module that contains convolutions, got a convolution itself, which cannot be "
            "replaced in place; make a torchdcls.Dcls layer instead"
        )
    chosen: list[tuple[str, Convolution, tuple[int, ...]]] = []
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        if not select.is_convolution(module):
            continue
        if where is not None and not where(name, module):
            skipped.append(Skipped(name, _NOT_PICKED))
            continue
        kernel_size = _kernel_size(size, module)
        reason = select.impossible_reason(module, kernel_size)
        if where is None and type(module) in _LAYERS:
            reason = select.default_reason(module) or reason
        if reason is not None:
            skipped.append(Skipped(name, reason))
            continue
        assert kernel_size is not None
        chosen.append((name, module, kernel_size))  # type: ignore[arg-type]
    stage_of = select.stages(name for name, _, _ in chosen)
    jobs = []
    for name, module, kernel_size in chosen:
        stage: Hashable = name
        if callable(share):
            stage = share(name, module)
        elif share == "stage":
            stage = stage_of[name]
        place = (module.weight.device, module.weight.dtype, module.weight.requires_grad)
        shape = (module.in_channels, module.out_channels, module.groups, module.kernel_size, kernel_size)
        jobs.append(Job(name, module, kernel_size, str(stage), (stage, shape, place)))
    return jobs, skipped


def _check_jobs(model: nn.Module, jobs: Sequence[Job], skipped: Sequence[Skipped], init: str) -> None:
    if not jobs and not skipped:
        raise ValueError(f"model: expected at least one convolution to replace, got {type(model).__name__} without any")
    if not jobs:
        # Why a layer cannot be replaced says more than that it was not asked for.
        told = [skip for skip in skipped if skip.reason != _NOT_PICKED] or skipped
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in told[:5])
        # Whether where= would help: a layer was not picked, by it or by the default.
        picked = {_NOT_PICKED, *(select.default_reason(each) for each in model.modules() if type(each) in _LAYERS)}  # type: ignore[arg-type]
        hint = ""
        if any(skip.reason in picked for skip in told):
            hint = "; where= picks others, for example where=lambda name, module: name.endswith('conv2')"
        raise ValueError(
            f"model: expected at least one convolution to replace, got {len(skipped)} of which none can be "
            f"({reasons}){hint}"
        )
    for job in jobs if init == "keep" else []:
        weight = job.module.weight
        if weight.is_meta:
            raise ValueError(f"init: expected 'random' for a model on the meta device, got 'keep' and {job.name} there")
        if not weight.isfinite().all():
            raise ValueError(f"init: expected finite weights for 'keep', got NaN or infinity in {job.name}")


def _kernel_size(size: int | Sequence[int], module: nn.Module) -> tuple[int, ...] | None:
    axes = len(getattr(module, "kernel_size", ()))
    if isinstance(size, Sequence) and not isinstance(size, str | bytes) and len(size) != axes:
        return None
    return _checks.integers("dilated_kernel_size", size, axes, 1)


def iso_kernel_count(jobs: Sequence[Job], profile: Profile, learned_dims: Sequence[int] | None) -> int:
    """The largest kernel count at which the new layers have no more parameters than the convolutions they replace."""
    dense = sum(weight.numel() for weight in {job.module.weight for job in jobs})
    an_element = 0
    shared: dict[Hashable, int] = defaultdict(int)
    for job in jobs:
        learned = _checks.axes(learned_dims, len(job.kernel_size))
        elements = job.module.weight.shape[0] * job.module.weight.shape[1]
        for dim, size in enumerate(job.kernel_size):
            elements *= 1 if dim in learned else size
        an_element += elements
        shared[job.key] = elements * len(learned) * (1 if profile.start is None else 2)
    count = dense // (an_element + sum(shared.values()))
    if count < 1:
        raise ValueError(
            f"kernel_count: expected room for at least one element per kernel, got 'iso' with {dense} weights to "
            f"replace and {an_element + sum(shared.values())} parameters for one element each; give a number"
        )
    return int(count)


def _lost(groups: Sequence[_Group], residuals: dict[str, float]) -> str | None:
    """The warning that too little is kept of the old kernels, with the count that is enough; None if none is needed."""
    mean = sum(residuals.values()) / len(residuals)
    if mean <= LARGEST_RESIDUAL:
        return None
    by_count = [row for group in groups for row in residuals_by_count(*zip(*group.values(), strict=True))]
    # A layer with an element on each tap gains nothing by more.
    means = [
        sum(row[min(at, len(row) - 1)] for row in by_count) / len(by_count) for at in range(max(map(len, by_count)))
    ]
    enough = next((count for count, left in enumerate(means, start=1) if left <= LARGEST_RESIDUAL), None)
    count = next(iter(groups[0].values()))[0].kernel_count
    way_out = (
        "no kernel_count is enough, as new kernels are too small for the old ones: give a larger dilated_kernel_size"
        if enough is None
        else f"kernel_count={enough} is enough"
    )
    return (
        f"init='keep' keeps too little of the kernels with {counted(count, 'element')} for each: "
        f"mean residual {mean:.2g}, expected {LARGEST_RESIDUAL} at most; {way_out}"
    )


def _layer_like(job: Job, kernel_count: int, weight_std: float | None, **settings: Any) -> DclsNd:
    old = job.module
    layer = _LAYERS[type(old)](
        old.in_channels,
        old.out_channels,
        kernel_count,
        stride=old.stride,
        padding=select.converted_padding(old, job.kernel_size),  # type: ignore[arg-type]
        dilated_kernel_size=job.kernel_size,
        groups=old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,  # type: ignore[arg-type]
        device=old.weight.device,
        dtype=old.weight.dtype,
        **settings,
    )
    if weight_std is not None:
        nn.init.trunc_normal_(layer.weight, std=weight_std, a=-2 * weight_std, b=2 * weight_std)
    # The bias is the old one itself, with its values and its requires_grad.
    layer.bias = old.bias  # type: ignore[assignment]
    for parameter in (layer.weight, layer.position, layer.sigma):
        if parameter is not None:
            parameter.requires_grad_(old.weight.requires_grad)
    return layer.train(old.training)
