"""What the outputs of torch's operations depend on, given what their inputs depend on: a table of rules.

Operations that only view a tensor's memory in another way need no rule, see `receptive_field.py`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .reach import NOWHERE, Reach, everything, independent, joined, together


@dataclass(frozen=True)
class Call:
    """An operation that was run.

    Attributes:
        function: The operation itself.
        name: As in `aten.NAME`, in-place or not.
        given: Its arguments by name.
        inputs, outputs: Tensors in and out.
        reach: What a tensor depends on; for one that is written to, what it depended on before.
        image: Size of the image.
        module: Type of the module that ran it.
    """

    function: Callable[..., Any]
    name: str
    given: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    reach: Callable[[Tensor], Reach]
    image: Sequence[int]
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
    def main(self) -> Reach:
        """What the first tensor depends on."""
        return self.reach(self.inputs[0])

    def dims(self, argument: str = "dim") -> list[int]:
        """Dimensions of the first tensor that an argument names, all for none, counted from the last."""
        count, given = self.inputs[0].dim(), self.given.get(argument)
        if given is None or given == []:
            return list(range(-count, 0))
        return [dim % count - count for dim in ([given] if isinstance(given, int) else given)]

    def numbers(self, argument: str, count: int, default: Any = None) -> list[int]:
        """An argument that is one number for all axes, or one for each."""
        value = self.given.get(argument) or default
        values = list(value) if isinstance(value, Sequence) else [value or 0]
        return values * count if len(values) == 1 else values

    def with_others(self, reach: Reach, tensors: Sequence[Tensor]) -> Reach:
        """The same, for an operation with other inputs, whose own pixels are not followed."""
        others = [self.reach(tensor) for tensor in tensors]
        both = together([reach, *others]).of(reach.bounds)
        return both.but_not(self.where) if any(other.axes for other in others) else both

    def pooled(self, reach: Reach, *dims: int) -> Reach:
        """See `Reach.pooled`."""
        return reach.pooled(dims, self.image, self.module)


Rule = Callable[[Call], Reach]


def follow(call: Call) -> list[Reach]:
    """What the outputs of an operation depend on."""
    if (rule := _rule(call.name, _RULES)) is not None:
        reach = rule(call)
        # Such as weights that were made from the image.
        reach = call.with_others(reach, call.inputs[1:])
    elif (rule := _rule(call.name, _RULES_FOR_ALL_INPUTS)) is not None:
        reach = rule(call)
    elif torch.Tag.pointwise in call.function.tags:  # type: ignore[attr-defined]
        reach = _pointwise(call)
    else:
        return [everything(map(call.reach, call.inputs), output.shape).but_not(call.where) for output in call.outputs]
    # Nobody reads outputs of other shapes, such as a norm's saved statistics.
    return [
        reach if output.shape == call.shape else independent(output.shape, len(call.image)) for output in call.outputs
    ]


def _rule(name: str, rules: dict[str, Rule]) -> Rule | None:
    return next((rule for pattern, rule in rules.items() if re.fullmatch(pattern, name)), None)


def _pointwise(call: Call) -> Reach:
    return joined(map(call.reach, call.inputs), call.shape)


def _moved(call: Call) -> Reach:
    """For elements that are moved: the same operation moves what they depend on."""
    more = {name: value for number, (name, value) in enumerate(call.given.items()) if number}
    try:
        rows = [call.function(row, **more) for row in call.main.bounds]
    except (RuntimeError, NotImplementedError):  # such as indices on the meta device
        return everything([call.main], call.shape).but_not(call.where)
    return call.main.of(torch.stack(rows))


def _laid(call: Call) -> Reach:
    """For tensors laid end to end. Those at the ends that are not made from the image may be padding."""
    reaches = [call.reach(tensor) for tensor in call.inputs if tensor.numel()]
    dim = call.given["dim"] % len(call.shape) - len(call.shape)
    bounds = [reach.bounds.unsqueeze(dim) if call.name == "stack" else reach.bounds for reach in reaches]
    laid = together(reaches).of(torch.cat(bounds, dim))
    there = [number for number, reach in enumerate(reaches) if reach.axes]
    if not there or len(there) == len(reaches):
        return laid
    before, after = (sum(b.shape[dim] for b in ends) for ends in (bounds[: there[0]], bounds[there[-1] + 1 :]))
    image = laid.extended(dim, -before, -after)
    return image.extended(dim, before, after) if image.is_even(dim) else laid


def _axes_in(name: str) -> int:
    found = re.search(r"(\d)d", name)
    assert found is not None
    return int(found[1])


def _convolution(call: Call) -> Reach:
    """Each channel reads the channels of its group, through windows."""
    taps = call.given["weight"].shape[2:]
    channels, groups = -len(taps) - 1, call.given["groups"]
    reach = call.main.of(torch.unflatten(call.main.bounds, channels, (groups, -1)))
    reach = call.pooled(reach, channels)
    reach = reach.of(reach.bounds.squeeze(channels))
    reach = _slid(call, reach, taps)
    each = reach.bounds.unsqueeze(channels)
    shape = list(each.shape)
    shape[channels] = call.shape[channels] // groups
    return reach.of(each.expand(shape).flatten(channels - 1, channels))


def _slid(call: Call, reach: Reach, taps: Sequence[int]) -> Reach:
    """For an output whose cells read `taps` cells along the last axes."""
    axes = len(taps)
    strides, dilations = call.numbers("stride", axes, taps), call.numbers("dilation", axes, 1)
    paddings = call.numbers("padding", axes)
    for dim, count, stride, padding, dilation in zip(range(-axes, 0), taps, strides, paddings, dilations, strict=True):
        cells, offsets = torch.arange(call.shape[dim])[:, None], torch.arange(count) * dilation
        if call.given.get("transposed"):
            places = cells + padding - offsets
            cells = (places // stride).where(places % stride == 0, NOWHERE)
            reach = reach.gathered(dim, cells, 1 / stride)
        else:
            reach = reach.gathered(dim, stride * cells - padding + offsets, stride)
    return reach


def _adaptive(call: Call) -> Reach:
    reach = call.main
    for dim in range(-_axes_in(call.name), 0):
        before, after = call.inputs[0].shape[dim], call.shape[dim]
        if after == 1:
            reach = call.pooled(reach, dim)
            continue
        cells = torch.arange(after)
        first, end = cells * before // after, -(-(cells + 1) * before // after)
        taken = first[:, None] + torch.arange(int((end - first).max()))
        reach = reach.gathered(dim, taken.where(taken < end[:, None], NOWHERE), before / after)
    return reach


def _enlarged(call: Call) -> Reach:
    reach, axes = call.main, _axes_in(call.name)
    single = [call.given.get(f"scales_{axis}") for axis in "dhw"][-axes:] if axes > 1 else [call.given.get("scales")]
    for dim, scale in zip(range(-axes, 0), call.given.get("scale_factors") or single, strict=True):
        before, after = call.inputs[0].shape[dim], call.shape[dim]
        if before == after:
            continue
        cells, ratio = torch.arange(after, dtype=torch.float64), 1 / scale if scale else before / after
        if "nearest" in call.name:
            cells, offsets = cells * ratio, torch.zeros(1)
        elif call.given.get("align_corners"):
            cells, offsets = cells * ((before - 1) / max(after - 1, 1)), torch.arange(2)
        else:
            cells, offsets = (cells + 0.5) * ratio - 0.5, torch.arange(2)
        if "bicubic" in call.name:
            offsets = torch.arange(-1, 3)
        reach = reach.gathered(dim, (cells[:, None].floor() + offsets).long(), ratio)
    return reach


def _padded(call: Call) -> Reach:
    reach = call.main
    pads = call.given.get("pad") or call.given["padding"]
    for at, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), start=1):
        reach = reach.extended(-at, before, after)
    return reach


def _reduced(call: Call) -> Reach:
    dims = call.dims()
    reach = call.pooled(call.main, *dims)
    return reach if call.given.get("keepdim", False) else reach.of(reach.bounds.squeeze(dims))


def _mixed(over: Callable[[Call], Iterable[int]]) -> Rule:
    """The rule of an operation whose elements depend on all elements along some dimensions."""
    return lambda call: call.main.mixed(list(over(call)), call.image, call.module)


def _of_batch(call: Call) -> list[int]:
    training, count = call.given.get("training", "no_training" not in call.name), call.inputs[0].dim()
    return [dim for dim in range(-count, 0) if dim != 1 - count] if training else []


def _product(call: Call) -> Reach:
    *added, one, other = (value for value in call.given.values() if isinstance(value, Tensor))
    factors = [call.pooled(call.reach(one), -1), call.pooled(call.reach(other), -2)]
    return joined([*factors, *map(call.reach, added)], call.shape)


def _attention(call: Call) -> Reach:
    named = [call.given[name] for name in ("query", "key", "value")]
    query, *others = map(call.reach, named)
    # The query's tokens are not mixed with each other: each reads all keys and values.
    reach = joined([call.pooled(query, -1), *(call.pooled(one, -2, -1) for one in others)], call.shape)
    return call.with_others(reach, [tensor for tensor in call.inputs if not any(tensor is one for one in named)])


# Rules by the name of an operation, as in `aten.NAME`, for outputs that depend on the first tensor alone. Where others
# were made from the image, their pixels are not followed.
_RULES: dict[str, Rule] = {
    r"_?convolution": _convolution,
    r"max_pool2d|max_pool[23]d_with_indices|avg_pool\dd": lambda call: _slid(
        call, call.main, call.numbers("kernel_size", _axes_in(call.name))
    ),
    r"_?adaptive_(avg|max)_pool\dd": _adaptive,
    r"upsample_(nearest\dd|linear1d|bilinear2d|bicubic2d|trilinear3d)": _enlarged,
    # Borders of the image are left out, whatever is there.
    r"constant_pad_nd|(reflection|replication)_pad\dd": _padded,
    r"flip|roll|repeat|index_select|pixel_(un)?shuffle|channel_shuffle|im2col": _moved,
    r"mean|sum|prod|a?max|a?min|(var|std)(_mean)?|logsumexp|(linalg_vector_)?norm": _reduced,
    r"_?softmax|_safe_softmax|_log_softmax|cumsum": _mixed(Call.dims),
    r"native_layer_norm|_fused_rms_norm": _mixed(lambda call: range(-len(call.given["normalized_shape"]), 0)),
    r"native_group_norm": _mixed(lambda call: range(1 - call.inputs[0].dim(), 0)),
    r"native_batch_norm|_native_batch_norm_legit(_no_training)?": _mixed(_of_batch),
}
_RULES_FOR_ALL_INPUTS: dict[str, Rule] = {
    # These take only the shape of a tensor, or overwrite it.
    r"(zeros|ones|empty|full|rand|randn)_like|new_(zeros|ones|empty|full)(_strided)?|zero": lambda call: independent(
        call.shape, len(call.image)
    ),
    r"copy": lambda call: call.reach(call.given["src"]).expanded(call.shape),
    r"cat|stack": _laid,
    r"(add|b|baddb)?mm": _product,
    r"_scaled_dot_product\w*": _attention,
    r"clone|_to_copy|lift_fresh|contiguous|native_dropout|fill|_unsafe_view|_reshape_copy": _pointwise,
    # Pointwise, though torch does not say so.
    r"hard(swish|sigmoid|tanh)|mish|threshold|rrelu_with_noise|prelu_kernel": _pointwise,
}
