"""Training and testing of one model."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from ..data.image_set import ImageData, ImageSet
from ..data.named import channel_mean_std, make_loader
from ..params import clamp_positions_, param_groups, repulsion_loss
from .config import CompareConfig, Method

# The papers add the repulsion of bilinear elements from epoch 20 of 300 on; shorter runs from the same share of theirs.
_REPULSION_STARTS = 20 / 300


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Losses are means an image, accuracies percent, `seconds` those of training alone."""

    epoch: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float


def train(
    model: nn.Module,
    method: Method,
    data: ImageData,
    config: CompareConfig,
    *,
    seed: int,
    device: torch.device,
    on_batch: Callable[[int], None],
) -> Iterator[Epoch]:
    """Trains a model by the papers' recipe, yielding after each epoch.

    Args:
        model: On `device`; trained in place.
        method: What its depthwise layers are: decides on clamping and repulsion, which are bilinear's.
        data: What to train and test on.
        config: Settings, checked.
        seed: Of order and augmentation.
        device: Where to compute.
        on_batch: Called with the number of images after each step.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    assert config.epochs is not None
    mean, std = channel_mean_std(data.train.images)
    loader = make_loader(data.train, config.batch_size, training=True, seed=seed, mean=mean, std=std)
    steps = len(loader)
    optimizer = torch.optim.AdamW(param_groups(model, config.lr, config.weight_decay))
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=config.epochs * steps,
        warmup_t=round(min(config.warmup_epochs, config.epochs / 4) * steps),
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    step = 0
    for epoch in range(1, config.epochs + 1):
        repel = method == "bilinear" and (epoch - 1) / config.epochs >= _REPULSION_STARTS
        model.train()
        started, total, images = time.perf_counter(), torch.zeros((), device=device), 0
        for batch, labels in loader:
            batch, labels = batch.to(device), labels.to(device)
            schedule.step_update(step)
            loss = F.cross_entropy(model(batch), labels, label_smoothing=config.label_smoothing)
            objective = loss + repulsion_loss(model) ** 2 if repel else loss
            optimizer.zero_grad()
            objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if method == "bilinear":
                clamp_positions_(model)
            step += 1
            images += len(labels)
            total += loss.detach() * len(labels)
            on_batch(len(labels))
        train_loss = total.item() / images
        seconds = time.perf_counter() - started
        if not torch.isfinite(total):
            raise FloatingPointError(f"the training loss of epoch {epoch} is {train_loss}; try a smaller learning rate")
        test_loss, test_accuracy = evaluate(model, data.test, config.batch_size, mean, std, device)
        yield Epoch(epoch, train_loss, test_loss, test_accuracy, seconds, images / seconds)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: ImageSet,
    batch_size: int,
    mean: torch.Tensor,
    std: torch.Tensor,
    device: torch.device,
) -> tuple[float, float]:
    """Mean cross-entropy an image and accuracy in percent."""
    model.eval()
    loss, right = 0.0, 0
    for batch, labels in make_loader(images, batch_size, training=False, seed=0, mean=mean, std=std):
        scores, labels = model(batch.to(device)), labels.to(device)
        loss += F.cross_entropy(scores, labels, reduction="sum").item()
        right += int((scores.argmax(1) == labels).sum())
    return loss / len(images), 100 * right / len(images)
