"""Updates that are recorded and replayed come to what plain ones come to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchdcls import Dcls2d
from torchdcls_train.comparison.loop import Epoch, train
from torchdcls_train.comparison.recorded import PLAIN_CALLS, Recorded


class StandInGraph(TorchDispatchMode):
    """A CUDA graph for CPUs: the operations done under it, and their doing again with the same memory.

    A GPU records without doing; here the first replay has been done already.
    """

    made: list["StandInGraph"]

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []
        self.replays = 0
        self.made.append(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return
        with torch.no_grad():
            for func, args, kwargs, made in self.operations:
                again = tree_leaves(func(*args, **kwargs))
                for old, new in zip(tree_leaves(made), again, strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class StandInStream:
    def wait_stream(self, other: object) -> None:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[StandInGraph]:
    """All graphs that are made; CUDA's graphs and streams on a CPU where there is no GPU."""
    StandInGraph.made = []
    if torch.cuda.is_available():
        return StandInGraph.made

    @contextmanager
    def record(graph: StandInGraph) -> Iterator[None]:
        with graph:
            yield

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandInGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: StandInStream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: StandInStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return StandInGraph.made


@dataclass
class Settings:
    epochs: int | None = 3
    lr: float = 1e-2
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0


class Batches:
    """Six batches a pass, the last of another size."""

    sizes = (6, 6, 6, 6, 6, 4)

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(3)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for size in self.sizes:
            yield torch.randn(size, 2, 9, 9, generator=self.random), torch.randint(3, (size,), generator=self.random)


def model(interpolation: Any) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        Dcls2d(2, 2, 3, padding="same", dilated_kernel_size=5, groups=2, interpolation=interpolation) for _ in range(2)
    ]
    layers[1].position, layers[1].sigma = layers[0].position, layers[0].sigma
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(162, 3))


def trained(interpolation: str, device: str, recorded: bool) -> tuple[nn.Module, list[Epoch]]:
    made = model(interpolation).to(device)
    epochs = train(
        made,
        Batches(),
        Settings(),
        score=lambda model: (0.0, float(sum(p.detach().double().sum() for p in model.parameters()))),
        device=torch.device(device),
        on_batch=lambda images: None,
        bilinear=interpolation == "bilinear",
        recorded=recorded,
    )
    return made, list(epochs)


@pytest.mark.parametrize("interpolation", ["bilinear", "gaussian"])
def test_replayed_training_is_plain_training(
    interpolation: str, graphs: list[StandInGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates that change with every step, batches of another size, and the repulsion that begins in between."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        # What torch calls capturable it has on GPUs alone; a fused optimiser counts its steps in tensors on CPUs too.
        adamw = torch.optim.AdamW
        monkeypatch.setattr(torch.optim, "AdamW", lambda groups, capturable, fused: adamw(groups, fused=True))
    wanted, plain = trained(interpolation, device, recorded=False)
    got, replayed = trained(interpolation, device, recorded=True)
    for one, other in zip(plain, replayed, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert one.accuracy == pytest.approx(other.accuracy, rel=1e-5)
    # What is done once, in the first epoch, is no part of the speed.
    assert replayed[0].images_per_second != pytest.approx(sum(Batches.sizes) / replayed[0].seconds)
    assert replayed[2].images_per_second == pytest.approx(sum(Batches.sizes) / replayed[2].seconds)
    for (name, one), (_, other) in zip(wanted.named_parameters(), got.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    if device == "cpu":
        # Of bilinear elements one before they repel each other and one after.
        steps = [1, 2] if interpolation == "bilinear" else [3]
        full = len(Batches.sizes) - 1
        assert [graph.replays for graph in graphs] == [epochs * full - PLAIN_CALLS for epochs in steps]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_graph() -> None:
    weight = nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = torch.optim.AdamW([weight], capturable=True, fused=True)

    def update(images: Tensor, labels: Tensor) -> Tensor:
        loss = (images * weight).sum() + labels.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    step = Recorded(update, optimizer)
    losses = [step(torch.ones(3, device="cuda"), torch.ones(1, device="cuda")).item() for _ in range(6)]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 6
