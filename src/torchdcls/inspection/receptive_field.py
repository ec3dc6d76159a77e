"""How many pixels the centre of a model's last map depends on.

The model is run once, and every operation of torch tells of its output which pixels a cell can depend on, by the
textbook's recursion: a window of `k` cells at stride `s` on cells that lie `j` pixels apart and see `r` of them sees
`r + (k - 1) j`, and its cells lie `s j` apart. Where branches meet, the pixels of both count. Numbers of weights and
pixels play no part: it is what a cell could depend on, not what it does after training, and pixels beyond the image's
borders count too. What reads a whole map at once, such as attention, squeeze-and-excitation, or a group norm, makes it
the whole image; what is not followed, such as the windows of a Swin transformer, makes it unknown, never a guess. An
axis may be folded into another, as a video's frames are into the batch, or be taken apart and put together again.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import _checks
from .traces import Dimension, Factor, Span, Trace, end_to_end, joined


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels that the centre of the last map, before anything is pooled to a vector, depends on.

    Attributes:
        size: Pixels along each axis, borders of the image left out; None where it is the whole image, or unknown.
        local: The same if nothing read a whole map, where that is known.
        exact: Whether all cells depend on as many pixels; else it is the most, as where a map is enlarged. False where
            operations that matter were not followed.
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
        output = model(*inputs)
    return follower.field(output)


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what tensors depend on while it is entered."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = max(image.dim() - 2, 0)
        first = tuple((Factor(size),) for size in image.shape[:2])
        axes = tuple((Factor(n, frozenset({axis}), Span(image=n)),) for axis, n in enumerate(image.shape[2:]))
        self.last = Trace(first + axes)
        self.memory: dict[int, _Memory] = {}
        self.keep(image, self.last, written=False)
        self.modules: list[str] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """A module starts."""
        self.modules.append(type(module).__name__)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module ends."""
        self.modules.pop()

    def field(self, output: Any) -> ReceptiveField:
        """What the last map depends on: the model's output where it is one."""
        traces = [self.trace(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        trace = next((trace for trace in reversed(traces) if trace.map_axes), self.last)
        unknown = trace.unknown
        if traces and not any(trace.depends for trace in traces):
            unknown |= {"an output that torch's operations did not make of the input"}
        spanned = [axis for factors in trace.dimensions for factor in factors if factor.span for axis in factor.axes]
        if len(spanned) != len(set(spanned)):
            unknown |= {"cells that belong to two places of the map"}
        spans, whole = trace.spans(), {axis for axis, _ in trace.whole}
        known = len(spans) == self.count
        return ReceptiveField(
            size=tuple(
                None if axis in whole or axis not in spans else spans[axis].pixels for axis in range(self.count)
            ),
            local=tuple(spans[axis].pixels for axis in range(self.count)) if known and not unknown else None,
            exact=self.count > 0 and not unknown and all(span.exact for span in spans.values()),
            whole=tuple(sorted({by for _, by in trace.whole})),
            # Nothing can be more than the whole image.
            unknown=() if len(whole) == self.count else tuple(sorted(unknown)),
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, then says what its outputs depend on."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = {id(tensor): self.trace(tensor) for tensor in inputs}
        if not any(trace.depends for trace in before.values()):
            return func(*args, **kwargs)
        changed = {id(tensor) for tensor in _changed(func, args, kwargs)}
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        names = [argument.name for argument in func._schema.arguments]
        given = {argument.name: argument.default_value for argument in func._schema.arguments}
        given |= {**dict(zip(names, args, strict=False)), **kwargs}
        module = self.modules[-1] if self.modules else "the model"
        call = Call(func, given, inputs, outputs, before, module)
        for output, trace in zip(outputs, follow(call), strict=True):
            self.keep(output, trace, written=id(output) in changed)
            self.note(self.trace(output))
        for tensor in inputs:  # changed, but not returned
            if id(tensor) in changed - {id(output) for output in outputs}:
                self.keep(tensor, _everything(before.values()).lost(tensor.shape, call.where), written=True)
        return result

    def keep(self, tensor: Tensor, trace: Trace, written: bool) -> None:
        """Notes what a tensor depends on."""
        storage = tensor.untyped_storage()
        memory = self.memory.setdefault(storage._cdata, _Memory(StorageWeakRef(storage), {}))  # type: ignore[no-untyped-call]
        place = _place(tensor)
        if not written:
            memory.traces.setdefault(place, trace)
        elif trace != self.trace(tensor):
            # Whoever reads the same memory in another way reads what was written too.
            if tensor.numel() * tensor.element_size() < storage.nbytes():
                memory.parts = _everything([*memory.traces.values(), trace])
            memory.traces = {place: trace}

    def note(self, trace: Trace) -> None:
        """Takes a tensor for the last map, if it is one."""
        there, last = trace.map_axes, self.last.spans()
        # Where some axes are pooled, it is the way to a vector, unless more is read along the others.
        more = any(span.pixels > last[axis].pixels for axis, span in trace.spans().items() if axis in there & set(last))
        if len(there) == self.count or (there and (more or trace.unknown - self.last.unknown)):
            self.last = trace

    def trace(self, tensor: Tensor) -> Trace:
        """What a tensor depends on; nothing where it was not made from the image."""
        memory = self.memory.get(tensor.untyped_storage()._cdata)
        if memory is None:
            return _nothing(tensor)
        if memory.parts is not None:
            return memory.parts.lost(tensor.shape, "a tensor filled part by part")
        found = memory.traces.get(_place(tensor))
        if found is None:
            return _everything(memory.traces.values()).lost(tensor.shape, "memory that is read in two ways")
        return found


@dataclass
class _Memory:
    """What the tensors in one piece of memory depend on.

    Tensors are known by it, and not as objects: `x.data` and what `torch.vmap` hands on are other objects each time.

    Attributes:
        storage: Held weakly, so that its place is not another's.
        traces: By where the elements are.
        parts: What all elements together depend on, once some were written to through a view of them alone.
    """

    storage: StorageWeakRef
    traces: dict[Any, Trace]
    parts: Trace | None = None


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.is_conj()


def _changed(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    written = [
        given.get(argument.name)
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor)]


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

    @property
    def where(self) -> str:
        """Name and module, for what is unknown."""
        return f"aten.{self.name} in {self.module}"

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
        return joined([self.before[id(tensor)] for tensor in self.inputs], shape, self.where)


def follow(call: Call) -> list[Trace]:
    """What the outputs of an operation depend on."""
    rule = _RULES.get(call.name)
    if call.name.startswith("_scaled_dot_product"):
        rule = _attention
    if call.name in _PARTS:
        return _parts(call)
    if call.name in _FRESH:
        return [_nothing(output) for output in call.outputs]
    if rule is not None:
        trace = rule(call)
        if rule not in _READ_ALL:
            # Weights that were made from the image, say.
            others = [call.before[id(tensor)] for tensor in call.inputs[1:]]
            given = _everything(others)
            unknown = given.unknown | ({call.where} if given.axes else set())
            trace = replace(trace, whole=trace.whole | given.whole, unknown=trace.unknown | unknown)
    elif torch.Tag.pointwise in call.func.tags:
        trace = call.joined()
    else:
        return [_everything(call.before.values()).lost(output.shape, call.where) for output in call.outputs]
    # Beside the first output there is what nobody reads, such as a norm's saved statistics.
    return [trace if output.shape == call.outputs[0].shape else _nothing(output) for output in call.outputs]


def _nothing(tensor: Tensor) -> Trace:
    return Trace(tuple((Factor(size),) for size in tensor.shape))


def _everything(traces: Iterable[Trace]) -> Trace:
    """That of one element that depends on all elements of several tensors, along axes whose pixels are not known."""
    traces = list(traces)
    axes = frozenset[int]().union(*(trace.axes for trace in traces))
    whole = frozenset[tuple[int, str]]().union(*(trace.whole for trace in traces))
    unknown = frozenset[str]().union(*(trace.unknown for trace in traces))
    return Trace(((Factor(1, axes, None, False),),), whole, unknown)


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
    size: int | None = None,
) -> Trace:
    """That of an output whose cells along a dimension, `size` of them, read a window of cells."""
    size, dimension = call.outputs[0].shape[at] if size is None else size, trace.dimensions[at]
    cells = math.prod(factor.size for factor in dimension)
    spatial = [factor for factor in dimension if factor.axes]
    if (first, last, stride, size) == (0, 0, 1, cells):
        return trace
    if not spatial:
        uneven = any(factor.uneven for factor in dimension)
        if size < cells and uneven:  # perhaps those alone that read less
            trace = trace.at_most(trace.axes)
        return trace.with_dimension(at, (Factor(size, uneven=uneven),))
    if len(spatial) == 1 and spatial[0].span is not None and spatial[0].size == cells:
        span = spatial[0].span.window(first, last, stride, exact)
        return trace.with_dimension(at, (replace(spatial[0], size=size, span=span),))
    if first == last and first == int(first) and 0 <= first <= cells - size and stride == 1 and size:
        part = _rows(trace, at, int(first), size)
        if part is not None:
            return part
    axes = frozenset[int]().union(*(factor.axes for factor in spatial))
    trace = replace(trace, unknown=trace.unknown | {call.where})
    return trace.with_dimension(at, (Factor(size, axes, None, False),))


def _rows(trace: Trace, at: int, start: int, size: int) -> Trace | None:
    """That of some cells along a dimension of several factors; None where they are no cells of one of these."""
    dimension = trace.dimensions[at]
    rows = math.prod(factor.size for factor in dimension)
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
        part = replace(factor, size=count)
        if factor.span is not None:
            part = replace(part, span=factor.span.window(place, place, 1))
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


def _spread(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _convolution(call: Call) -> Trace:
    weight: Tensor = call.given["weight"]
    axes = weight.dim() - 2
    start = len(call.main.dimensions) - axes
    trace = _channels(call, start - 1)
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


def _channels(call: Call, at: int) -> Trace:
    """That of a convolution's output, but for the windows: each channel reads those of its group."""
    shape, channels, groups = list(call.inputs[0].shape), call.outputs[0].shape[at], call.given["groups"]
    if groups == 1 or not _has_axes(call.main.dimensions[at]):
        uneven = groups > 1 and any(factor.uneven for factor in call.main.dimensions[at])
        return call.main.pooled([at], call.module).with_dimension(at, (Factor(channels, uneven=uneven),))
    # A video's frames among the channels, say.
    trace = call.main.reshaped([*shape[:at], groups, shape[at] // groups, *shape[at + 1 :]], call.where)
    trace = trace.pooled([at + 1], call.module).with_dimension(at + 1)
    return trace.with_dimension(at, (*trace.dimensions[at], Factor(channels // groups)))


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
            trace = trace.pooled([at], call.module)
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
    (factor, *more) = [factor for factor in call.main.dimensions[at] if factor.axes] or [Factor(before)]
    if factor.axes and factor.span is None and not more:
        # Tokens without the class's: still all of the map, though its order is lost.
        dropped = before - call.outputs[0].shape[at]
        complete = factor.complete and dropped <= factor.others
        left = Factor(before - dropped, factor.axes, None, complete, max(factor.others - dropped, 0))
        trace = call.main if complete else replace(call.main, unknown=call.main.unknown | {call.where})
        return trace.with_dimension(at, (left,))
    return _windowed(call, call.main, at, start, start, call.given["step"])


def _parts(call: Call) -> list[Trace]:
    """Those of the parts into which a tensor is taken apart."""
    (at,) = _dimensions(call.given["dim"], len(call.main.dimensions))
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


def _joined_end_to_end(call: Call) -> Trace:
    tensors = [tensor for tensor in call.inputs if tensor.numel()]
    (at,) = _dimensions(call.given["dim"], len(call.outputs[0].shape))
    return _laid(call, at, [call.before[id(tensor)] for tensor in tensors], [tensor.shape[at] for tensor in tensors])


def _stacked(call: Call) -> Trace:
    (at,) = _dimensions(call.given["dim"], len(call.outputs[0].shape))
    traces = [call.before[id(tensor)] for tensor in call.inputs]
    with_one = [replace(t, dimensions=(*t.dimensions[:at], (Factor(1),), *t.dimensions[at:])) for t in traces]
    return _laid(call, at, with_one, [1] * len(traces))


def _laid(call: Call, at: int, traces: Sequence[Trace], sizes: Sequence[int]) -> Trace:
    """That of tensors laid end to end: along an axis of the map they may be parts of one map, such as its frames."""
    shape = call.outputs[0].shape
    traces = _single_cells_fixed(traces, at)
    differ = _differing(traces)
    own = frozenset[int]().union(*(factor.axes for trace in traces for factor in trace.dimensions[at]))
    # Each depends on pixels of its own along an axis that is no dimension any more.
    fixed = [dict(trace.fixed) for trace in traces]
    moving = {axis for one in fixed for axis, span in one.items() if fixed[0].get(axis) != span}
    axes = own | moving
    if not axes:
        # Who reads all of them reads what any of them reads; but some of them alone may read less.
        plain = Factor(shape[at], uneven=bool(differ) or any(f.uneven for t in traces for f in t.dimensions[at]))
        joint = joined([trace.with_dimension(at, (plain,)) for trace in traces], shape, call.where)
        return joint.at_most({axis for axis in differ if _is_one_cell(traces, axis)})
    parts = [trace.dimensions[at] for trace in traces]
    rest = [
        replace(trace, fixed=frozenset(pair for pair in trace.fixed if pair[0] not in axes)).with_dimension(
            at, (Factor(shape[at]),)
        )
        for trace in traces
    ]
    # Cells at different places may read differently along other axes.
    joint = joined(rest, shape, call.where).at_most(differ - axes)
    if all(axes & trace.axes or not trace.depends for trace in traces):
        dimension = _dimension_of(traces, parts, sizes, own, moving)
        if dimension is not None:
            return joint.with_dimension(at, dimension)
    # Tokens of a map and of classes, say: their order is lost, but the map is among them as a whole.
    complete = any(_has_axes(part) and all(factor.covers for factor in part) for part in parts)
    others = sum(size for size, part in zip(sizes, parts, strict=True) if not _has_axes(part))
    others += sum(factor.others for part in parts for factor in part)
    joint = replace(joint, unknown=joint.unknown | {call.where})
    return joint.with_dimension(at, (Factor(shape[at], axes, None, complete, others),))


def _dimension_of(
    traces: Sequence[Trace],
    parts: Sequence[Dimension],
    sizes: Sequence[int],
    own: frozenset[int],
    moving: set[int],
) -> Dimension | None:
    """The dimension that parts laid end to end make, or None."""
    plain = set(sizes) == {1} or not moving
    axes = own | moving if plain else moving
    if len(axes) != 1:
        return None
    (axis,) = axes
    spans = [trace.spans().get(axis) for trace in traces]
    if plain:
        if any(len(part) > 1 and factor.size > 1 for part in parts for factor in part):
            return None
        span = end_to_end(list(zip(sizes, spans, strict=True)))
        return None if span is None else (Factor(sum(sizes), frozenset(axes), span),)
    # As many cells in each: the parts are a factor, the cells of each are others.
    inner = {part if own else (Factor(sizes[0]),) for part, trace in zip(parts, traces, strict=True) if trace.depends}
    span = end_to_end([(1, span) for span in spans])
    if len(set(sizes)) > 1 or len(inner) > 1 or axis in own or span is None:
        return None
    return (Factor(len(parts), frozenset(axes), span), *inner.pop())


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


def _single_cells_fixed(traces: Sequence[Trace], at: int) -> Sequence[Trace]:
    """With an axis of which each tensor holds one cell, such as its frame, no dimension, but fixed."""
    for axis in sorted(_differing(traces)):
        if not _is_one_cell(traces, axis) or any(axis in f.axes for trace in traces for f in trace.dimensions[at]):
            continue
        if end_to_end([(1, trace.spans().get(axis)) for trace in traces]) is None:
            continue
        fixed = []
        for trace in traces:
            span = trace.spans().get(axis)
            dimensions = tuple(tuple(f for f in dimension if axis not in f.axes) for dimension in trace.dimensions)
            pairs = {one for one in trace.fixed if one[0] != axis}
            if span is not None:
                pairs.add((axis, span.window(0, 0, 0)))
            fixed.append(replace(trace, dimensions=dimensions, fixed=frozenset(pairs)))
        traces = fixed
    return traces


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
    return call.main.reshaped(call.outputs[0].shape, call.where)


def _reduced(call: Call) -> Trace:
    over = _dimensions(call.given.get("dim"), len(call.main.dimensions))
    trace = call.main.pooled(over, call.module)
    if not call.given.get("keepdim", False):
        for at in sorted(over, reverse=True):
            trace = trace.with_dimension(at)
    return trace


def _mirrored(call: Call) -> Trace:
    trace = call.main
    for at in _dimensions(call.given["dims"], len(trace.dimensions)):
        if not _has_axes(trace.dimensions[at]):
            continue
        (factor, *more) = trace.dimensions[at]
        if more or factor.span is None:
            return trace.lost(call.outputs[0].shape, call.where)
        last = factor.size - 1
        trace = trace.with_dimension(at, (replace(factor, span=factor.span.window(last, last, -1)),))
    return trace


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
    traces = [call.trace(one).pooled([-1], call.module), call.trace(other).pooled([-2], call.module)]
    if call.name in ("addmm", "baddbmm"):
        traces.append(call.trace("self"))
    return joined(traces, call.outputs[0].shape, call.where)


def _attention(call: Call) -> Trace:
    query = call.trace("query")
    # The query's tokens are not mixed with each other: each reads all keys and values.
    others = [call.trace(name).pooled([-2], call.module) for name in ("key", "value")]
    traces = [trace.pooled([-1], call.module) for trace in (query, *others)]
    named = [call.given[name] for name in ("query", "key", "value")]
    rest = _everything(call.before[id(tensor)] for tensor in call.inputs if not any(tensor is one for one in named))
    trace = joined(traces, call.outputs[0].shape, call.where)
    unknown = trace.unknown | rest.unknown | ({call.where} if rest.axes else set())
    return replace(trace, whole=trace.whole | rest.whole, unknown=unknown)


_PARTS = ("unbind", "split", "split_with_sizes", "chunk", "select", "unsafe_split", "unsafe_chunk")
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
    "flip": _mirrored,
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
