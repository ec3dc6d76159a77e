"""The updates of an epoch: what is told of them, and when."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.training import short_settings
from torchdcls_train.data.batches import Batch
from torchdcls_train.processes import Processes
from torchdcls_train.trainer import Step, Trainer


def trainer() -> Trainer:
    torch.manual_seed(0)
    settings = short_settings(CompareConfig(epochs=1, batch_size=2).checked(), seed=0)
    return Trainer(settings, nn.Linear(3, 2), updates_per_epoch=5, group=Processes(torch.device("cpu")))


def updates() -> Iterator[list[Batch]]:
    random = torch.Generator().manual_seed(1)
    for number in range(5):
        failures = ("broken",) * (number == 3)
        yield [Batch(torch.randn(2, 3, generator=random), torch.tensor([0, 1]), ("a", "b"), failures, 0)]


class LateEvent:
    """A GPU's event, which comes when it is waited for."""

    waited = 0

    def synchronize(self) -> None:
        LateEvent.waited += 1


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses come later, as from a GPU."""
    on_their_way = Trainer._on_their_way

    def later(*args: object) -> tuple[Tensor, LateEvent]:
        values, _ = on_their_way(*args)  # type: ignore[arg-type]
        return values, LateEvent()

    monkeypatch.setattr(Trainer, "_on_their_way", later)
    LateEvent.waited = 0


def told(made: Trainer, monkeypatch: pytest.MonkeyPatch, **how: object) -> list[tuple[int, int, bool, bool]]:
    """Of each update its number, how many had begun when it was told, and whether it had settled and stops."""
    begun, one_update = 0, made.update

    def counted(batches: list[Batch], step: Step) -> Tensor:
        nonlocal begun
        begun += 1
        return one_update(batches, step)

    monkeypatch.setattr(made, "update", counted)
    found = made.epoch(updates(), Step(0, 0), **how)  # type: ignore[arg-type]
    return [(done.step.update, begun, done.settled, done.stops) for done in found]


def test_on_a_cpu_each_update_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(trainer(), monkeypatch) == [(number, number + 1, True, False) for number in range(5)]


@pytest.mark.usefixtures("late")
def test_on_a_gpu_each_update_is_told_after_the_next_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(trainer(), monkeypatch) == [(number, min(number + 2, 5), number == 4, False) for number in range(5)]
    assert LateEvent.waited == 5


@pytest.mark.usefixtures("late")
def test_it_settles_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(trainer(), monkeypatch, settle_every=2)
    assert found == [
        (0, 2, False, False),
        (1, 2, True, False),
        (2, 4, False, False),
        (3, 4, True, False),
        (4, 5, True, False),
    ]


@pytest.mark.usefixtures("late")
def test_a_stop_is_heard_after_the_update_in_which_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False, True, False, False, False])
    found = told(trainer(), monkeypatch, asked=lambda: next(asked))
    # The third had begun before the second's word came.
    assert found[:3] == [(0, 2, False, False), (1, 3, False, True), (2, 3, True, True)]


@pytest.mark.usefixtures("late")
def test_late_losses_are_those_that_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(trainer().epoch(updates(), Step(0, 0)))
    monkeypatch.undo()
    expected = list(trainer().epoch(updates(), Step(0, 0)))
    assert [(done.step, done.lr, done.loss, done.losses) for done in found] == [
        (done.step, done.lr, done.loss, done.losses) for done in expected
    ]
    assert [done.unreadable for done in found] == [0, 0, 0, 1, 0]
    assert len({done.loss for done in found}) == 5
