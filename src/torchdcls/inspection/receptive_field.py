"""How many pixels the centre of a model's last map depends on.

The model is run once, and every operation of torch tells of its output which pixels a cell can depend on, by the
textbook's recursion: a window of `k` cells at stride `s` on cells that lie `j` pixels apart and see `r` of them sees
`r + (k - 1) j`, and its cells lie `s j` apart. Where branches meet, the pixels of both count. Numbers of weights and
pixels play no part: it is what a cell could depend on, not what it does after training, and pixels beyond the image's
borders count too. What reads a whole map at once, such as attention, squeeze-and-excitation, or a group norm, makes it
the whole image; what is not followed, such as the windows of a Swin transformer, makes it unknown, never a guess.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _checks
from .traces import Dimension, Factor, Span, Trace, joined


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels that the centre of the last map, before anything is pooled to a vector, depends on.

    Attributes:
        size: Pixels along each axis, borders of the image left out; None where it is the whole image, or unknown.
        local: The same if nothing read a whole map, where that is known.
        exact: Whether `local` is the same for all cells; else, where a map is enlarged, it is the most.
        whole: The modules that read whole maps, by type.
        unknown: Operations that were not followed and matter.
    """

    size: tuple[int | None, ...]
    local: tuple[int, ...] | None
    exact: bool
    whole: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        if self.size and not any(self.size) and self.whole and not self.unknown:
            local = "" if self.local is None else f"; {self._pixels(self.local)} beside them"
            return f"whole image ({', '.join(self.whole)}{local})"
        if self.unknown or not self.size:
            return f"not known ({', '.join(self.unknown) or 'the model gives no map'})"
        return self._pixels(self.size)

    def _pixels(self, size: Sequence[int | None]) -> str:
        return ("" if self.exact else "at most ") + " x ".join("whole" if n is None else f"{n:,}" for n in size)


def receptive_field(model: nn.Module, *inputs: Tensor) -> ReceptiveField:
    """The receptive field of a model of plain torch layers; the model is run once, without gradient.

    Args:
        model: In evaluation mode, or batch norms read the whole image. May be on the meta device.
        inputs: Its arguments; the first has axes (batch, channels, *map).

    Returns:
        What the last tensor that still is a map depends on.

    Raises:
        ValueError: The model is no module, or the first input no tensor.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 7, padding=3), nn.AdaptiveAvgPool2d(1))
        >>> print(receptive_field(model.eval(), torch.randn(1, 3, 32, 32)))
        15 x 15
    """
    _checks.module("model", model)
    if not inputs:
        raise ValueError("inputs: expected the model's arguments, the first (batch, channels, *map), got none")
    _checks.tensors(inputs=inputs[0])
    follower = Follower(inputs[0])
    with torch.no_grad(), follower, ExitStack() as hooks:
        for module in model.modules():
            hooks.enter_context(module.register_forward_pre_hook(follower.enter))
            hooks.enter_context(module.register_forward_hook(follower.leave))
        model(*inputs)
    return follower.field()


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what tensors depend on while it is entered."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = max(image.dim() - 2, 0)
        first = tuple((Factor(size),) for size in image.shape[:2])
        axes = tuple((Factor(size, frozenset({axis}), Span()),) for axis, size in enumerate(image.shape[2:]))
        self.traces = WeakTensorKeyDictionary()
        self.traces[image] = self.last = Trace(first + axes)
        self.views = WeakTensorKeyDictionary()
        self.written: dict[int, Any] = {}  # storages that were written to through a view
        self.modules: list[str] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """A module starts."""
        self.modules.append(type(module).__name__)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module ends."""
        self.modules.pop()

    def field(self) -> ReceptiveField:
        """What the last map depends on."""
        spans, trace = self.last.spans(), self.last
        whole = {axis for axis, _ in trace.whole}
        all_whole = len(whole) == self.count
        known = len(spans) == self.count
        return ReceptiveField(
            size=tuple(
                None if axis in whole or axis not in spans else spans[axis].pixels for axis in range(self.count)
            ),
            local=tuple(spans[axis].pixels for axis in range(self.count)) if known and not trace.unknown else None,
            exact=all(span.exact for span in spans.values()),
            whole=tuple(sorted({by for _, by in trace.whole})),
            # Nothing can be more than the whole image.
            unknown=() if all_whole else tuple(sorted(trace.unknown)),
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, then says what its outputs depend on."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        followed = any(tensor in self.traces or tensor.untyped_storage()._cdata in self.written for tensor in inputs)
        before = {id(tensor): self.trace(tensor) for tensor in inputs} if followed else {}
        result = func(*args, **kwargs)
        if followed:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            names = [argument.name for argument in func._schema.arguments]
            given = {argument.name: argument.default_value for argument in func._schema.arguments}
            given |= {**dict(zip(names, args, strict=False)), **kwargs}
            call = Call(func, given, inputs, outputs, before, self.modules[-1] if self.modules else "the model")
            for output, trace in zip(outputs, follow(call), strict=True):
                self.keep(func, output, inputs, trace)
        return result

    def keep(self, func: Any, output: Tensor, inputs: Sequence[Tensor], trace: Trace) -> None:
        """Notes what an output depends on, and whether it is a map."""
        if func._schema.is_mutable and output in self.views and trace != self.trace(output):
            self.written[output.untyped_storage()._cdata] = output.untyped_storage()  # kept, or its place is another's
        if func.is_view:
            self.views[output] = True
        self.traces[output] = trace
        if len(trace.axes) == self.count:
            self.last = self.trace(output)

    def trace(self, tensor: Tensor) -> Trace:
        """What a tensor depends on; nothing where it was not made from the image."""
        found: Trace | None = self.traces.get(tensor)  # type: ignore[no-untyped-call]
        if tensor.untyped_storage()._cdata in self.written:
            return (found or _nothing(tensor)).lost(tensor.shape, "a tensor filled part by part")
        return _nothing(tensor) if found is None else found


@dataclass(frozen=True)
class Call:
    """An operation that was run: its arguments by name, tensors in and out, and what the former depended on."""

    func: Any
    given: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    before: Mapping[int, Trace]
    module: str

    @property
    def name(self) -> str:
        """As in `aten.NAME`, in-place or not."""
        name: str = self.func._schema.name.partition("::")[2]
        return name.rstrip("_")

    def trace(self, argument: str) -> Trace:
        """What an argument, a tensor, depends on."""
        return self.before[id(self.given[argument])]

    @property
    def main(self) -> Trace:
        """What the first tensor depends on."""
        return self.before[id(self.inputs[0])]

    def joined(self) -> Trace:
        """That of an output which depends on all inputs at the same place."""
        shape = self.outputs[0].shape
        return joined([self.before[id(tensor)] for tensor in self.inputs], shape, f"aten.{self.name} in {self.module}")


def follow(call: Call) -> list[Trace]:
    """What the outputs of an operation depend on."""
    rule = _RULES.get(call.name)
    if call.name.startswith("_scaled_dot_product"):
        rule = _attention
    if call.name in _PARTS:
        return [_part(call, output) for output in call.outputs]
    if call.name in _FRESH:
        return [_nothing(output) for output in call.outputs]
    if rule is not None:
        trace = rule(call)
        if rule not in _READ_ALL:
            # Weights that were made from the image, say.
            others = [call.before[id(tensor)] for tensor in call.inputs[1:]]
            whole, unknown = _union(others)
            if any(other.axes for other in others):
                unknown |= {f"aten.{call.name} in {call.module}"}
            trace = replace(trace, whole=trace.whole | whole, unknown=trace.unknown | unknown)
    elif torch.Tag.pointwise in call.func.tags:
        trace = call.joined()
    else:
        everything = Trace((), *_union(call.before[id(tensor)] for tensor in call.inputs))
        axes = frozenset[int]().union(*(call.before[id(tensor)].axes for tensor in call.inputs))
        everything = replace(everything, dimensions=((Factor(1, axes),),))
        return [everything.lost(output.shape, f"aten.{call.name} in {call.module}") for output in call.outputs]
    # Beside the first output there is what nobody reads, such as a norm's saved statistics.
    return [trace if output.shape == call.outputs[0].shape else _nothing(output) for output in call.outputs]


def _nothing(tensor: Tensor) -> Trace:
    return Trace(tuple((Factor(size),) for size in tensor.shape))


def _union(traces: Any) -> tuple[frozenset[tuple[int, str]], frozenset[str]]:
    traces = list(traces)
    whole = frozenset[tuple[int, str]]().union(*(trace.whole for trace in traces))
    return whole, frozenset[str]().union(*(trace.unknown for trace in traces))


def _dimensions(given: int | Sequence[int] | None, count: int) -> list[int]:
    if given is None or given == []:
        return list(range(count))
    return [dimension % count for dimension in ([given] if isinstance(given, int) else given)]


def _has_axes(dimension: Dimension) -> bool:
    return any(factor.axes for factor in dimension)


def _windowed(
    call: Call,
    trace: Trace,
    at: int,
    first: Fraction | int,
    last: Fraction | int,
    stride: Fraction | int,
    exact: bool = True,
) -> Trace:
    """That of an output whose cells along a dimension read a window of cells."""
    size, dimension = call.outputs[0].shape[at], trace.dimensions[at]
    cells = math.prod(factor.size for factor in dimension)
    spatial = [factor for factor in dimension if factor.axes]
    kept: Dimension
    if not spatial:
        kept = (Factor(size),)
    elif (first, last, stride, size) == (0, 0, 1, cells):
        kept = dimension
    elif len(spatial) == 1 and spatial[0].span is not None and spatial[0].size == cells:
        kept = (replace(spatial[0], size=size, span=spatial[0].span.window(first, last, stride, exact)),)
    else:
        axes = frozenset[int]().union(*(factor.axes for factor in spatial))
        kept = (Factor(size, axes, None, False),)
        trace = replace(trace, unknown=trace.unknown | {f"aten.{call.name} in {call.module}"})
    return replace(trace, dimensions=(*trace.dimensions[:at], kept, *trace.dimensions[at + 1 :]))


def _spread(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _convolution(call: Call) -> Trace:
    weight: Tensor = call.given["weight"]
    axes = weight.dim() - 2
    start = len(call.main.dimensions) - axes
    trace = call.main.mixed([start - 1], call.module)
    channels = call.outputs[0].shape[start - 1]
    trace = replace(trace, dimensions=(*trace.dimensions[: start - 1], (Factor(channels),), *trace.dimensions[start:]))
    sizes = zip(
        *(_spread(call.given[name], axes) for name in ("stride", "padding", "dilation")), weight.shape[2:], strict=True
    )
    for at, (stride, padding, dilation, taps) in enumerate(sizes, start=start):
        reach = dilation * (taps - 1)
        if call.given["transposed"]:
            first, last = Fraction(padding - reach, stride), Fraction(padding, stride)
            trace = _windowed(call, trace, at, first, last, Fraction(1, stride), exact=stride == 1)
        else:
            trace = _windowed(call, trace, at, -padding, reach - padding, stride)
    return trace


def _pool(call: Call) -> Trace:
    trace = call.main
    kernel: Any = call.given["kernel_size"]
    axes = int(call.name.partition("pool")[2][0])
    kernel = _spread(kernel, axes)
    strides = _spread(call.given["stride"] or kernel, axes)
    paddings = _spread(call.given["padding"], axes)
    dilations = _spread(call.given.get("dilation", 1), axes)
    start = len(trace.dimensions) - axes
    sizes = zip(kernel, strides, paddings, dilations, strict=True)
    for at, (taps, stride, padding, dilation) in enumerate(sizes, start=start):
        trace = _windowed(call, trace, at, -padding, dilation * (taps - 1) - padding, stride)
    return trace


def _adaptive_pool(call: Call) -> Trace:
    trace = call.main
    axes = int(call.name.partition("pool")[2][0])
    start = len(trace.dimensions) - axes
    before, after = call.inputs[0].shape, call.outputs[0].shape
    for at in range(start, start + axes):
        if after[at] == 1:
            trace = trace.mixed([at], call.module)
            kept = trace.dimensions
            trace = replace(trace, dimensions=(*kept[:at], (Factor(1),), *kept[at + 1 :]))
            continue
        ratio = Fraction(before[at], after[at])
        if ratio.denominator == 1:
            trace = _windowed(call, trace, at, 0, ratio - 1, ratio)
        else:  # from floor(i * ratio) to ceil((i + 1) * ratio) - 1
            trace = _windowed(call, trace, at, -1, ratio, ratio, exact=False)
    return trace


def _enlarged(call: Call) -> Trace:
    kind = call.name.removeprefix("_").removeprefix("upsample_")
    # Cells before and after the place, which is (i + 0.5) * ratio - 0.5 or i * ratio, that are read.
    reach = 2 if kind.startswith("bicubic") else 1
    trace = call.main
    for at in range(2, len(trace.dimensions)):
        before, after = call.inputs[0].shape[at], call.outputs[0].shape[at]
        ratio = Fraction(before, after)
        if before == after:
            continue
        if kind.startswith("nearest"):
            # floor(i * ratio)
            trace = _windowed(call, trace, at, Fraction(1, ratio.denominator) - 1, 0, ratio, exact=False)
        else:
            # align_corners has another ratio, (before - 1) / (after - 1): at most a cell off at the last.
            shift = (ratio - 1) / 2
            more = 1 if call.given.get("align_corners") else 0
            low, high = min(shift, Fraction(0)) - reach - more, max(shift, Fraction(0)) + reach + more
            trace = _windowed(call, trace, at, low, high, ratio, exact=False)
    return trace


def _padded(call: Call) -> Trace:
    trace = call.main
    pads = list(call.given["pad" if call.name == "constant_pad_nd" else "padding"])
    for place, before in enumerate(pads[::2]):
        at = len(trace.dimensions) - 1 - place
        trace = _windowed(call, trace, at, -before, -before, 1)
    return trace


def _sliced(call: Call) -> Trace:
    (at,) = _dimensions(call.given["dim"], len(call.main.dimensions))
    before = call.inputs[0].shape[at]
    if call.outputs[0].shape[at] == before:
        return call.main
    start = call.given["start"] or 0
    start = max(start + before, 0) if start < 0 else start
    if _has_axes(call.main.dimensions[at]) and any(factor.span is None for factor in call.main.dimensions[at]):
        # Tokens without the first: still most of a map whose order is lost.
        kept = call.main.dimensions
        (first, *_) = [factor for factor in kept[at] if factor.axes]
        rest = (replace(first, size=call.outputs[0].shape[at]),)
        return replace(call.main, dimensions=(*kept[:at], rest, *kept[at + 1 :]))
    return _windowed(call, call.main, at, start, start, call.given["step"])


def _part(call: Call, output: Tensor) -> Trace:
    (at,) = _dimensions(call.given["dim"], len(call.main.dimensions))
    if _has_axes(call.main.dimensions[at]):
        return call.main.lost(output.shape, f"aten.{call.name} in {call.module}")
    rest: tuple[Dimension, ...] = () if call.name in ("unbind", "select") else ((Factor(output.shape[at]),),)
    return replace(call.main, dimensions=(*call.main.dimensions[:at], *rest, *call.main.dimensions[at + 1 :]))


def _joined_end_to_end(call: Call) -> Trace:
    tensors = [tensor for tensor in call.inputs if tensor.numel()]
    traces = [call.before[id(tensor)] for tensor in tensors]
    (at,) = _dimensions(call.given["dim"], len(call.outputs[0].shape))
    if any(_has_axes(trace.dimensions[at]) for trace in traces):
        everything = Trace(((Factor(1, frozenset[int]().union(*(trace.axes for trace in traces))),),), *_union(traces))
        lost = everything.lost(call.outputs[0].shape, f"aten.{call.name} in {call.module}")
        plain: list[Dimension] = [(Factor(size),) for size in call.outputs[0].shape]
        complete = all(factor.complete for trace in traces for factor in trace.dimensions[at])
        plain[at] = (Factor(call.outputs[0].shape[at], everything.axes, None, complete),)
        return replace(lost, dimensions=tuple(plain))
    size = call.outputs[0].shape[at]
    traces = [
        replace(trace, dimensions=(*trace.dimensions[:at], (Factor(size),), *trace.dimensions[at + 1 :]))
        for trace in traces
    ]
    return joined(traces, call.outputs[0].shape, "aten.cat")


def _stacked(call: Call) -> Trace:
    (at,) = _dimensions(call.given["dim"], len(call.outputs[0].shape))
    shape = [size for place, size in enumerate(call.outputs[0].shape) if place != at]
    trace = joined([call.before[id(tensor)] for tensor in call.inputs], shape, "aten.stack")
    new: Dimension = (Factor(call.outputs[0].shape[at]),)
    return replace(trace, dimensions=(*trace.dimensions[:at], new, *trace.dimensions[at:]))


def _permuted(call: Call) -> Trace:
    dimensions = call.main.dimensions
    order = list(range(len(dimensions)))
    if call.name == "permute":
        order = _dimensions(call.given["dims"], len(dimensions))
    elif call.name == "t":
        order.reverse()
    else:
        one, other = (call.given[name] % len(order) for name in ("dim0", "dim1"))
        order[one], order[other] = order[other], order[one]
    return replace(call.main, dimensions=tuple(dimensions[place] for place in order))


def _reshaped(call: Call) -> Trace:
    return call.main.reshaped(call.outputs[0].shape, f"aten.{call.name} in {call.module}")


def _reduced(call: Call) -> Trace:
    trace = call.main
    over = _dimensions(call.given.get("dim"), len(trace.dimensions))
    trace = trace.mixed(over, call.module)
    kept = [(Factor(1),) if at in over else dimension for at, dimension in enumerate(trace.dimensions)]
    if not call.given.get("keepdim", False):
        kept = [dimension for at, dimension in enumerate(trace.dimensions) if at not in over]
    return replace(trace, dimensions=tuple(kept))


def _mixing(call: Call) -> Trace:
    return call.main.mixed(_dimensions(call.given["dim"], len(call.main.dimensions)), call.module)


def _layer_norm(call: Call) -> Trace:
    trace = call.joined()
    count = len(trace.dimensions)
    return trace.mixed(range(count - len(call.given["normalized_shape"]), count), call.module)


def _group_norm(call: Call) -> Trace:
    return call.main.mixed(range(1, len(call.main.dimensions)), call.module)


def _batch_norm(call: Call) -> Trace:
    if not call.given.get("training", "no_training" not in call.name):
        return call.main
    over = [at for at in range(len(call.main.dimensions)) if at != 1]
    return call.main.mixed(over, call.module)


def _product(call: Call) -> Trace:
    one, other = (("mat1", "mat2"), ("batch1", "batch2"), ("self", "mat2"))[
        0 if call.name == "addmm" else 1 if call.name == "baddbmm" else 2
    ]
    left, right = call.trace(one), call.trace(other)
    left, right = left.mixed([-1], call.module), right.mixed([-2], call.module)
    plain: Dimension = (Factor(1),)
    shape = call.outputs[0].shape
    left = replace(left, dimensions=(*left.dimensions[:-1], plain))
    right = replace(right, dimensions=(*right.dimensions[:-2], plain, right.dimensions[-1]))
    traces = [left, right]
    if call.name in ("addmm", "baddbmm"):
        traces.append(call.trace("self"))
    return joined(traces, shape, f"aten.{call.name}")


def _attention(call: Call) -> Trace:
    whole, unknown = _union(call.trace(name).mixed([-2], call.module) for name in ("query", "key", "value"))
    query = call.trace("query")
    # The query's tokens are not mixed with each other, but the keys' are as many.
    kept = (*query.dimensions[:-1], (Factor(call.outputs[0].shape[-1]),))
    return Trace(kept, whole, unknown)


_PARTS = ("unbind", "split", "split_with_sizes", "chunk", "select")
# Tensors that only have the shape of another.
_FRESH = (
    *(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn")),
    *(f"new_{kind}" for kind in ("zeros", "ones", "empty", "full")),
)
_RULES: dict[str, Callable[[Call], Trace]] = {
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(
        ("max_pool2d_with_indices", "avg_pool2d", "max_pool3d_with_indices", "avg_pool3d", "avg_pool1d", "max_pool2d"),
        _pool,
    ),
    **dict.fromkeys(
        [f"{which}adaptive_{kind}_pool{axes}d" for which in ("", "_") for kind in ("avg", "max") for axes in (1, 2, 3)],
        _adaptive_pool,
    ),
    **dict.fromkeys(
        [f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d")]
        + ["upsample_bicubic2d", "upsample_trilinear3d"],
        _enlarged,
    ),
    # Borders of the image are left out, whatever is there.
    **dict.fromkeys(
        ["constant_pad_nd"] + [f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)],
        _padded,
    ),
    "slice": _sliced,
    "cat": _joined_end_to_end,
    "stack": _stacked,
    **dict.fromkeys(("permute", "transpose", "t"), _permuted),
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten"), _reshaped
    ),
    **dict.fromkeys(
        (
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "var_mean",
            "std",
            "std_mean",
            "prod",
            "logsumexp",
            "linalg_vector_norm",
            "norm",
        ),
        _reduced,
    ),
    **dict.fromkeys(("_softmax", "_safe_softmax", "softmax", "_log_softmax", "cumsum"), _mixing),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm
    ),
    "_fused_rms_norm": _layer_norm,
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _product),
    **dict.fromkeys(
        (
            "expand",
            "clone",
            "detach",
            "alias",
            "_to_copy",
            "lift_fresh",
            "contiguous",
            "copy",
            "native_dropout",
            "fill",
        ),
        Call.joined,
    ),
    # Pointwise, though torch does not say so.
    **dict.fromkeys(
        ("hardswish", "hardsigmoid", "hardtanh", "mish", "threshold", "rrelu_with_noise", "prelu_kernel"),
        Call.joined,
    ),
}
_READ_ALL = (Call.joined, _joined_end_to_end, _stacked, _layer_norm, _product, _attention)
