"""Delayed sums of a sequence that depends on them, block by block: with fewer products than one per step and lag.

The inputs of such a convolution become known step by step, but one half of a block is known before the other half
begins, and a block before the next one. The sums that a few known steps add to the following ones are a short
convolution. By spectra it takes fewer products than it has pairs of steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops.autocast import autocast_disabled
from ..ops.conv.api import large_kernel_weight_gradient


def block_length(lags: int, steps: int) -> int:
    """The steps of a block, a power of 2: about half the lags, so that its halves cost as much as the block."""
    return 1 << min(((lags + 1) // 2 - 1).bit_length(), steps.bit_length() - 1)


class Reach:
    """The sums that `inputs` steps add to the `outputs` steps after them.

    Args:
        filters: (out, in, lags), or (channels, 1, lags) if each channel is delayed by itself; lag 1 is the last.
        inputs, outputs: Numbers of steps.
        at_once: Whether the gradient of the filters comes from `FiltersAtOnce` instead of these sums.
    """

    def __init__(self, filters: Tensor, inputs: int, outputs: int, at_once: bool = False) -> None:
        near = filters[..., -(inputs + outputs - 1) :]
        into, within, out = (matrix.to(near) for matrix in _products(inputs, outputs, near.shape[-1]))
        self._into, self._out = into, out.T
        self._weighed = _WeighedOnce.apply if at_once else _weighed
        with autocast_disabled(near.device.type):
            self._taps = (within.flip(-1) @ near.flatten(0, 1).T).reshape(-1, *near.shape[:2]).mT

    def __call__(self, neurons: Tensor, outputs: int) -> Tensor:
        """(at most `inputs` steps, ..., in), the last of them -> (at most `outputs` steps, ..., out), the first."""
        into = self._into[:, -len(neurons) :]
        with autocast_disabled(neurons.device.type):
            made = (into @ neurons.flatten(1)).reshape(len(into), -1, neurons.shape[-1])
            made = self._weighed(made, self._taps)
            sums: Tensor = self._out[:outputs] @ made.flatten(1)
        return sums.reshape(outputs, *neurons.shape[1:-1], made.shape[-1])


def _products(inputs: int, outputs: int, lags: int) -> tuple[Tensor, Tensor, Tensor]:
    """A short convolution as products: (products, inputs), (products, lags) and (products, outputs).

    The first matrix sums inputs, the second sums taps, and the third sums their products to outputs. The products are
    those of all pairs of an input and an output, or of spectra, whichever are fewer.
    """
    size = inputs + outputs - 1
    pairs = [(j, inputs + k - j - 1, k) for k in range(outputs) for j in range(inputs) if inputs + k - j <= lags]
    if len(pairs) <= (3 * size - 1) // 2:
        ones = (torch.eye(count, dtype=torch.float64) for count in (inputs, lags, outputs))
        return tuple(one[list(which)] for one, which in zip(ones, zip(*pairs, strict=True), strict=True))  # type: ignore[return-value]
    # On a circle of this size no other sum falls on these outputs. Three products of real numbers make one of complex
    # numbers.
    (before, before_sines), (within, within_sines), (after, after_sines) = (
        _waves(size, range(first, first + count)) for first, count in ((0, inputs), (1, lags), (inputs, outputs))
    )
    inner = slice(1, (size + 1) // 2)  # the frequencies that have a sine
    scale = torch.full((len(after), 1), 2 / size, dtype=torch.float64)
    scale[0] = 1 / size
    if size % 2 == 0:
        scale[-1] = 1 / size
    after, after_sines = after * scale, after_sines * scale

    def summed(cosines: Tensor, sines: Tensor) -> Tensor:
        return torch.cat((cosines, sines[inner], (cosines + sines)[inner]))

    out = torch.cat((after - after_sines, -(after + after_sines)[inner], after_sines[inner]))
    return summed(before, before_sines), summed(within, within_sines), out


def _waves(size: int, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
    # Cosines and sines, (frequencies, steps).
    turns = torch.arange(size // 2 + 1).outer(torch.tensor(list(steps))) % size
    angles = turns.double() * (2 * torch.pi / size)
    return angles.cos(), angles.sin()


def _weighed(neurons: Tensor, taps: Tensor) -> Tensor:
    # (products, batch, in) by (products, in, out), or by (products, 1, channels) each channel by itself.
    return neurons * taps if taps.shape[1] == 1 else neurons @ taps


class _WeighedOnce(torch.autograd.Function):
    """`_weighed` with a gradient of the neurons alone; only the gradient's own gradient reaches the taps."""

    @staticmethod
    def forward(ctx: Any, neurons: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(taps)
        return _weighed(neurons, taps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (taps,) = ctx.saved_tensors
        return _weighed(gradient, taps if taps.shape[1] == 1 else taps.mT), None


class FiltersAtOnce(torch.autograd.Function):
    """Zeros to add to the delayed sums; they carry the gradient of the filters, for all steps at once.

    `FiltersAtOnce.apply(filters, known, shape)` takes the filters of `Reach`. Append the delayed neurons, (steps, ...,
    in), to the list `known` when they are known. The zeros have one step for each of these and for each lag.

    Gradients:
        To the filters; not differentiable again.
    """

    @staticmethod
    def forward(ctx: Any, filters: Tensor, known: list[Tensor], shape: Sequence[int]) -> Tensor:
        """Zeros of this shape, (steps + lags, ..., out)."""
        ctx.known, ctx.shape = known, filters.shape
        return filters.new_zeros(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of a convolution of the whole sequence."""
        # (steps, ..., channels) -> (batch, channels, steps); no sum is due at the first step.
        neurons, sums = (
            each.to(gradient.dtype).reshape(len(each), -1, each.shape[-1]).permute(1, 2, 0)
            for each in (ctx.known[0], gradient[1:])
        )
        with autocast_disabled(gradient.device.type):
            return large_kernel_weight_gradient(neurons, sums, ctx.shape, padding=ctx.shape[-1] - 1), None, None
