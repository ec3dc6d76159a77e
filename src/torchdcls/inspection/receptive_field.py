"""How many pixels the center of a model's last feature map depends on.

The model is run once. For each element of every tensor, and each axis of the image, the first and the last pixel that
the element depends on are kept (`reach.py`). Views of memory view them in the same way; other operations have rules
(`rules.py`): windows over cells, and the union where branches meet. Values of weights and pixels play no part: the
result is what a cell can depend on, not what it does after training, and pixels beyond the image's borders count too.
Operations that read a whole feature map, such as attention, squeeze-and-excitation or a group norm, make it the whole
image. Operations that are not followed, such as a Fourier transform, make it unknown, never a guess.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .. import _checks
from ..ops.tracing import TorchDispatchMode, memory_key, schema, tree_leaves
from .reach import Reach, everything, independent, together
from .rules import Call, follow


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels that the center of the last feature map before pooling depends on.

    Attributes:
        size: Pixels along each axis, whatever the borders of the image; None where it is the whole image, or unknown.
        local: The size without modules that read a whole feature map, where it is known.
        exact: Whether all cells depend on as many pixels. Otherwise the size is the largest, for example where a
            feature map is enlarged by weighing neighbors. False where operations that matter were not followed.
        whole: Types of the modules that read a whole feature map.
        unknown: Operations that were not followed and matter.
    """

    size: tuple[int | None, ...]
    local: tuple[int, ...] | None
    exact: bool
    whole: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        if self.size and not any(self.size) and self.whole and not self.unknown:
            local = "" if self.local is None else f"; {self._pixels(self.local)} without them"
            return f"whole image ({', '.join(self.whole)}{local})"
        if self.unknown or not self.size:
            return f"not known ({', '.join(self.unknown) or 'the model returns no feature map'})"
        return self._pixels(self.size)

    def _pixels(self, size: Sequence[int | None]) -> str:
        return ("" if self.exact else "at most ") + " x ".join("whole" if n is None else f"{n:,}" for n in size)


def receptive_field(model: nn.Module, *inputs: Tensor) -> ReceptiveField:
    """The receptive field of a model of plain torch layers; the model is run once, without gradient.

    Args:
        model: The model, which may be on the meta device. In training mode batch norms make the receptive field the
            whole image.
        inputs: Its arguments; the first has axes (batch, channels, *map).

    Returns:
        The receptive field of the last tensor that is a feature map.

    Raises:
        ValueError: There is no input.
        TypeError: `model` is not a module, or the first input is not a tensor.

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
    # What is computed here has values, wherever the model is made and run.
    with torch.device("cpu"):
        follower = Follower(inputs[0])
    entered, left = register_module_forward_pre_hook(follower.enter), register_module_forward_hook(follower.leave)
    with torch.no_grad(), follower, entered, left:
        output = model(*inputs)
    with torch.device("cpu"):
        return follower.field(output)


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what tensors depend on while it is entered."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.image = image.shape[2:]
        self.memory: dict[int, _Memory] = {}
        self.modules = ["the model"]
        # Along each axis a cell depends on itself.
        places = [torch.arange(size, dtype=torch.float32) for size in self.image]
        first = independent(image.shape, 0)
        if places:
            own = torch.stack(torch.meshgrid(places, indexing="ij"))
            first = Reach(torch.cat([own, -own]), (1.0,) * len(places)).expanded(image.shape)
        self.last = first
        self.keep(image, self.last)

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """A module starts."""
        self.modules.append(type(module).__name__)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module ends."""
        self.modules.pop()

    def field(self, output: Any) -> ReceptiveField:
        """What the last feature map depends on: the model's output where it is one."""
        reaches = [self.reach(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        reach = next((reach for reach in reversed(reaches) if reach.axes), self.last)
        unknown = reach.unknown
        if reaches and not any(reach.depends for reach in reaches):
            unknown |= {"an output that torch's operations did not make of the input"}
        count, whole = len(self.image), {axis for axis, _ in reach.whole}
        widths = {axis: reach.at_one_place().widths(axis) for axis in reach.axes}
        size = [int(widths[axis].max()) if axis in widths else None for axis in range(count)]
        return ReceptiveField(
            size=tuple(None if axis in whole else pixels for axis, pixels in enumerate(size)),
            local=None if unknown or None in size else tuple(size),  # type: ignore[arg-type]
            exact=count > 0 and not unknown and all(bool((own == own[0]).all()) for own in widths.values()),
            whole=tuple(sorted({by for _, by in reach.whole})),
            # Nothing can be more than the whole image.
            unknown=() if len(whole) == count else tuple(sorted(unknown)),
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, then says what its outputs depend on."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        with torch.device("cpu"):
            self.told(func, args, kwargs, result)
        return result

    def told(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Notes what the outputs of an operation that was run depend on."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = [self.reach(tensor) for tensor in inputs]
        if not any(reach.depends for reach in before):
            return
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        arguments = schema(func).arguments
        given = {argument.name: argument.default_value for argument in arguments}
        given |= {**dict(zip(given, args, strict=False)), **kwargs}
        written = [given[one.name] for one in arguments if one.alias_info is not None and one.alias_info.is_write]
        changed = {id(leaf) for leaf in tree_leaves(written) if isinstance(leaf, Tensor)}
        known = {memory_key(tensor) for tensor in inputs}
        name = schema(func).name.partition("::")[2].rstrip("_")
        call = Call(func, name, given, inputs, outputs, self.reach, self.image, self.modules[-1])
        if any(id(one) in changed or memory_key(one) not in known for one in outputs):
            for output, reach in zip(outputs, follow(call), strict=True):
                self.keep(output, reach)
        elif isinstance(args[0], Tensor) and name != "as_strided":
            self.show(args[0], outputs, lambda row: func(row, *args[1:], **kwargs))
        for tensor in inputs:  # changed, but not returned
            if id(tensor) in changed - {id(output) for output in outputs}:
                self.keep(tensor, everything(before, tensor.shape).but_not(call.where))
        for output in outputs:
            self.note(self.reach(output))

    def keep(self, tensor: Tensor, reach: Reach) -> None:
        """Notes what a tensor depends on."""
        self.memory = {key: memory for key, memory in self.memory.items() if not memory.storage.expired()}  # type: ignore[no-untyped-call]
        storage = tensor.untyped_storage()
        memory = self.memory.get(memory_key(tensor))
        if memory is None:
            self.memory[memory_key(tensor)] = _Memory(StorageWeakRef(storage), {_place(tensor): reach})  # type: ignore[no-untyped-call]
        else:
            memory.write(tensor, reach)

    def show(self, tensor: Tensor, outputs: Sequence[Tensor], function: Callable[[Tensor], Any]) -> None:
        """Notes what other views of a tensor's memory depend on, in as little memory as it has."""
        reach = self.reach(tensor)
        with suppress(RuntimeError):  # bounds, of which few may be in memory, cannot always be viewed as the tensor is
            for output, row in zip(outputs, tree_leaves(function(reach.bounds[0])), strict=True):
                if output.dtype == tensor.dtype and memory_key(row) == memory_key(reach.bounds):
                    stride = (reach.bounds.stride(0), *row.stride())
                    bounds = reach.bounds.as_strided((len(reach.bounds), *row.shape), stride, row.storage_offset())
                    self.memory[memory_key(output)].places.setdefault(_place(output), reach.of(bounds))

    def note(self, reach: Reach) -> None:
        """Takes a tensor for the last map, if it is one."""
        there, last = reach.axes, self.last
        takes = len(there) == len(self.image)
        if there and not takes:
            # Where some axes are pooled, it is the way to a vector, unless more is read along the others.
            more = any(reach.widths(axis).max() > last.widths(axis).max() for axis in there & last.axes)
            takes = more or bool(reach.unknown - last.unknown)
        if takes:
            self.last = reach

    def reach(self, tensor: Tensor) -> Reach:
        """What a tensor depends on; nothing where it was not made from the image."""
        memory = self.memory.get(memory_key(tensor))
        return independent(tensor.shape, len(self.image)) if memory is None else memory.read(tensor)


@dataclass
class _Memory:
    """One piece of memory, by which tensors are known: `x.data` and `torch.vmap` make another object each time.

    Attributes:
        storage: A weak reference. Once it has expired, other memory may have the same address.
        places: The reach of the tensors in it, by dtype, shape, strides and offset.
        flat: The reach of all cells of the memory, from when a tensor with a new place is read.
    """

    storage: StorageWeakRef
    places: dict[tuple[Any, ...], Reach]
    flat: Reach | None = None

    def read(self, tensor: Tensor) -> Reach:
        """What a tensor in this memory depends on."""
        place = _place(tensor)
        if place not in self.places:
            self.places[place] = self._viewed(tensor)
        return self.places[place]

    def write(self, tensor: Tensor, reach: Reach) -> None:
        """Notes what a tensor in this memory depends on from now on."""
        if self.flat is None and next(iter(self.places)) == _place(tensor):
            self.places = {_place(tensor): reach}
            return
        written = self._viewed(tensor)
        written.bounds.copy_(reach.bounds)
        assert self.flat is not None
        self.flat = together([self.flat, reach]).of(self.flat.bounds)
        self.places = {}

    def _viewed(self, tensor: Tensor) -> Reach:
        if self.flat is None:
            (dtype, shape, *place), reach = next(iter(self.places.items()))
            size = tensor.untyped_storage().nbytes() // dtype.itemsize
            flat = reach.bounds.new_full((len(reach.bounds), size), inf)
            _strided(flat, shape, *place).copy_(reach.bounds)
            self.flat = reach.of(flat)
        flat = self.flat.bounds
        if tensor.untyped_storage().nbytes() // tensor.element_size() != flat.shape[1]:
            return everything([self.flat], tensor.shape).but_not("memory that is read in two ways")
        return self.flat.of(_strided(flat, *_place(tensor)[1:]))


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _strided(flat: Tensor, shape: Sequence[int], stride: Sequence[int], offset: int) -> Tensor:
    return flat.as_strided((len(flat), *shape), (flat.shape[1], *stride), offset)
