"""Sums of rows that are delayed by whole steps, on CPU, by the compiled library: without kernels full of zeros."""

import ctypes

import torch
from torch import Tensor

from .autocast import autocast_is_on
from .native.library import LENGTH, library, missing
from .tracing import as_read, numbers_when_run


class _Delays(ctypes.Structure):
    # A `td_delays`.
    _fields_ = (
        *((name, LENGTH) for name in ("batch", "inputs", "out", "count", "time", "outputs", "most")),
        *((name, ctypes.c_void_p) for name in ("input", "weight", "delay", "output")),
    )


def can_delay(input: Tensor, weight: Tensor) -> bool:
    """Whether the compiled library can run: numbers on CPU in single or double precision, without gradients."""
    tracked = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
    return (
        not tracked
        and not torch.compiler.is_compiling()
        and not autocast_is_on("cpu")
        and input.device.type == weight.device.type == "cpu"
        and input.dtype == weight.dtype
        and input.dtype in (torch.float32, torch.float64)
        and missing() is None
        and numbers_when_run(input, weight)
    )


def delayed_sums(input: Tensor, weight: Tensor, delay: Tensor, most: int, outputs: int) -> Tensor:
    """Sum over i and k of weight[o, i, k] input[b, i, t - delay[o, i, k]], for what `can_delay`: (batch, out, outputs).

    `input` is (batch, in, time), or without batch, between zeros; `delay` is torch.int32, from 0 to `most` time steps.
    """
    kernels = library()
    assert kernels is not None
    assert delay.dtype == torch.int32 and delay.shape == weight.shape
    read = [as_read(tensor) for tensor in (input, weight, delay)]
    batch = input.shape[0] if input.dim() == 3 else 1
    output = input.new_empty((*input.shape[:-2], weight.shape[0], outputs))
    out, inputs, count = weight.shape
    described = _Delays(
        *(batch, inputs, out, count, input.shape[-1], outputs, most),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (*read, output)),
    )
    if kernels.td_delay(input.dtype == torch.float64, ctypes.byref(described)):
        raise RuntimeError(f"out of memory: the compiled library could not hold {inputs} rows of {outputs} steps")
    return output
