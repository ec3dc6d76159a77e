"""One convolution call, by any method, against the oracle and against torch: what the tests of methods share."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from cases import (
    CONVOLUTIONS,
    CPU_METHODS,
    answers,
    assert_equal_to_rounding,
    normal,
    oracle_convolution,
    padding_pairs,
)

from torchdcls import large_kernel_conv1d, large_kernel_conv2d, large_kernel_conv3d

LARGE_KERNEL_CONVOLUTIONS = {1: large_kernel_conv1d, 2: large_kernel_conv2d, 3: large_kernel_conv3d}
every_method = pytest.mark.parametrize("method", CPU_METHODS)


@dataclass(frozen=True)
class Call:
    """One call's sizes. Channels are (in, out, groups)."""

    map: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: int | tuple[int | tuple[int, int], ...] | str = 0
    stride: int | tuple[int, ...] = 1
    channels: tuple[int, int, int] = (2, 2, 2)
    batch: tuple[int, ...] = (2,)

    def leaves(self, dtype=torch.float64):
        inside, outside, groups = self.channels
        return {
            "input": normal(*self.batch, inside, *self.map, seed=1, dtype=dtype),
            "weight": normal(outside, inside // groups, *self.kernel, seed=2, dtype=dtype),
            "bias": normal(outside, seed=3, dtype=dtype),
        }

    def options(self):
        return {"stride": self.stride, "padding": self.padding, "groups": self.channels[2]}

    def run(self, leaves, method):
        convolve = LARGE_KERNEL_CONVOLUTIONS[len(self.kernel)]
        return answers(lambda: convolve(**leaves, **self.options(), method=method), leaves)

    def torch(self, leaves):
        """Torch's own convolution of a map padded beforehand."""
        pads = [cells for pair in reversed(padding_pairs(self.padding, self.kernel)) for cells in pair]
        convolve = CONVOLUTIONS[len(self.kernel)]

        def call():
            padded = F.pad(leaves["input"], pads)
            return convolve(padded, leaves["weight"], leaves["bias"], self.stride, 0, 1, self.channels[2])

        return answers(call, leaves)

    def defeats(self, method):
        """Whether the method cannot run the call.

        The transform takes neither strides nor padding beyond the kernel, and "native" one filter for each channel.
        """
        if method == "native":
            return len(set(self.channels)) > 1
        stride = (self.stride,) if isinstance(self.stride, int) else self.stride
        pads = padding_pairs(self.padding, self.kernel)
        far = any(max(pair) >= taps for pair, taps in zip(pads, self.kernel, strict=True))
        return method == "fft" and (far or any(step > 1 for step in stride))

    def refused(self, method):
        """Whether the method cannot run the call, having seen that it says so."""
        if self.defeats(method):
            self.check(method)
        return self.defeats(method)

    def check(self, method, leaves=None, expected=None):
        """The method gives the oracle's answers, or refuses what it cannot run."""
        leaves = leaves or self.leaves()
        if self.defeats(method):
            with pytest.raises(ValueError, match=rf"method: '{method}' cannot run this call"):
                self.run(leaves, method)
        else:
            assert_equal_to_rounding(self.run(leaves, method), expected or oracle(self))


@cache  # the methods of one call share it
def oracle(call):
    """The oracle's answers to the call's leaves as they are drawn."""
    leaves = call.leaves()
    return answers(lambda: oracle_convolution(**leaves, **call.options()), leaves)
