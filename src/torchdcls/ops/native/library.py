"""The compiled library: found, loaded, and set to the threads of torch; and its arguments."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..caches import cached, enlist
from ..tracing import constant_when_compiled

FILE = Path(__file__).with_name("_kernels.so")
SWITCH = "TORCHDCLS_NATIVE"
INTERFACE = 2  # TD_INTERFACE of csrc/torchdcls.h, to which the structures belong
_IN_USE: list[ctypes.CDLL] = []
# Their numbers in `csrc/torchdcls.h`.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
LENGTH = ctypes.c_int64


class TensorView(ctypes.Structure):
    """A `td_tensor`: strides of batch, channel, z, y, x, in elements."""

    _fields_ = (("data", ctypes.c_void_p), ("stride", LENGTH * 5), ("dtype", LENGTH))


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None; `status` says why."""
    return _loaded()[0]


def status() -> str:
    """Which instruction set the compiled kernels use, or why they are not in use.

    Example:
        >>> import torchdcls
        >>> print(torchdcls.native.status())  # doctest: +SKIP
        compiled kernels for avx512, on the threads of torch
    """
    return _loaded()[1]


@constant_when_compiled
def missing() -> str | None:
    """Why there are no compiled kernels, or None if there are."""
    kernels, words = _loaded()
    return words if kernels is None else None


@cached(maxsize=1)
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    value = os.environ.get(SWITCH, "1")
    if value == "0":
        return None, f"no compiled kernels: {SWITCH}=0 turns them off"
    if not FILE.exists():
        return None, "no compiled kernels: this installation was made without a C compiler"
    try:
        kernels = ctypes.CDLL(str(FILE))
    except OSError as error:
        return None, f"no compiled kernels: the library cannot be loaded ({error})"
    if not hasattr(kernels, "td_interface") or kernels.td_interface() != INTERFACE:
        return None, "no compiled kernels: the library is of another version; reinstall the package"
    kernels.td_variant.restype = ctypes.c_char_p
    kernels.td_count.restype = kernels.td_count_mixed.restype = ctypes.c_double
    names: list[str] = []
    while (name := kernels.td_variant(len(names))) is not None:
        names.append(name.decode())
    able = [name for index, name in enumerate(names) if kernels.td_variant_runs(index)]
    taken = able[0] if value == "1" else value
    if taken not in able:
        return None, f"no compiled kernels: {SWITCH} is expected to be 0, 1 or one of {', '.join(able)}, got {value!r}"
    kernels.td_choose(names.index(taken))
    _IN_USE.append(kernels)
    kernels.td_set_parallel.argtypes = [ctypes.c_void_p]
    parallel = _torch_parallel_for()
    kernels.td_set_parallel(parallel)
    return kernels, f"compiled kernels for {taken}, on {'one thread' if parallel is None else 'the threads of torch'}"


def _free() -> None:
    while _IN_USE:
        _IN_USE.pop().td_clear()


enlist(_free)


def _torch_parallel_for() -> int | None:
    # A plain C function of torch's stable interface. A thread pool of our own would compete with torch's for the cores.
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        if (folder / name).exists():
            function = getattr(ctypes.CDLL(str(folder / name)), "torch_parallel_for", None)
            return None if function is None else ctypes.cast(function, ctypes.c_void_p).value
    return None


def three(sizes: Sequence[int], missing: int) -> ctypes.Array[LENGTH]:
    """Sizes along z, y and x, `missing` in front of fewer."""
    return (LENGTH * 3)(*(missing for _ in range(3 - len(sizes))), *sizes)


def view(tensor: Tensor) -> TensorView:
    """A map (batch, channels, *map) or a weight (1, channels, *kernel), of one to three axes and any strides."""
    batch, channel, *axes = tensor.stride()
    strides = (batch, channel, *(0 for _ in range(3 - len(axes))), *axes)
    return TensorView(tensor.data_ptr(), (LENGTH * 5)(*strides), DTYPES[tensor.dtype])
