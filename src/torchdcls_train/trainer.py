"""The updates of a model: losses of micro-batches, gradients of all processes, the optimizer, the averaged weights.

Nothing else in this package or in the studies steps an optimizer: what needs no `Trainer` takes `plain_updates`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from torchdcls._checks import nearest
from torchdcls.models.named import timm_model
from torchdcls.nn import DclsLayer
from torchdcls.optim import clamp_positions_, param_groups, repulsion_loss

from .cuda_graph import GraphedUpdate
from .data.batches import Batch
from .data.random_numbers import seed_of
from .processes import Processes
from .settings import TrainConfig

Item = TypeVar("Item")

# The share from which on a class counts as present in an image that is mixed from two (ResNet strikes back).
_MIXED_IN = 0.2


def build_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The model of a run, with weights drawn from its seed.

    Raises:
        ValueError: timm has no such model, or it does not take these arguments.
    """
    torch.manual_seed(config.seed)
    model = timm_model(
        config.model,
        num_classes=num_classes,
        drop_path_rate=config.drop_path or None,
        model_args=config.model_args,
        called="model",
    )
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(memory_format=memory_format)  # type: ignore[no-any-return, call-overload]


@dataclass(frozen=True)
class Step:
    """An update of a run: its epoch and its number within it, both counted from 0."""

    epoch: int
    update: int


@dataclass(frozen=True)
class Done:
    """An update whose loss is known.

    Args:
        step: Which one.
        lr: Its base learning rate.
        loss: Mean over the micro-batches of all processes.
        unreadable: Images of all processes that could not be read.
        losses: Of this process's micro-batches.
        batches: These.
        settled: Whether no later update has begun, so that the model is as this one left it.
        stops: Whether a process was asked to end, as all of them hear after the same update.
        begins: Whether it was the first that a CUDA graph repeated.
    """

    step: Step
    lr: float
    loss: float
    unreadable: int
    losses: Sequence[float]
    batches: Sequence[Batch]
    settled: bool
    stops: bool
    begins: bool

    def names_not_finite(self) -> list[str]:
        """Names of the images of this process whose losses are not finite."""
        pairs = zip(self.losses, self.batches, strict=True)
        return [name for loss, batch in pairs if not math.isfinite(loss) for name in batch.names]


class NotFiniteError(FloatingPointError):
    """The loss of an update is not finite.

    Args:
        loss: The loss.
        after: Number of updates, for the message.
        done: The update of a `Trainer`; None for those of `plain_updates`.
    """

    def __init__(self, loss: float, after: int, done: Done | None = None) -> None:
        of = "" if done is None else f" of epoch {done.step.epoch + 1}"
        super().__init__(f"the training loss{of} is {loss} after update {after}; try a smaller learning rate")
        self.loss, self.done = loss, done


def plain_updates(
    optimizer: torch.optim.Optimizer, schedule: LRScheduler, items: Iterable[Item], loss: Callable[[Item], Tensor]
) -> Iterator[float]:
    """Updates any model by a loss, an optimizer and a schedule, in one process.

    Args:
        schedule: Stepped after each update.
        items: One for each update, such as a batch; the argument of `loss`.
        loss: Returns a scalar. It is called before each update; the body of the caller's loop runs after it.

    Yields:
        The losses.

    Raises:
        NotFiniteError: Before that loss moves a parameter.
    """
    for number, item in enumerate(items):
        objective = loss(item)
        value = _finite(float(objective.detach()), number)
        _move(optimizer, [objective])
        schedule.step()
        yield value


def _finite(loss: float, after: int, done: Done | None = None) -> float:
    if not math.isfinite(loss):
        raise NotFiniteError(loss, after, done)
    return loss


def _move(optimizer: torch.optim.Optimizer, objectives: Iterable[Tensor]) -> None:
    """Steps an optimizer by the gradient of the sum of objectives; each is computed after the gradients of the last."""
    optimizer.zero_grad()
    for objective in objectives:
        objective.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class Trainer:
    """A model in training.

    Args:
        config: Settings.
        model: On the device of `group`; trained in place.
        updates_per_epoch: Number of updates in an epoch.
        group: The processes that train it together.
        num_classes: Number of classes; mixup and cutmix need it.
        cuda_graph: Whether updates are replayed as a CUDA graph (`GraphedUpdate`).

    Attributes:
        compiles: Whether the first update compiles the model.
        ema: An average of its parameters, each counted once, with its buffers; None without.
        ema_updates: How often that was updated.
        on_images: Called with the number of images of all processes after each micro-batch.

    Raises:
        ValueError: timm has no such optimizer, or a setting needs what the model lacks or a CUDA graph cannot hold.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        updates_per_epoch: int,
        group: Processes,
        *,
        num_classes: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        self.config, self.model, self.group = config, model, group
        self.updates_per_epoch = updates_per_epoch
        learns_positions = any(isinstance(module, DclsLayer) for module in model.modules())
        if not learns_positions and (config.clamp_positions or config.repulsion_from is not None):
            name = "clamp_positions" if config.clamp_positions else "repulsion_from"
            raise ValueError(f"{name}: expected a model with DCLS layers, got {config.model} without any")
        if cuda_graph and (group.world > 1 or config.micro_batch < config.batch_size or config.mixup or config.cutmix):
            raise ValueError("cuda_graph: expected one process, one micro-batch an update, no mixup and no cutmix")
        self.optimizer = _optimizer(config, model, cuda_graph)
        warmup = round(config.warmup_epochs * updates_per_epoch)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=config.epochs * updates_per_epoch - (warmup if config.cosine_after_warmup else 0),
            lr_min=config.min_lr,
            warmup_t=warmup,
            warmup_prefix=config.cosine_after_warmup,
            t_in_epochs=False,
        )
        self.ema = None
        if config.ema is not None:
            self.ema = ModelEmaV3(model, config.ema, exclude_buffers=True)  # type: ignore[no-untyped-call]
            self.ema.module.requires_grad_(False)
        self.ema_updates = 0
        self._mixup = None
        if config.mixup or config.cutmix:
            self._mixup = Mixup(  # type: ignore[no-untyped-call]
                config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=num_classes
            )
        self._wrapped: nn.Module = model
        if group.world > 1:
            self._wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        # Compiling for CPUs takes minutes, and more memory than many have.
        self.compiles = group.device.type != "cpu" if config.compile is None else config.compile
        if self.compiles:
            self._wrapped.compile()
        self._cuda_graph = cuda_graph
        # By whether elements repel each other.
        self._graphed: dict[bool, GraphedUpdate] = {}
        self.on_images: Callable[[int], None] = lambda images: None

    def epoch(
        self,
        updates: Iterable[Sequence[Batch]],
        first: Step,
        *,
        settle_every: int | None = None,
        asked: Callable[[], bool] = lambda: False,
    ) -> Iterator[Done]:
        """Does the updates of an epoch, each while a GPU still works on the one before.

        Args:
            updates: For each update the micro-batches of this process.
            first: The update to begin with.
            settle_every: After every so many updates of the epoch it waits for their losses, as after the last.
            asked: Whether this process was asked to end. It waits after the update in which one was.

        Yields:
            The updates in turn, each as soon as its loss is known.

        Raises:
            NotFiniteError: In all processes after the same update.
        """
        self._wrapped.train()
        under_way: deque[tuple[partial[Done], Tensor, torch.cuda.Event | None]] = deque()
        micro_batches, stops = self.config.batch_size // self.config.micro_batch, False
        for number, batches in enumerate(updates, start=first.update):
            step = Step(first.epoch, number)
            losses = self.update(batches, step)
            begins = any(update.begins for update in self._graphed.values())
            done = partial(Done, step, self.lr, batches=batches, begins=begins)
            under_way.append((done, *self._on_their_way(losses, batches, asked())))
            settles = begins or number + 1 == self.updates_per_epoch
            settles = settles or (settle_every is not None and (number + 1) % settle_every == 0)
            while under_way and (settles or stops or len(under_way) > 1 or under_way[0][2] is None):
                done, values, event = under_way.popleft()
                if event is not None:
                    event.synchronize()
                loss, unreadable, stop, *each = values.tolist()
                stops = stops or stop > 0
                told = done(
                    loss=loss / micro_batches,
                    unreadable=int(unreadable),
                    losses=each,
                    settled=not under_way,
                    stops=stops,
                )
                _finite(told.loss, told.step.update + 1, told)
                yield told

    def update(self, batches: Sequence[Batch], step: Step) -> Tensor:
        """Does one update.

        Args:
            batches: This process's micro-batches.
            step: Decides on the learning rate and on what is random.

        Returns:
            (len(batches)), the loss of each, detached, on the device.
        """
        config = self.config
        self.schedule.step_update(step.epoch * self.updates_per_epoch + step.update)
        repels = config.repulsion_from is not None and step.epoch >= config.repulsion_from
        inputs = self._inputs(batches, step)
        if self._cuda_graph:
            if repels not in self._graphed:
                # There is no way back from the second to the first, whose memory is then free.
                update = partial(self._graphed_update, repels)
                self._graphed = {repels: GraphedUpdate(update, self.optimizer)}
            (losses,) = (self._graphed[repels](images, labels) for images, labels in inputs)
        else:
            losses = self._update(inputs, len(batches), repels)
        if self.ema is not None:
            # At step 0 the average is set to the model.
            self.ema.update(self.model, None if self.ema_updates else 0)
            self.ema_updates += 1
        return losses

    def _inputs(self, batches: Sequence[Batch], step: Step) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels on the device; what is random from here on depends on the place of the batch alone."""
        for batch in batches:
            _seed(self.config.seed, step.epoch, step.update, batch.micro_batch)
            images = batch.images.to(self.group.device, non_blocking=True)
            if self.config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield images, batch.labels.to(self.group.device, non_blocking=True)
            self.on_images(len(batch.labels) * self.group.world)

    def _graphed_update(self, repels: bool, images: Tensor, labels: Tensor) -> Tensor:
        return self._update([(images, labels)], 1, repels)

    def _update(self, inputs: Iterable[tuple[Tensor, Tensor]], micro_batches: int, repels: bool) -> Tensor:
        losses: list[Tensor] = []

        def objectives() -> Iterator[Tensor]:
            for images, labels in inputs:
                # Gradients are summed over processes once an update, with those of the last micro-batch.
                last = len(losses) == micro_batches - 1
                with nullcontext() if last or self.group.world == 1 else self._wrapped.no_sync():  # type: ignore[operator]
                    loss = self._loss(images, labels)
                    losses.append(loss.detach())
                    objective = loss / micro_batches
                    yield objective + repulsion_loss(self.model) ** 2 if repels and last else objective
            # All gradients are there.
            if self.config.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)

        _move(self.optimizer, objectives())
        if self.config.clamp_positions:
            clamp_positions_(self.model)
        return torch.stack(losses)

    def _on_their_way(
        self, losses: Tensor, batches: Sequence[Batch], stop: bool
    ) -> tuple[Tensor, torch.cuda.Event | None]:
        """Sum of all losses, unreadable images and processes that stop, then the losses; and when they have come."""
        unreadable = sum(batch.unreadable for batch in batches)
        # Filled on the device: a copy from the host would wait for it.
        counts = losses.new_full((), unreadable), losses.new_full((), stop)
        sums = self.group.sum(torch.stack([losses.sum(), *counts]))
        values = torch.cat([sums, losses])
        if not values.is_cuda:
            return values, None
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        host.copy_(values, non_blocking=True)
        event.record()
        return host, event

    @property
    def lr(self) -> float:
        """The base learning rate of the last update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        if self._mixup is not None:
            images, labels = self._mixup(images, labels)
        with autocast(self.config, self.group.device):
            scores = self._wrapped(images)
        scores, smoothing = scores.float(), self.config.label_smoothing
        if self.config.loss == "binary":
            return BinaryCrossEntropy(smoothing, target_threshold=_MIXED_IN)(scores, labels)  # type: ignore[no-any-return]
        # Mixed labels are shares of classes, smoothed already.
        return F.cross_entropy(scores, labels, label_smoothing=0.0 if self._mixup is not None else smoothing)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The precision that a run asks for, as a context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


def _optimizer(config: TrainConfig, model: nn.Module, cuda_graph: bool) -> torch.optim.Optimizer:
    groups = param_groups(model, config.scaled_lr, config.weight_decay, config.position_lr_scale)
    known = [str(name) for name in list_optimizers()]
    if config.optimizer not in known:
        raise ValueError(
            f"optimizer: expected a name that timm knows, got {config.optimizer!r}; {nearest(config.optimizer, known)}"
        )
    graphed: dict[str, Any] = {"capturable": True, "fused": True} if cuda_graph else {}
    return create_optimizer_v2(groups, config.optimizer, config.scaled_lr, config.weight_decay, **graphed)


def _seed(*place: int) -> None:
    # What is random in an update depends on its place alone, so that a run can go on from any of them.
    seed = seed_of("update", *place)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # timm's mixing draws from it
