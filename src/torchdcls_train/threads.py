"""How many CPU threads are worth having beside what else a machine does.

Threads that share a convolution wait for the slowest of them. On a core that another process uses too that one comes
late each time, and several threads together do less than one.
"""

import time

import torch
import torch.nn.functional as F

# Long enough to meet the time slices of other processes, which are some milliseconds.
_TURNS, _SECONDS = 10, 0.02


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
    """`wanted`, or 1 where so many threads are slower than one at this moment; torch's own number stays as it is."""
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
