"""How much memory a computation keeps for its backward pass, and how much it takes at its peak."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .record import ROOT


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Bytes of the storages that `forward` saves for backward, each counted once and whole, without parameters' own."""
    known = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    # Holds what was saved until the count is over: a freed address could be given out again.
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor.detach()  # a result that its own node saves would hold itself

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for address, storage in storages.items() if address not in known)


def in_a_process(module: str, function: str, *arguments: object) -> Any:
    """What a module's function gives in a process of its own, where nothing else has taken memory; through JSON."""
    code = f"import json, {module}; print(json.dumps({module}.{function}(*{arguments!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout)


def peak_beyond_start(run: Callable[[], object], times: int = 1) -> int:
    """Bytes that a process held at most while it ran `run`, beyond those it held before. Linux only.

    For a process of its own: memory that was taken and freed before is given out again without counting.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # a new peak starts
    before = _status("VmRSS")
    for _ in range(times):
        run()
    return _status("VmHWM") - before


def peak_of_this_process() -> int:
    """Bytes that this process has held at most, since its start or `peak_beyond_start`. Linux only."""
    return _status("VmHWM")


def _status(field: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024
