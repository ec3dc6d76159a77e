"""Updates that are captured and replayed come to what plain ones come to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchdcls import Dcls2d
from torchdcls.ops import kernel
from torchdcls_train import trainer
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.training import Epoch, short_run, short_settings
from torchdcls_train.cuda_graph import PLAIN_CALLS, GraphedUpdate
from torchdcls_train.data.batches import Batch
from torchdcls_train.settings import TrainConfig


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

    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandInGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: StandInStream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: StandInStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return StandInGraph.made


def settings(interpolation: str, **changes: Any) -> TrainConfig:
    asked = CompareConfig(epochs=3, batch_size=6, lr=1e-2, warmup_epochs=1.0)
    return replace(short_settings(asked, 0, bilinear=interpolation == "bilinear"), **changes)


class Batches:
    """Six batches a pass, the last of another size."""

    sizes = (6, 6, 6, 6, 6, 4)

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(3)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        for size in self.sizes:
            images = torch.randn(size, 2, 9, 9, generator=self.random)
            yield Batch(images, torch.randint(3, (size,), generator=self.random), (), (), 0)


def model(interpolation: Any) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        Dcls2d(2, 2, 3, padding="same", dilated_kernel_size=5, groups=2, interpolation=interpolation) for _ in range(2)
    ]
    layers[1].position, layers[1].sigma = layers[0].position, layers[0].sigma
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(162, 3))


def trained(interpolation: str, device: str, cuda_graph: bool, **changes: Any) -> tuple[nn.Module, list[Epoch]]:
    made, batches = model(interpolation).to(device), Batches()
    changed = settings(interpolation, **changes)
    return made, list(short_run(made, batches, list(Batches()), changed, torch.device(device), cuda_graph=cuda_graph))


@pytest.mark.parametrize(("interpolation", "changes"), [("bilinear", {}), ("gaussian", {"clip_grad": 0.1, "ema": 0.9})])
def test_replayed_training_is_plain_training(
    interpolation: str, changes: dict[str, Any], graphs: list[StandInGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates that change with every update, batches of another size, and the repulsion that begins in between."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        # The stand-in replays torch's operations, and kernels are made by none where the compiled library makes them.
        monkeypatch.setattr(kernel, "can_fuse", lambda *_: False)
        # What torch calls capturable it has on GPUs alone; a fused optimizer counts its steps in tensors on CPUs too.
        create = trainer.create_optimizer_v2
        monkeypatch.setattr(
            trainer,
            "create_optimizer_v2",
            lambda *args, capturable=False, fused=True: create(*args, fused=True),
        )
    wanted, plain = trained(interpolation, device, False, **changes)
    got, replayed = trained(interpolation, device, True, **changes)
    for one, other in zip(plain, replayed, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert (one.loss, one.accuracy) == pytest.approx((other.loss, other.accuracy), rel=1e-5)
    # What is done once, in the first epoch, is no part of the speed.
    assert replayed[0].images_per_second != pytest.approx(sum(Batches.sizes) / replayed[0].seconds)
    assert replayed[2].images_per_second == pytest.approx(sum(Batches.sizes) / replayed[2].seconds)
    for (name, one), (_, other) in zip(wanted.named_parameters(), got.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    if device == "cpu":
        # Of bilinear elements one before they repel each other and one after.
        epochs = [1, 2] if interpolation == "bilinear" else [3]
        full = len(Batches.sizes) - 1
        assert [graph.replays for graph in graphs] == [count * full - PLAIN_CALLS for count in epochs]


@pytest.mark.parametrize("changes", [{"micro_batch": 3}, {"mixup": 0.8}, {"cutmix": 1.0}])
def test_what_a_graph_cannot_hold_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^cuda_graph: expected one process, one micro-batch"):
        trained("gaussian", "cpu", True, **changes)


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

    step = GraphedUpdate(update, optimizer)
    losses = [step(torch.ones(3, device="cuda"), torch.ones(1, device="cuda")).item() for _ in range(6)]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 6
