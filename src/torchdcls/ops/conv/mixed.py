"""The method "fft" along one axis with mixed channels, by the compiled library, which makes no tensor of its own."""

import ctypes
from functools import partial

import torch
from torch import Tensor

from ..native.library import DTYPES, LENGTH, library, missing, view
from ..tracing import define_operator, exporting, numbers_when_run, shown
from .method import Part
from .problem import MAPS, Map, Problem

# The field of a problem that holds the sizes of a map's result.
_MADE: dict[Map, str] = {"convolve": "outputs", "transpose": "map", "correlate": "kernel"}


class _Mixing(ctypes.Structure):
    # A `td_mixing`.
    _fields_ = tuple(
        (name, LENGTH) for name in ("batch", "groups", "inputs", "out", "map", "outputs", "kernel", "before")
    )


def serves(problem: Problem) -> bool:
    """Whether the library can run a problem of stride 1."""
    return (
        len(problem.kernel) == 1
        and not problem.depthwise
        and problem.device == "cpu"
        and problem.dtype in DTYPES
        and not exporting()
        and missing() is None
    )


def can_mix(problem: Problem, *tensors: Tensor | None) -> bool:
    """Whether the library can run a problem with these tensors."""
    return serves(problem) and numbers_when_run(*tensors)


def made(map: Map, one: Tensor, other: Tensor, problem: Problem) -> Tensor:
    """The result of a map, without bias, from its two tensors in the order of the functions of `fft`."""
    size = getattr(problem, _MADE[map])[0]
    # Torch's compiler sees an operator; called from Python, one would take longer than a small convolution.
    compiling = torch.compiler.is_compiling()
    make = getattr(torch.ops.torchdcls, f"mixed_{map}") if compiling else partial(_run, map)
    result: Tensor = make(one, other, problem.groups, problem.before[0], size)
    return result


def operations(problem: Problem, part: Part) -> dict[str, float]:
    """Multiplications over channels, and operations of the transforms."""
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
    return {"native call": 1.0, "fft mixed product": products, "native spectra": transforms}


def _run(map: Map, one: Tensor, other: Tensor, groups: int, before: int, size: int) -> Tensor:
    result = _like(map, one, other, groups, before, size)
    # The tensors of a convolution, one of which is written.
    tensors = {"convolve": (one, other, result), "transpose": (result, other, one), "correlate": (one, result, other)}
    input, weight, output = (shown(tensor) for tensor in tensors[map])
    kernels = library()
    assert kernels is not None
    inputs, outputs = input.shape[1] // groups, output.shape[1] // groups
    sizes = _Mixing(input.shape[0], groups, inputs, outputs, input.shape[2], output.shape[2], weight.shape[2], before)
    views = (ctypes.byref(view(tensor)) for tensor in (input, weight, output))
    if kernels.td_mix(input.dtype == torch.float64, MAPS.index(map), ctypes.byref(sizes), *views):
        shape = tuple(weight.shape)
        raise RuntimeError(f"out of memory: the compiled library could not hold the spectra of {shape}")
    return result


def _like(map: Map, one: Tensor, other: Tensor, groups: int, before: int, size: int) -> Tensor:
    if map == "correlate":
        return one.new_empty((other.shape[1], one.shape[1] // groups, size))
    return one.new_empty((one.shape[0], other.shape[0] if map == "convolve" else other.shape[1] * groups, size))


for _map in MAPS:
    _schema = f"mixed_{_map}(Tensor one, Tensor other, SymInt groups, SymInt before, SymInt size) -> Tensor"
    define_operator(_schema, partial(_run, _map), partial(_like, _map))
