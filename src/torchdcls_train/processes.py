"""The processes of a run: one, or as many as torchrun starts; their device, and how many CPU threads each has."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

_PR_SET_PDEATHSIG = 1
_MOST_WORKERS = 8
# Long enough to meet the time slices of other processes, which are some milliseconds.
_TURNS, _SECONDS = 10, 0.02


@dataclass(frozen=True)
class Processes:
    """This process, of number `rank`, among the `world` of them that a run has on all machines."""

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


def set_threads(wanted: int | None, device: torch.device) -> str | None:
    """Sets torch's number of threads.

    Args:
        wanted: The number, or None for torch's own, or 1 where those are slower.
        device: Where to compute.

    Returns:
        What is to be said about the number beside what else the machine does, or None.
    """
    threads = torch.get_num_threads() if wanted is None else wanted
    helpful = helpful_threads(threads) if device.type == "cpu" else threads
    torch.set_num_threads(threads if wanted is not None else helpful)
    if helpful == threads:
        return None
    if wanted is None:
        return (
            f"1 CPU thread instead of {threads}: other processes use the CPU, and measured now {threads} threads are "
            f"slower than one (--threads {threads} takes them all the same)"
        )
    return (
        f"Warning: --threads {threads} is slower than --threads 1 as measured now, because other processes use the CPU"
    )


def helpful_threads(wanted: int) -> int:
    """`wanted`, or 1 where so many threads are slower than one at this moment; torch's own number stays as it is.

    Threads that share a convolution wait for the slowest of them. On a core that another process uses too that one
    comes late each time, and several threads together do less than one.
    """
    if wanted <= 1:
        return 1
    before = torch.get_num_threads()
    try:
        done = dict.fromkeys((1, wanted), 0.0)
        for _ in range(_TURNS):
            for threads in done:
                done[threads] += _rate(threads)
    finally:
        torch.set_num_threads(before)
    return wanted if done[wanted] > done[1] else 1


@torch.no_grad()
def _rate(threads: int) -> float:
    """Steps like those of a small model's training, per second."""
    torch.set_num_threads(threads)
    images, kernel = torch.ones(16, 16, 28, 28), torch.ones(16, 1, 7, 7)
    steps, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _SECONDS:
        F.gelu(F.conv2d(images, kernel, padding=3, groups=16))
        steps += 1
    return steps / seconds
