"""What making kernels and convolving share of GPUs."""

from contextlib import nullcontext

import torch

from torchdcls.ops import gpu


def test_launches_go_to_the_tensors_gpu(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or nullcontext())
    with gpu.current(torch.device("cuda", 1)), gpu.current(torch.device("cpu")):
        assert entered == [torch.device("cuda", 1)]


def test_powers_above():
    assert [gpu.power_above(size) for size in (0, 1, 2, 3, 16, 17)] == [1, 1, 2, 4, 16, 32]
