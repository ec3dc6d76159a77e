"""One update of a model: losses of micro-batches, gradients of all processes, the optimiser, the averaged weights."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchdcls._checks import nearest
from torchdcls.nn import DclsLayer
from torchdcls.optim import clamp_positions_, param_groups, repulsion_loss

from .data.batches import Batch
from .data.seeds import seed_of
from .processes import Processes
from .settings import TrainConfig

# The share from which on a class counts as present in an image that is mixed from two (ResNet strikes back).
_MIXED_IN = 0.2


def build_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The model of a run, with weights drawn from its seed.

    Raises:
        ValueError: timm has no such model, or it does not take these arguments.
    """
    from torchdcls import models  # noqa: F401  registers them with timm

    if not timm.is_model(config.model):
        raise ValueError(
            f"model: expected a name that timm knows, got {config.model!r}; {nearest(config.model, timm.list_models())}"
        )
    torch.manual_seed(config.seed)
    try:
        model = timm.create_model(
            config.model,
            num_classes=num_classes,
            drop_path_rate=config.drop_path or None,  # None leaves it out, as not all models know it
            **(config.model_args or {}),
        )
    except (TypeError, AttributeError, LookupError, AssertionError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not config.model_args:
            raise
        given = {**({"drop_path_rate": config.drop_path} if config.drop_path else {}), **(config.model_args or {})}
        raise ValueError(f"model_args: {config.model} does not take {given} ({error})") from None
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(memory_format=memory_format)  # type: ignore[no-any-return, call-overload]


@dataclass(frozen=True)
class Place:
    """An update of a run: its epoch and its number within it, both counted from 0."""

    epoch: int
    update: int


class Average:
    """An exponential moving average of a model's parameters, each counted once; buffers are the model's.

    Unlike torch's `AveragedModel` it never waits for a GPU.

    Args:
        model: The model.
        decay: Share of the average that an update keeps; the first update sets it to the model.

    Attributes:
        module: A copy of the model with the average for parameters.
        updates: How often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model).requires_grad_(False)
        self.updates = 0
        self._decay = decay
        self._averages: list[Tensor] = list(self.module.parameters())
        self._parameters: list[Tensor] = list(model.parameters())
        self._buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the model as it is now."""
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self._decay if self.updates else 1.0)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)
        self.updates += 1


class Trainer:
    """A model in training.

    Args:
        config: Settings.
        model: On the device of `group`; trained in place.
        num_classes: Number of classes.
        updates_per_epoch: Number of updates in an epoch.
        group: The processes that train it together.

    Attributes:
        compiles: Whether the first update compiles the model.
        on_images: Called with the number of images of all processes after each micro-batch.

    Raises:
        ValueError: timm has no such optimiser, or a setting needs what the model lacks.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, num_classes: int, updates_per_epoch: int, group: Processes
    ) -> None:
        self.config, self.model, self.group = config, model, group
        self.updates_per_epoch = updates_per_epoch
        learns_positions = any(isinstance(module, DclsLayer) for module in model.modules())
        if not learns_positions and (config.clamp_positions or config.repulsion_from is not None):
            name = "clamp_positions" if config.clamp_positions else "repulsion_from"
            raise ValueError(f"{name}: expected a model with DCLS layers, got {config.model} without any")
        self.optimizer = _optimizer(config, model)
        warmup = round(config.warmup_epochs * updates_per_epoch)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=config.epochs * updates_per_epoch - (warmup if config.cosine_after_warmup else 0),
            lr_min=config.min_lr,
            warmup_t=warmup,
            warmup_prefix=config.cosine_after_warmup,
            t_in_epochs=False,
        )
        self.ema = None if config.ema is None else Average(model, config.ema)
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
        self.on_images: Callable[[int], None] = lambda images: None

    def update(self, batches: Sequence[Batch], place: Place) -> Tensor:
        """Does one update.

        Args:
            batches: This process's micro-batches.
            place: Decides on the learning rate and on what is random.

        Returns:
            (len(batches)), the loss of each, detached, on the device.
        """
        config, device = self.config, self.group.device
        self.schedule.step_update(place.epoch * self.updates_per_epoch + place.update)
        self.optimizer.zero_grad()
        repels = config.repulsion_from is not None and place.epoch >= config.repulsion_from
        losses = []
        for batch in batches:
            _seed(config.seed, place.epoch, place.update, batch.micro_batch)
            images = batch.images.to(device, non_blocking=True)
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            labels = batch.labels.to(device, non_blocking=True)
            # Gradients are summed over processes once an update, with those of the last micro-batch.
            last = batch is batches[-1]
            with nullcontext() if last or self.group.world == 1 else self._wrapped.no_sync():  # type: ignore[operator]
                loss = self._loss(images, labels)
                objective = loss / len(batches)
                if repels and last:
                    objective = objective + repulsion_loss(self.model) ** 2
                objective.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            self.on_images(len(labels) * self.group.world)
        if config.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad)
        self.optimizer.step()
        if config.clamp_positions:
            clamp_positions_(self.model)
        if self.ema is not None:
            self.ema.update()
        return torch.stack(losses)

    def train_mode(self) -> None:
        """To be called before the updates of an epoch."""
        self._wrapped.train()

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


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    groups = param_groups(model, config.scaled_lr, config.weight_decay, config.position_lr_scale)
    known = [str(name) for name in list_optimizers()]
    if config.optimizer not in known:
        raise ValueError(
            f"optimizer: expected a name that timm knows, got {config.optimizer!r}; {nearest(config.optimizer, known)}"
        )
    return create_optimizer_v2(groups, config.optimizer, lr=config.scaled_lr, weight_decay=config.weight_decay)


def _seed(*place: int) -> None:
    # What is random in an update depends on its place alone, so that a run can go on from any of them.
    seed = seed_of("update", *place)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # timm's mixing draws from it
