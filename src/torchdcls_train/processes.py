"""The processes of a run: one, or as many as torchrun starts."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_PR_SET_PDEATHSIG = 1
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Args:
        device: Where it computes.
        rank: Its number over all machines; number 0 writes and prints.
        world: How many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums numbers over all processes, in double precision."""
        if self.world == 1:
            return list(numbers)
        return self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def as_first(self, tensors: Iterable[Tensor]) -> None:
        """Sets tensors to those of the first process, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """The values that all processes call this with, by rank."""
        values = [value]
        if self.world > 1:
            values = [None] * self.world
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits for all processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started, by NCCL on GPUs and gloo on CPUs; without torchrun there is one.

    Args:
        device: "auto" or a device; each process of a machine takes a GPU of its own.

    Raises:
        ValueError: The device cannot be used, or there are processes that torchrun did not start.
    """
    if not dist.is_torchelastic_launched():
        started = max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
        if started > 1:
            raise ValueError(
                f"expected one process, or processes that torchrun started, got {started} started by something else; "
                "start one torchrun on each machine"
            )
        yield Processes(find_device(device))
        return
    _end_with_parent()
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # before anything is put onto the first one
    found = find_device(device)
    if found.type == "cuda":
        found = torch.device("cuda", local)
        if found.index >= torch.cuda.device_count():
            raise ValueError(
                f"device: expected a GPU for each process of this machine, got {torch.cuda.device_count()} of them and "
                f"process {found.index + 1}; start torchrun with --nproc-per-node {torch.cuda.device_count()}"
            )
    on_gpu = found.type == "cuda"
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=found if on_gpu else None)
    yield Processes(found, dist.get_rank(), dist.get_world_size())
    # Not after an error: NCCL would wait for the others, and torchrun for the end of this process.
    dist.destroy_process_group()


def find_device(name: str) -> torch.device:
    """The device of this name, "auto" for a GPU where there is one.

    Raises:
        ValueError: This machine has no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        without = name.startswith("cuda") and not torch.cuda.is_available()  # torch's own words are of drivers
        reason = "torch finds no GPU here; 'cpu' is slow but there" if without else str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # and two dozen names follow
            reason = "torch has no device of this name; a GPU is 'cuda', or 'mps' on a Mac"
        raise ValueError(f"device: expected 'auto' or a device of this machine, got {name!r} ({reason})") from None
    return device


def default_workers() -> int:
    """Processes that read images for each training process of this machine: as many as it has cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def device_name(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _end_with_parent() -> None:
    # A killed launcher would otherwise leave this process training, and writing over the checkpoints of the next run.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            raise SystemExit("the launcher has ended")
