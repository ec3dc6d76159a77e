"""What the outputs of torch's operations depend on, by what their inputs do: a table of rules."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .traces import Dimension, Factor, Span, Trace, axes_of, cells_of, disordered, end_to_end, joined, union


@dataclass(frozen=True)
class Call:
    """An operation that was run.

    Attributes:
        name: As in `aten.NAME`, in-place or not.
        pointwise: Whether torch says that it is.
        given: Its arguments by name.
        inputs, outputs: Tensors in and out.
        before: What the former depended on, by id.
        module: Type of the module that ran it.
    """

    name: str
    pointwise: bool
    given: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    before: Mapping[int, Trace]
    module: str

    @property
    def where(self) -> str:
        """Name and module, for what is unknown."""
        return f"aten.{self.name} in {self.module}"

    @property
    def shape(self) -> torch.Size:
        """Of the first output."""
        return self.outputs[0].shape

    @property
    def main(self) -> Trace:
        """What the first tensor depends on."""
        return self.before[id(self.inputs[0])]

    def traces(self, tensors: Iterable[Tensor]) -> list[Trace]:
        """What inputs depend on."""
        return [self.before[id(tensor)] for tensor in tensors]

    def joined(self) -> Trace:
        """That of an output which depends on all inputs at the same place."""
        return joined(self.traces(self.inputs), self.shape, self.where)

    def dimensions(self, argument: str) -> list[int]:
        """Dimensions of the first tensor, or for `cat` and `stack` of the output, that an argument names."""
        count = len(self.shape) if self.name in ("cat", "stack") else len(self.main.dimensions)
        given = self.given.get(argument)
        if given is None or given == []:
            return list(range(count))
        return [dimension % count for dimension in ([given] if isinstance(given, int) else given)]

    def numbers(self, argument: str, count: int, default: Any = None) -> list[int]:
        """An argument that is one number for all axes, or one for each."""
        value = self.given.get(argument) or default
        values = list(value) if isinstance(value, Sequence) else [value or 0]
        return values * count if len(values) == 1 else values


Rule = Callable[[Call], Trace]


def follow(call: Call) -> list[Trace]:
    """What the outputs of an operation depend on."""
    if _FRESH.fullmatch(call.name):
        return [independent(output) for output in call.outputs]
    if _PARTS.fullmatch(call.name):
        return _parts(call)
    if (rule := _rule(call.name, _RULES)) is not None:
        trace = rule(call)
        # Weights that were made from the image, say.
        given = everything(call.traces(call.inputs[1:]))
        trace = replace(trace, whole=trace.whole | given.whole)
        trace = trace.but_not(*given.unknown, *([call.where] if given.axes else []))
    elif (rule := _rule(call.name, _RULES_FOR_ALL_INPUTS)) is not None:
        trace = rule(call)
    elif call.pointwise:
        trace = call.joined()
    else:
        return [everything(call.before.values()).lost(output.shape, call.where) for output in call.outputs]
    # Beside the first output there is what nobody reads, such as a norm's saved statistics.
    return [trace if output.shape == call.shape else independent(output) for output in call.outputs]


def _rule(name: str, rules: dict[str, Rule]) -> Rule | None:
    return next((rule for pattern, rule in rules.items() if re.fullmatch(pattern, name)), None)


def independent(tensor: Tensor) -> Trace:
    """That of a tensor which was not made of the image."""
    return Trace(tuple((Factor(size),) for size in tensor.shape))


def everything(traces: Iterable[Trace]) -> Trace:
    """That of one element that depends on all elements of several tensors, along axes whose pixels are not known."""
    traces = list(traces)
    axes = union(trace.axes for trace in traces)
    whole, unknown = union(trace.whole for trace in traces), union(trace.unknown for trace in traces)
    return Trace((disordered(1, axes),), whole, unknown)


def _windowed(
    call: Call,
    trace: Trace,
    at: int,
    first: Fraction | int,
    last: Fraction | int,
    stride: Fraction | int,
    exact: bool = True,
    size: int | None = None,
) -> Trace:
    """That of an output whose cells along a dimension, `size` of them, read a window of cells."""
    size, dimension = call.shape[at] if size is None else size, trace.dimensions[at]
    cells = cells_of(dimension)
    if (first, last, stride, size) == (0, 0, 1, cells):
        return trace
    spatial = [factor for factor in dimension if factor.axes]
    if not spatial:
        uneven = any(factor.uneven for factor in dimension)
        if size < cells and uneven:  # perhaps those alone that read less
            trace = trace.at_most(trace.axes)
        return trace.with_dimension(at, (Factor(size, uneven=uneven),))
    (factor, *more) = spatial
    if not more and factor.span is not None and factor.size == cells:
        span = factor.span.window(first, last, stride, exact)
        return trace.with_dimension(at, (replace(factor, size=size, span=span),))
    if first == last and first == int(first) and 0 <= first <= cells - size and stride == 1 and size:
        part = _rows(trace, at, int(first), size)
        if part is not None:
            return part
    return trace.but_not(call.where).with_dimension(at, disordered(size, axes_of(dimension)))


def _rows(trace: Trace, at: int, start: int, size: int) -> Trace | None:
    """That of some cells along a dimension of several factors; None where they are no cells of one of these."""
    dimension = trace.dimensions[at]
    rows = cells_of(dimension)
    for number, factor in enumerate(dimension):
        rows //= factor.size
        if size < rows:
            continue
        index, place = divmod(start // rows, factor.size)
        count = size // rows
        before = dimension[:number]
        if start % rows or size % rows or place + count > factor.size:
            return None
        if any(one.axes and one.span is None for one in (*before, factor)):
            return None
        part = replace(factor, size=count, span=factor.span and factor.span.window(place, place, 1))
        if any(one.uneven and one.size > 1 for one in before) or (factor.uneven and count < factor.size):
            trace = trace.at_most(trace.axes)
        # One cell of each of the factors before.
        spans = _spans_at(before, index)
        return trace.with_dimension(at, (part, *dimension[number + 1 :])).fixed_at(spans, "aten.slice")
    return None


def _spans_at(dimension: Dimension, index: int) -> list[tuple[int, Span]]:
    """What the cell at `index` of a dimension depends on."""
    spans = []
    for factor in reversed(dimension):
        index, place = divmod(index, factor.size)
        if factor.span is not None:
            spans.append((min(factor.axes), factor.span.window(place, place, 0)))
    return spans


def _convolution(call: Call) -> Trace:
    taps = call.given["weight"].shape[2:]
    return _slid(call, _channels(call, len(call.main.dimensions) - len(taps) - 1), taps)


def _pool(call: Call) -> Trace:
    return _slid(call, call.main, call.numbers("kernel_size", _axes_in(call.name)))


def _axes_in(name: str) -> int:
    found = re.search(r"(\d)d", name)
    assert found is not None
    return int(found[1])


def _slid(call: Call, trace: Trace, taps: Sequence[int]) -> Trace:
    """That of an output whose cells read `taps` cells along the last axes."""
    axes = len(taps)
    strides, dilations = call.numbers("stride", axes, taps), call.numbers("dilation", axes, 1)
    paddings = call.numbers("padding", axes)
    for at, cells, stride, padding, dilation in zip(range(-axes, 0), taps, strides, paddings, dilations, strict=True):
        reach = dilation * (cells - 1)
        if call.given.get("transposed"):
            first, last = Fraction(padding - reach, stride), Fraction(padding, stride)
            trace = _windowed(call, trace, at, first, last, Fraction(1, stride), exact=stride == 1)
        else:
            trace = _windowed(call, trace, at, -padding, reach - padding, stride)
    return trace


def _channels(call: Call, at: int) -> Trace:
    """That of a convolution's output, but for the windows: each channel reads those of its group."""
    shape, channels, groups = call.inputs[0].shape, call.shape[at], call.given["groups"]
    dimension = call.main.dimensions[at]
    if groups == 1 or not axes_of(dimension):
        uneven = groups > 1 and any(factor.uneven for factor in dimension)
        return call.main.pooled([at], call.module).with_dimension(at, (Factor(channels, uneven=uneven),))
    # A video's frames among the channels, say.
    trace = call.main.reshaped([*shape[:at], groups, shape[at] // groups, *shape[at + 1 :]], call.where)
    trace = trace.pooled([at + 1], call.module).with_dimension(at + 1)
    return trace.with_dimension(at, (*trace.dimensions[at], Factor(channels // groups)))


def _resized(call: Call) -> Trace:
    """That of adaptive pooling and of enlarged maps, whose cell `i` is around cell `i * ratio` of the input."""
    trace = call.main
    for at in range(-_axes_in(call.name), 0):
        ratio = Fraction(call.inputs[0].shape[at], call.shape[at])
        exact = ratio.denominator == 1
        if "pool" in call.name:
            if call.shape[at] == 1:
                trace = trace.pooled([at], call.module)
                continue
            # From floor(i * ratio) to ceil((i + 1) * ratio) - 1.
            first, last = (Fraction(0), ratio - 1) if exact else (Fraction(-1), ratio)
        elif ratio == 1:
            continue
        elif "nearest" in call.name:
            first, last, exact = Fraction(1, ratio.denominator) - 1, Fraction(0), False  # floor(i * ratio)
        else:
            # Around (i + 0.5) * ratio - 0.5 or i * ratio. align_corners has another ratio, (before - 1) / (after - 1):
            # at most a cell off at the last.
            shift = (ratio - 1) / 2
            reach = ("bicubic" in call.name) + 1 + bool(call.given.get("align_corners"))
            first, last, exact = min(shift, Fraction(0)) - reach, max(shift, Fraction(0)) + reach, False
        trace = _windowed(call, trace, at, first, last, ratio, exact)
    return trace


def _padded(call: Call) -> Trace:
    trace = call.main
    pads = call.given.get("pad") or call.given["padding"]
    for at, before in enumerate(pads[::2], start=1):
        trace = _windowed(call, trace, -at, -before, -before, 1)
    return trace


def _sliced(call: Call) -> Trace:
    (at,) = call.dimensions("dim")
    before, after, dimension = call.inputs[0].shape[at], call.shape[at], call.main.dimensions[at]
    if after == before:
        return call.main
    spatial = [factor for factor in dimension if factor.axes]
    if len(spatial) == 1 and spatial[0].span is None:
        # Tokens without the class's: still all of the map, though its order is lost.
        (factor,), dropped = spatial, before - after
        complete = factor.complete and dropped <= factor.others
        left = Factor(after, factor.axes, None, complete, max(factor.others - dropped, 0))
        return (call.main if complete else call.main.but_not(call.where)).with_dimension(at, (left,))
    start = call.given["start"] or 0
    start = max(start + before, 0) if start < 0 else start
    return _windowed(call, call.main, at, start, start, call.given["step"])


def _parts(call: Call) -> list[Trace]:
    """Those of the parts into which a tensor is taken apart."""
    (at,) = call.dimensions("dim")
    if any(factor.axes and factor.span is None for factor in call.main.dimensions[at]):
        return [call.main.lost(output.shape, call.where) for output in call.outputs]
    if call.name == "select":
        return [_cell(call.main, at, call.given["index"] % call.inputs[0].shape[at])]
    if call.name == "unbind":
        return [_cell(call.main, at, index) for index in range(len(call.outputs))]
    sizes = [output.shape[at] for output in call.outputs]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [_windowed(call, call.main, at, n, n, 1, size=size) for n, size in zip(starts, sizes, strict=True)]


def _cell(trace: Trace, at: int, index: int) -> Trace:
    """That of one cell along a dimension, which has no dimension any more."""
    spans = _spans_at(trace.dimensions[at], index)
    if any(factor.uneven and factor.size > 1 for factor in trace.dimensions[at]):
        trace = trace.at_most(trace.axes)
    return trace.with_dimension(at).fixed_at(spans, "aten.select")


def _laid(call: Call) -> Trace:
    """That of tensors laid end to end: along an axis of the map they may be parts of one map, such as its frames."""
    (at,) = call.dimensions("dim")
    if call.name == "stack":
        traces = [
            replace(trace, dimensions=(*trace.dimensions[:at], (Factor(1),), *trace.dimensions[at:]))
            for trace in call.traces(call.inputs)
        ]
        sizes = [1] * len(traces)
    else:
        tensors = [tensor for tensor in call.inputs if tensor.numel()]
        traces, sizes = call.traces(tensors), [tensor.shape[at] for tensor in tensors]
    size = call.shape[at]
    traces = _single_cells_fixed(traces, at)
    differ = _differing(traces)
    parts = [trace.dimensions[at] for trace in traces]
    own = union(map(axes_of, parts))
    # Each depends on pixels of its own along an axis that is no dimension any more.
    fixed = [dict(trace.fixed) for trace in traces]
    moving = {axis for one in fixed for axis, span in one.items() if fixed[0].get(axis) != span}
    axes = own | moving

    kept = [replace(trace, fixed=frozenset(pair for pair in trace.fixed if pair[0] not in axes)) for trace in traces]
    uneven = not axes and (bool(differ) or any(factor.uneven for part in parts for factor in part))
    rest = [trace.with_dimension(at, (Factor(size, uneven=uneven),)) for trace in kept]
    joint = joined(rest, call.shape, call.where)
    if not axes:
        # Who reads all of them reads what any of them reads; but some of them alone may read less.
        return joint.at_most({axis for axis in differ if _is_one_cell(traces, axis)})
    # Cells at different places may read differently along other axes.
    joint = joint.at_most(differ - axes)
    if all(axes & trace.axes or not trace.depends for trace in traces):
        dimension = _dimension_of(traces, parts, sizes, own, moving)
        if dimension is not None:
            return joint.with_dimension(at, dimension)
    # Tokens of a map and of classes, say: their order is lost, but the map is among them as a whole.
    complete = any(axes_of(part) and all(factor.covers for factor in part) for part in parts)
    others = sum(size for size, part in zip(sizes, parts, strict=True) if not axes_of(part))
    others += sum(factor.others for part in parts for factor in part)
    return joint.but_not(call.where).with_dimension(at, (Factor(size, axes, None, complete, others),))


def _dimension_of(
    traces: Sequence[Trace],
    parts: Sequence[Dimension],
    sizes: Sequence[int],
    own: frozenset[int],
    moving: set[int],
) -> Dimension | None:
    """The dimension that parts laid end to end make, or None."""
    plain = set(sizes) == {1} or not moving
    axes = own | moving if plain else frozenset(moving)
    if len(axes) != 1:
        return None
    (axis,) = axes
    spans = [trace.spans().get(axis) for trace in traces]
    if plain:
        if any(len(part) > 1 and factor.size > 1 for part in parts for factor in part):
            return None
        span = end_to_end(list(zip(sizes, spans, strict=True)))
        return None if span is None else (Factor(sum(sizes), axes, span),)
    # As many cells in each: the parts are a factor, the cells of each are others.
    inner = {part if own else (Factor(sizes[0]),) for part, trace in zip(parts, traces, strict=True) if trace.depends}
    span = end_to_end([(1, span) for span in spans])
    if len(set(sizes)) > 1 or len(inner) > 1 or axis in own or span is None:
        return None
    return (Factor(len(parts), axes, span), *inner.pop())


def _differing(traces: Sequence[Trace]) -> set[int]:
    """Axes along which tensors do not depend on the same pixels of the image at the same place."""
    spans = [trace.spans() for trace in traces if trace.depends]
    axes = set[int]().union(*spans)
    return {axis for axis in axes if len({(one[axis].low, one[axis].high) for one in spans if axis in one}) > 1}


def _is_one_cell(traces: Sequence[Trace], axis: int) -> bool:
    """Whether tensors hold a cell each, around different pixels, of an axis."""
    sizes = {f.size for trace in traces for dimension in trace.dimensions for f in dimension if axis in f.axes}
    spans = [span for trace in traces if (span := trace.spans().get(axis)) is not None]
    return sizes == {1} and len({span.low + span.high for span in spans}) > 1


def _single_cells_fixed(traces: list[Trace], at: int) -> list[Trace]:
    """With an axis of which each tensor holds one cell, such as its frame, no dimension, but fixed."""
    for axis in sorted(_differing(traces)):
        if not _is_one_cell(traces, axis) or any(axis in axes_of(trace.dimensions[at]) for trace in traces):
            continue
        if end_to_end([(1, trace.spans().get(axis)) for trace in traces]) is None:
            continue
        fixed = []
        for trace in traces:
            span = trace.spans().get(axis)
            dimensions = tuple(tuple(f for f in dimension if axis not in f.axes) for dimension in trace.dimensions)
            pairs = {one for one in trace.fixed if one[0] != axis}
            pairs |= set() if span is None else {(axis, span.window(0, 0, 0))}
            fixed.append(replace(trace, dimensions=dimensions, fixed=frozenset(pairs)))
        traces = fixed
    return traces


def _permuted(call: Call) -> Trace:
    order = list(range(len(call.main.dimensions)))
    if call.name == "permute":
        order = call.dimensions("dims")
    else:
        one, other = (0, -1) if call.name == "t" else (call.given["dim0"], call.given["dim1"])
        order[one], order[other] = order[other], order[one]
    return replace(call.main, dimensions=tuple(call.main.dimensions[place] for place in order))


def _reshaped(call: Call) -> Trace:
    return call.main.reshaped(call.shape, call.where)


def _reduced(call: Call) -> Trace:
    over = call.dimensions("dim")
    trace = call.main.pooled(over, call.module)
    for at in sorted(over, reverse=True) if not call.given.get("keepdim", False) else []:
        trace = trace.with_dimension(at)
    return trace


def _mirrored(call: Call) -> Trace:
    trace = call.main
    for at in call.dimensions("dims"):
        last = call.shape[at] - 1
        trace = _windowed(call, trace, at, last, last, -1)
    return trace


def _mixed(over: Callable[[Call], Iterable[int]]) -> Rule:
    """The rule of an operation whose elements depend on all of some dimensions."""
    return lambda call: call.main.mixed(over(call), call.module)


def _of_batch(call: Call) -> list[int]:
    training = call.given.get("training", "no_training" not in call.name)
    return [at for at in range(len(call.main.dimensions)) if at != 1] if training else []


def _product(call: Call) -> Trace:
    *added, one, other = (value for value in call.given.values() if isinstance(value, Tensor))
    factors = [trace.pooled([-place], call.module) for place, trace in enumerate(call.traces([one, other]), start=1)]
    return joined([*factors, *call.traces(added)], call.shape, call.where)


def _attention(call: Call) -> Trace:
    named = [call.given[name] for name in ("query", "key", "value")]
    query, *others = call.traces(named)
    # The query's tokens are not mixed with each other: each reads all keys and values.
    traces = [trace.pooled([-1], call.module) for trace in (query, *(one.pooled([-2], call.module) for one in others))]
    rest = everything(call.traces(tensor for tensor in call.inputs if not any(tensor is one for one in named)))
    trace = joined(traces, call.shape, call.where)
    trace = trace.but_not(*rest.unknown, *([call.where] if rest.axes else []))
    return replace(trace, whole=trace.whole | rest.whole)


# Operations, as in `aten.NAME`. These make a tensor that only has the shape of another, or take a tensor apart.
_FRESH = re.compile(r"(zeros|ones|empty|full|rand|randn)_like|new_(zeros|ones|empty|full)")
_PARTS = re.compile(r"unbind|select|(unsafe_)?(split|chunk)|split_with_sizes")
# Rules of what depends on the first tensor alone; if the others were made of the image, that is not followed.
_RULES: dict[str, Rule] = {
    r"_?convolution": _convolution,
    r"max_pool2d|max_pool[23]d_with_indices|avg_pool\dd": _pool,
    r"_?adaptive_(avg|max)_pool\dd|upsample_(nearest\dd|linear1d|bilinear2d|bicubic2d|trilinear3d)": _resized,
    # Borders of the image are left out, whatever is there.
    r"constant_pad_nd|(reflection|replication)_pad\dd": _padded,
    r"slice": _sliced,
    r"permute|transpose|t": _permuted,
    r"flip": _mirrored,
    r"(_unsafe_)?view|reshape|_reshape_alias|(un)?squeeze|(un)?flatten": _reshaped,
    r"mean|sum|prod|a?max|a?min|(var|std)(_mean)?|logsumexp|(linalg_vector_)?norm": _reduced,
    r"_?softmax|_safe_softmax|_log_softmax|cumsum": _mixed(lambda call: call.dimensions("dim")),
    r"native_layer_norm|_fused_rms_norm": _mixed(lambda call: range(-len(call.given["normalized_shape"]), 0)),
    r"native_group_norm": _mixed(lambda call: range(1, len(call.main.dimensions))),
    r"native_batch_norm|_native_batch_norm_legit(_no_training)?": _mixed(_of_batch),
}
_RULES_FOR_ALL_INPUTS: dict[str, Rule] = {
    r"cat|stack": _laid,
    r"(add|b|baddb)?mm": _product,
    r"_scaled_dot_product\w*": _attention,
    r"expand|clone|detach|alias|_to_copy|lift_fresh|contiguous|copy|native_dropout|fill": Call.joined,
    # Pointwise, though torch does not say so.
    r"hard(swish|sigmoid|tanh)|mish|threshold|rrelu_with_noise|prelu_kernel": Call.joined,
}
