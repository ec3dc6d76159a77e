"""What torch's own convolutions are handed: nothing that they write out of bounds for."""

import subprocess
import sys

import pytest
import torch
from calls import Call
from cases import assert_equal_to_rounding
from test_transpose import Call as Transposed
from torch.utils._python_dispatch import TorchDispatchMode

from torchdcls import large_kernel_conv2d
from torchdcls.ops.conv.direct import even_padding, evenly_padded

# Kernels that are higher than the map: after the taps that only see padding are dropped, of 14 columns or fewer.
HIGHER = [
    Call((11, 2), (50, 50), 25, channels=(1, 3, 1)),
    Call((12, 5), (23, 23), 11, channels=(3, 16, 1), batch=(1,)),
    Call((13, 2), (52, 50), 26, channels=(1, 3, 1)),
    Call((11, 3), (22, 3), (11, 1), channels=(2, 4, 2)),
    Call((10, 4), (21, 4), (10, 2), channels=(1, 1, 1)),
    Call((20, 4), (20, 3), (9, 1), stride=(2, 1), channels=(2, 3, 1)),
    Call((12, 6), (24, 5), "same", channels=(3, 2, 1)),
]
# The same from the other side: their outputs are the higher maps.
TRANSPOSED = [
    Transposed((12, 3), (22, 4), 1, (11, 2), channels=(3, 1, 1)),
    Transposed((12, 4), (23, 3), 1, (11, 1), channels=(4, 3, 1), batch=(1,)),
    Transposed((10, 4), (20, 3), (2, 1), (9, 1), 0, (3, 2, 1)),
]


class PaddedRows(TorchDispatchMode):
    """Which two-dimensional convolutions are to pad rows of maps that a kernel with its step is higher than."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        if "convolution" in function.overloadpacket.__name__:
            backward = function.overloadpacket.__name__ == "convolution_backward"
            map, weight = args[1:3] if backward else args[:2]
            stride, padding, _, transposed, _, groups = args[4:10] if backward else args[3:9]
            if transposed:
                map = args[0] if backward else made
            several_filters = groups == 1 or weight.shape[0] > groups or weight.shape[1] > 1
            higher = weight.dim() == 4 and weight.shape[2] + stride[0] > map.shape[2]
            if higher and padding[0] and weight.shape[3] <= 14 and several_filters:
                self.found.append((function, map.shape, weight.shape, stride, padding))
        return made


@pytest.mark.parametrize("method", ["direct", "auto"])
@pytest.mark.parametrize("call", HIGHER + TRANSPOSED, ids=str)
def test_rows_that_torch_would_lose_count_of_are_padded_beforehand(call, method):
    leaves = call.leaves()
    with PaddedRows() as rows:
        answers = call.run(leaves, method)
    assert not rows.found
    assert_equal_to_rounding(answers, call.torch(leaves))


def test_rows_are_found():
    call = HIGHER[3]
    leaves = call.leaves()
    with PaddedRows() as rows:
        output = torch.nn.functional.conv2d(**leaves, padding=(11, 1), groups=2)
        output.sum().backward()
    assert len(rows.found) == 2  # the output, and both gradients


def test_other_rows_stay_torchs_to_pad():
    class Pads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert "pad" not in function.overloadpacket.__name__
            return function(*args, **kwargs or {})

    input, weight = torch.ones(1, 3, 24, 24), torch.ones(4, 3, 23, 13)
    wide, depthwise = torch.ones(4, 3, 31, 23), torch.ones(3, 1, 41, 7)
    with Pads():
        large_kernel_conv2d(input, weight, padding=(11, 6), method="direct")
        large_kernel_conv2d(input, wide, padding=(15, 11), method="direct")
        large_kernel_conv2d(input, depthwise, padding=(20, 3), groups=3, method="direct")


STEPS = """
import torch
from torchdcls import large_kernel_conv2d
from torchdcls.ops.conv.direct import even_padding, evenly_padded
torch.set_num_threads(1)
for map, weight, padding, method in {shapes}:
    for layout in (torch.contiguous_format, torch.channels_last):
        for _ in range(12):
            x = torch.randn(map).contiguous(memory_format=layout).requires_grad_()
            w, b = torch.randn(weight, requires_grad=True), torch.randn(weight[0], requires_grad=True)
            large_kernel_conv2d(x, w, b, padding=padding, method=method).sum().backward()
            assert all(leaf.grad.isfinite().all() for leaf in (x, w, b))
print("alive")
"""


def test_training_steps_leave_memory_alone():
    # In a process of its own, as what is corrupted ends it. It was, where torch runs with AVX-512.
    shapes = [
        ((2, 1, 11, 2), (3, 1, 50, 50), 25, "direct"),
        ((1, 3, 12, 5), (16, 3, 23, 23), 11, "auto"),
        ((2, 1, 13, 2), (3, 1, 52, 50), 26, "auto"),
    ]
    child = subprocess.run(
        [sys.executable, "-c", STEPS.format(shapes=shapes)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (child.returncode, child.stdout.strip()) == (0, "alive"), child.stderr[-2000:]


@pytest.mark.parametrize("method", ["direct", "auto"])
def test_weights_in_any_order_have_gradients(method):
    # Torch's own refuse this weight where the map is in channels_last: "grad_weight must be contiguous".
    input = torch.randn(1, 3, 6, 9, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.randn(1, 4, 3, 1, dtype=torch.float64).permute(3, 2, 1, 0).requires_grad_()
    large_kernel_conv2d(input, weight, method=method).sum().backward()
    whole = weight.detach().contiguous().requires_grad_()
    torch.nn.functional.conv2d(input.contiguous(), whole).sum().backward()
    torch.testing.assert_close(weight.grad, whole.grad)


@pytest.mark.parametrize(
    ("pads", "both", "first"), [((2, 2), 2, 0), ((3, 1), 1, -2), ((1, 3), 1, 0), ((-1, -1), 0, 1), ((-5, 7), 0, 5)]
)
def test_torch_pads_both_ends_alike(pads, both, first):
    """The rest is padded or cut off before; more may be cut off than there was."""
    input = torch.arange(1.0, 5).view(1, 1, 4)
    even = even_padding((pads,))
    padded = evenly_padded(input, (pads,), even)
    assert even == [both]
    line = torch.cat([torch.zeros(9), input.flatten(), torch.zeros(9)])
    start, stop = 9 - pads[0] + both, 9 + 4 + pads[1] - both
    torch.testing.assert_close(padded.flatten(), line[start:stop])
    assert start == 9 + first
