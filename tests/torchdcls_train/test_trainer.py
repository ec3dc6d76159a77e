"""The updates of an epoch: what is told of them, and when."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.training import short_settings
from torchdcls_train.data.batches import Batch
from torchdcls_train.processes import Processes
from torchdcls_train.trainer import NotFiniteError, Step, Trainer, plain_updates

ROOT = Path(__file__).parents[2]


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


def test_a_loss_that_is_not_finite_is_refused_and_not_told() -> None:
    made = trainer()
    broken = Batch(torch.full((2, 3), torch.inf), torch.tensor([0, 1]), ("c", "d"), (), 0)
    told = made.epoch([*list(updates())[:2], [broken], *updates()], Step(1, 0))
    assert [next(told).step.update, next(told).step.update] == [0, 1]
    with pytest.raises(NotFiniteError, match=r"^the training loss of epoch 2 is nan after update 3; try a") as raised:
        next(told)
    done = raised.value.done
    assert done is not None and (done.step, done.names_not_finite()) == (Step(1, 2), ["c", "d"])


def test_plain_updates_are_those_of_a_plain_loop() -> None:
    """To the bit, with a schedule that moves momentum too; the caller's loop runs after each update."""

    def made() -> tuple[nn.Linear, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)

    batches = [batch.images for (batch,) in updates()]
    model, optimizer, schedule = made()
    losses = []
    for batch in batches:
        loss = model(batch).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        model.weight.data.clamp_(-0.3, 0.3)
        losses.append(loss.item())
    other, optimizer, schedule = made()
    found = []
    for value in plain_updates(optimizer, schedule, batches, lambda batch: other(batch).square().sum()):
        other.weight.data.clamp_(-0.3, 0.3)
        found.append(value)
    assert found == losses
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


def test_plain_updates_refuse_a_loss_that_is_not_finite_before_anything_moves() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    told = plain_updates(optimizer, schedule, [1.0, 2.0, torch.inf], lambda scale: (scale * weight).sum())
    assert [next(told), next(told)] == pytest.approx([2.0, 3.6])
    before = weight.detach().clone()
    with pytest.raises(NotFiniteError, match=r"^the training loss is inf after update 2; try a smaller learning rate$"):
        next(told)
    assert torch.equal(weight, before)


def steps_of_optimizers(source: str) -> list[str]:
    """Calls that take gradients for an optimizer or step one."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [ast.unparse(called) for called in calls if isinstance(called, ast.Attribute)]
    return sorted(name for name in names if name.endswith((".backward", "optimizer.step")))


def test_only_the_trainer_steps_an_optimizer() -> None:
    files = [path for folder in ("src/torchdcls_train", "studies") for path in (ROOT / folder).rglob("*.py")]
    files.append(ROOT / "benchmarks" / "fine_tuning.py")  # the benchmark that is a training run
    found = {path.relative_to(ROOT).as_posix(): steps_of_optimizers(path.read_text()) for path in files}
    assert {name: calls for name, calls in found.items() if calls} == {
        "src/torchdcls_train/trainer.py": ["objective.backward", "optimizer.step"]
    }
    assert len(steps_of_optimizers("torch.autograd.backward(loss)\nself.optimizer.step()")) == 2 and len(found) > 80
