"""Random numbers that depend on a place alone: on the seed, the epoch and where in it something stands.

Nothing is kept from one place to the next: it does not matter which process draws them, or after what.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


def seed_of(*place: int | str) -> int:
    """A seed of 64 bits for a place, the same on every machine. Places that differ get seeds without any relation."""
    return int.from_bytes(blake2b(repr(place).encode(), digest_size=8).digest(), "big")


def seed_generators(seed: int) -> None:
    """Seeds what augmentation draws from: the generators of Python, NumPy and torch (CPU)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed, which seeds those of all devices as well and takes a hundred times as long.
    torch.default_generator.manual_seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leaves the generators of Python, NumPy and torch (CPU) as they were before."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
