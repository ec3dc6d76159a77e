"""Spectra along one axis with channels mixed, by the compiled library: it serves "fft" where tensors are plain numbers.

The kernel's spectra are made where they are multiplied, and no tensor is made on the way.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..native.library import DTYPES, LENGTH, library, missing, view
from ..tracing import exporting, numbers_when_run
from .problem import Map, Problem
from .way import Part

_LIBRARY: Any = torch.library.Library("torchdcls", "FRAGMENT")  # type: ignore[no-untyped-call]
MAPS: tuple[Map, ...] = ("convolve", "transpose", "correlate")
# How a failure is put; what else the library says is prevented by `unsupported` of "fft".
_NO_MEMORY = "expected memory for spectra of {} by the compiled library, got none"


class _Mixing(ctypes.Structure):
    # A `td_mixing`.
    _fields_ = tuple(
        (name, LENGTH) for name in ("batch", "groups", "inputs", "out", "map", "outputs", "kernel", "before")
    )


def serves(problem: Problem) -> bool:
    """Whether the library has spectra for a problem of stride 1."""
    return (
        len(problem.kernel) == 1
        and not problem.depthwise
        and problem.device == "cpu"
        and problem.dtype in DTYPES
        and not exporting()
        and missing() is None
    )


def can_mix(problem: Problem, *tensors: Tensor | None) -> bool:
    """Whether the library makes maps of a problem from these tensors."""
    return serves(problem) and numbers_when_run(*tensors)


def convolve(input: Tensor, weight: Tensor, problem: Problem) -> Tensor:
    """See `fft.convolve`, without bias."""
    return _made("convolve", input, weight, problem.groups, problem.before[0], problem.outputs[0])


def transpose(gradient: Tensor, weight: Tensor, problem: Problem) -> Tensor:
    """See `fft.transpose`."""
    return _made("transpose", gradient, weight, problem.groups, problem.before[0], problem.map[0])


def correlate(input: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
    """See `fft.correlate`."""
    return _made("correlate", input, gradient, problem.groups, problem.before[0], problem.kernel[0])


def operations(problem: Problem, part: Part) -> dict[str, float]:
    """Multiplications of the products over channels, and operations of the transforms."""
    if part == "gradients":
        both = [operations(problem, map) for map in MAPS[1:]]
        return {name: sum(each[name] for each in both) for name in both[0]}
    kernels = library()
    assert kernels is not None
    twice = problem.dtype == torch.float64
    axis = problem.map[0], problem.outputs[0], problem.kernel[0], problem.before[0]
    channels = (channels // problem.groups for channels in (problem.in_channels, problem.out_channels))
    sizes = _Mixing(problem.batch, problem.groups, *channels, *axis)
    counts = (kernels.td_count_mixed(twice, MAPS.index(part), ctypes.byref(sizes), which) for which in (0, 1))
    products, transforms = ((1 + twice) * count for count in counts)  # half as many lanes
    return {"native call": 1.0, "fft mixed product": products, "fft mixed transform": transforms}


def _made(map: Map, *arguments: Any) -> Tensor:
    # Torch's compiler sees an operator; called from Python, one would take longer than a small convolution.
    make = getattr(torch.ops.torchdcls, f"mixed_{map}") if torch.compiler.is_compiling() else _RUN[map]
    made: Tensor = make(*arguments)
    return made


def _convolve(input: Tensor, weight: Tensor, groups: int, before: int, size: int) -> Tensor:
    output = _like_convolve(input, weight, groups, before, size)
    _run("convolve", input, weight, output, groups, before)
    return output


def _transpose(gradient: Tensor, weight: Tensor, groups: int, before: int, size: int) -> Tensor:
    input = _like_transpose(gradient, weight, groups, before, size)
    _run("transpose", input, weight, gradient, groups, before)
    return input


def _correlate(input: Tensor, gradient: Tensor, groups: int, before: int, size: int) -> Tensor:
    weight = _like_correlate(input, gradient, groups, before, size)
    _run("correlate", input, weight, gradient, groups, before)
    return weight


def _run(map: Map, input: Tensor, weight: Tensor, output: Tensor, groups: int, before: int) -> None:
    # The tensors of a convolution, one of which is written.
    kernels = library()
    assert kernels is not None
    inputs, outputs = input.shape[1] // groups, output.shape[1] // groups
    sizes = _Mixing(input.shape[0], groups, inputs, outputs, input.shape[2], output.shape[2], weight.shape[2], before)
    read = [_shown(tensor) for tensor in (input, weight, output)]
    failed = kernels.td_mix(
        input.dtype == torch.float64, MAPS.index(map), ctypes.byref(sizes), *(ctypes.byref(view(one)) for one in read)
    )
    if failed:
        raise RuntimeError(_NO_MEMORY.format(tuple(weight.shape)))


def _shown(tensor: Tensor) -> Tensor:
    # A view may show the opposite signs, and zeros be nowhere.
    return tensor.clone() if tensor.is_neg() or tensor._is_zerotensor() else tensor


def _like_convolve(input: Tensor, weight: Tensor, groups: int, before: int, size: int) -> Tensor:
    return input.new_empty((input.shape[0], weight.shape[0], size))


def _like_transpose(gradient: Tensor, weight: Tensor, groups: int, before: int, size: int) -> Tensor:
    return gradient.new_empty((gradient.shape[0], weight.shape[1] * groups, size))


def _like_correlate(input: Tensor, gradient: Tensor, groups: int, before: int, size: int) -> Tensor:
    return input.new_empty((gradient.shape[1], input.shape[1] // groups, size))


_RUN: dict[Map, Callable[..., Tensor]] = {"convolve": _convolve, "transpose": _transpose, "correlate": _correlate}
_LIKE = {"convolve": _like_convolve, "transpose": _like_transpose, "correlate": _like_correlate}
_TENSORS = {
    "convolve": "Tensor input, Tensor weight",
    "transpose": "Tensor gradient, Tensor weight",
    "correlate": "Tensor input, Tensor gradient",
}
for _map in MAPS:
    _LIBRARY.define(
        f"mixed_{_map}({_TENSORS[_map]}, SymInt groups, SymInt before, SymInt size) -> Tensor",
        tags=(torch.Tag.pt2_compliant_tag,),
    )
    _LIBRARY.impl(f"mixed_{_map}", _RUN[_map], "CPU")
    torch.library.register_fake(f"torchdcls::mixed_{_map}", _LIKE[_map], lib=_LIBRARY)
