"""How many CPU threads are worth having beside what else a machine does.

Threads that share a convolution wait for the slowest of them. On a core that another process uses too that one comes
late each time, and several threads together do less than one.
"""

import time

import torch
import torch.nn.functional as F

# Long enough to meet the time slices of other processes, which are some milliseconds.
_TURNS, _SECONDS = 10, 0.02


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
