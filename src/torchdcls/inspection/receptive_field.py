"""How many pixels the centre of a model's last map depends on.

The model is run once, and every operation of torch tells of its output which pixels a cell can depend on, by the
textbook's recursion: a window of `k` cells at stride `s` on cells that lie `j` pixels apart and see `r` of them sees
`r + (k - 1) j`, and its cells lie `s j` apart. Where branches meet, the pixels of both count. Numbers of weights and
pixels play no part: it is what a cell could depend on, not what it does after training, and pixels beyond the image's
borders count too. What reads a whole map at once, such as attention, squeeze-and-excitation, or a group norm, makes it
the whole image; what is not followed, such as the windows of a Swin transformer, makes it unknown, never a guess. An
axis may be folded into another, as a video's frames are into the batch, or be taken apart and put together again.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from .. import _checks
from ..ops.tracing import TorchDispatchMode, tree_leaves
from .rules import Call, everything, follow, independent
from .traces import Factor, Span, Trace


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
        ValueError: There is no input.
        TypeError: The model is no module, or the first input no tensor.

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
        self.modules = ["the model"]

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
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        arguments = func._schema.arguments
        given = {argument.name: argument.default_value for argument in arguments}
        given |= {**dict(zip(given, args, strict=False)), **kwargs}
        written = [given[one.name] for one in arguments if one.alias_info is not None and one.alias_info.is_write]
        changed = {id(leaf) for leaf in tree_leaves(written) if isinstance(leaf, Tensor)}
        name, pointwise = func._schema.name.partition("::")[2].rstrip("_"), torch.Tag.pointwise in func.tags
        call = Call(name, pointwise, given, inputs, outputs, before, self.modules[-1])
        for output, trace in zip(outputs, follow(call), strict=True):
            self.keep(output, trace, written=id(output) in changed)
            self.note(self.trace(output))
        for tensor in inputs:  # changed, but not returned
            if id(tensor) in changed - {id(output) for output in outputs}:
                self.keep(tensor, everything(before.values()).lost(tensor.shape, call.where), written=True)
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
                memory.parts = everything([*memory.traces.values(), trace])
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
            return independent(tensor)
        if memory.parts is not None:
            return memory.parts.lost(tensor.shape, "a tensor filled part by part")
        found = memory.traces.get(_place(tensor))
        if found is None:
            return everything(memory.traces.values()).lost(tensor.shape, "memory that is read in two ways")
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
