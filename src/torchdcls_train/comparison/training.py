"""Short training runs by the papers' recipe, each watched by images that it is not trained on."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ..data.batches import Batch
from ..data.held_batches import HeldBatches
from ..processes import Processes
from ..settings import Precision, TrainConfig
from ..trainer import Step, Trainer
from ..validation import validate


class ShortSettings(Protocol):
    """What a run of few epochs must be told; see `CompareConfig`."""

    @property
    def epochs(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def warmup_epochs(self) -> float: ...


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch. Losses are means per image, accuracies percent, `seconds` those of training alone.

    `loss` and `accuracy` are those on the images that the run was watched by. `images_per_second` is without what is
    done once before updates are replayed (`GraphedUpdate`): compiling and capturing.
    """

    epoch: int
    train_loss: float
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float


def short_settings(
    asked: ShortSettings, seed: int, *, bilinear: bool = False, precision: Precision = "float32"
) -> TrainConfig:
    """The trainer's settings for a run of few epochs, by AdamW and a cosine that falls to 0.

    Args:
        asked: The settings of a comparison, checked, or of another run that has these.
        seed: Of what the model itself draws at random.
        bilinear: Whether the model's DCLS layers are bilinear: only their positions are clamped and repel each other.
        precision: Of the forward pass.
    """
    epochs, lr = asked.epochs, asked.lr
    assert epochs is not None and lr is not None
    return TrainConfig(
        epochs=epochs,
        batch_size=asked.batch_size,
        micro_batch=asked.batch_size,
        lr=lr,
        lr_batch=None,
        min_lr=0.0,
        weight_decay=asked.weight_decay,
        label_smoothing=asked.label_smoothing,
        warmup_epochs=min(asked.warmup_epochs, epochs / 4),
        clamp_positions=bilinear,
        # The papers add the repulsion from epoch 20 of 300 on; shorter runs from the same share of theirs.
        repulsion_from=math.ceil(epochs * 20 / 300) if bilinear else None,
        precision=precision,
        channels_last=False,
        compile=False,
        seed=seed,
    )


def short_run(
    model: nn.Module,
    batches: HeldBatches,
    watched: Iterable[Batch],
    settings: TrainConfig,
    device: torch.device,
    *,
    on_images: Callable[[int], None] = lambda images: None,
    cuda_graph: bool = False,
) -> Iterator[Epoch]:
    """Trains a model, yielding after each epoch.

    Args:
        model: On `device`; trained in place.
        batches: What to train on; every pass continues the random numbers of the one before.
        watched: What is scored after each epoch; the training itself does not see it.
        on_images: Called with the number of images after each update.
        cuda_graph: Whether updates are replayed as a CUDA graph (`GraphedUpdate`); on CUDA alone.

    Raises:
        FloatingPointError: The loss of an update is not finite.
    """
    group = Processes(device)
    trainer = Trainer(settings, model, len(batches), group, cuda_graph=cuda_graph)
    trainer.on_images = on_images
    for epoch in range(settings.epochs):
        started = timed_from = time.perf_counter()
        loss_sum, images, untimed = 0.0, 0, 0
        for done in trainer.epoch(([batch] for batch in batches), Step(epoch, 0)):
            count = len(done.batches[0].labels)
            loss_sum, images = loss_sum + count * done.loss, images + count
            if done.begins:
                timed_from, untimed = time.perf_counter(), images
        now = time.perf_counter()
        seconds = now - started
        speed = (images - untimed) / (now - timed_from) if images > untimed else images / seconds
        scores = validate(model, watched, group, settings)
        yield Epoch(epoch + 1, loss_sum / images, scores.loss, scores.top1, seconds, speed)
