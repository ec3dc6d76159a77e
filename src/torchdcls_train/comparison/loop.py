"""Training and scoring of one model."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from torchdcls.optim import clamp_positions_, param_groups, repulsion_loss

from ..data.image_set import ImageSet
from ..data.named import make_loader
from .recorded import Recorded, Update

# The papers add the repulsion of bilinear elements from epoch 20 of 300 on; shorter runs from the same share of theirs.
_REPULSION_STARTS = 20 / 300

Batch = tuple[Tensor, Tensor]


class Settings(Protocol):
    """What a training's settings must say; other settings don't concern it."""

    @property
    def epochs(self) -> int | None:
        """Passes over the training images; no longer None."""

    @property
    def lr(self) -> float:
        """Base learning rate."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of weights."""

    @property
    def label_smoothing(self) -> float:
        """Label smoothing of the training loss."""

    @property
    def warmup_epochs(self) -> float:
        """Epochs of linear warm-up."""


class Batches(Protocol):
    """A training set in batches; every pass over it goes on with the random numbers of the one before."""

    def __len__(self) -> int:
        """Batches in a pass."""

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Losses are means an image, accuracies percent, `seconds` those of training alone.

    `loss` and `accuracy` are those on the images that the training was given to be watched by. `images_per_second` is
    without what is done once before updates are replayed (`Recorded`): compiling and recording.
    """

    epoch: int
    train_loss: float
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float


def train(
    model: nn.Module,
    batches: Batches,
    settings: Settings,
    *,
    score: Callable[[nn.Module], tuple[float, float]],
    device: torch.device,
    on_batch: Callable[[int], None],
    bilinear: bool = False,
    precision: AbstractContextManager[object] | None = None,
    recorded: bool = False,
) -> Iterator[Epoch]:
    """Trains a model by the papers' recipe, yielding after each epoch.

    Args:
        model: On `device`; trained in place.
        batches: What to train on.
        settings: Settings, checked.
        score: Gives loss and accuracy after each epoch. The training itself sees no other images than `batches`.
        device: Where to compute.
        on_batch: Called with the number of images after each step.
        bilinear: Whether the model's DCLS layers are bilinear: only their positions are clamped and repel each other.
        precision: What the forward pass runs under, such as `torch.autocast`; None for float32.
        recorded: Whether updates are recorded and replayed, see `Recorded`; on CUDA alone.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    assert settings.epochs is not None
    steps = len(batches)
    optimizer = torch.optim.AdamW(
        param_groups(model, settings.lr, settings.weight_decay), capturable=recorded, fused=recorded or None
    )
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=settings.epochs * steps,
        warmup_t=round(min(settings.warmup_epochs, settings.epochs / 4) * steps),
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=False,
    )

    def update_of(repel: bool) -> Update:
        def update(images: Tensor, labels: Tensor) -> Tensor:
            with precision or nullcontext():
                loss = F.cross_entropy(model(images), labels, label_smoothing=settings.label_smoothing)
            objective = loss + repulsion_loss(model) ** 2 if repel else loss
            optimizer.zero_grad()
            objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if bilinear:
                clamp_positions_(model)
            return loss.detach()

        return Recorded(update, optimizer) if recorded else update

    step, repel, update = 0, False, update_of(False)
    for epoch in range(1, settings.epochs + 1):
        if bilinear and not repel and (epoch - 1) / settings.epochs >= _REPULSION_STARTS:
            repel, update = True, update_of(True)
        model.train()
        started, total, images = time.perf_counter(), torch.zeros((), device=device), 0
        timed_from, untimed = started, 0
        for batch, labels in batches:
            batch, labels = batch.to(device), labels.to(device)
            schedule.step_update(step)
            total += update(batch, labels) * len(labels)
            step += 1
            images += len(labels)
            on_batch(len(labels))
            if isinstance(update, Recorded) and update.begins:
                torch.cuda.synchronize(device)
                timed_from, untimed = time.perf_counter(), images
        train_loss = total.item() / images
        now = time.perf_counter()
        seconds = now - started
        speed = (images - untimed) / (now - timed_from) if images > untimed else images / seconds
        if not torch.isfinite(total):
            raise FloatingPointError(f"the training loss of epoch {epoch} is {train_loss}; try a smaller learning rate")
        yield Epoch(epoch, train_loss, *score(model), seconds, speed)


def evaluate(
    model: nn.Module,
    images: ImageSet,
    batch_size: int,
    mean: Tensor,
    std: Tensor,
    device: torch.device,
) -> tuple[float, float]:
    """Mean cross-entropy an image and accuracy in percent."""
    return score_batches(
        model, make_loader(images, batch_size, training=False, seed=0, mean=mean, std=std), device=device
    )


@torch.no_grad()
def score_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: AbstractContextManager[object] | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy an image and accuracy in percent, of images in batches; arguments as for `train`."""
    model.eval()
    losses, right, images = [], [], 0
    for batch, labels in batches:
        labels = labels.to(device)
        with precision or nullcontext():
            scores = model(batch.to(device))
        losses.append(F.cross_entropy(scores.float(), labels, reduction="sum"))
        right.append((scores.argmax(1) == labels).sum())
        images += len(labels)
    # Read at the end: a GPU that is asked for a number has nothing to do until the next batch comes.
    return sum(torch.stack(losses).tolist()) / images, 100 * int(torch.stack(right).sum()) / images
