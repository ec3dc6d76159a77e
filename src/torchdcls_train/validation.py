"""How good a model is on images that it was not trained on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data.batches import Batch, ValidationBatches
from .data.source_types import Images, Stream, shortened
from .data.transforms import preparation, validation_transform
from .processes import Processes, default_workers
from .settings import TrainConfig
from .trainer import autocast


@dataclass(frozen=True)
class Scores:
    """Of a model on a set of images: mean loss an image, top-1 and top-5 accuracy in percent, and how many images."""

    loss: float
    top1: float
    top5: float
    images: int
    unreadable: int


def validation_batches(
    config: TrainConfig, source: Images | Stream, model: nn.Module, group: Processes
) -> ValidationBatches:
    """The images that a run is validated on, prepared as its model expects."""
    return ValidationBatches(
        source,
        validation_transform(config, preparation(model)),
        batch=config.micro_batch,
        group=group,
        workers=reading_workers(config, source, group),
    )


def reading_workers(config: TrainConfig, source: Images | Stream, group: Processes) -> int:
    """Processes that read a source: as many as asked for, else as many as the machine and the source have room for."""
    if config.workers is not None:
        return config.workers
    most = source.readers(group.world) if isinstance(source, Stream) else default_workers()
    return max(1, min(most, default_workers()))


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    group: Processes,
    config: TrainConfig,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Scores:
    """Scores a model on images that the processes divide among them.

    Args:
        model: Put into evaluation mode.
        batches: This process's images.
        group: The processes.
        config: Its precision and memory format are taken.
        on_batch: Called with the number of images after each batch.

    Raises:
        ValueError: No image can be read.
    """
    model.eval()
    seen, unreadable = 0, 0
    # Of each batch the loss, and how many are right at first and among five, read at the end: a GPU that is asked for a
    # number waits for the next batch.
    sums: list[Tensor] = []
    for batch in batches:
        unreadable += batch.unreadable
        if len(batch.labels) == 0:
            continue
        pixels, labels = batch.images.to(group.device), batch.labels.to(group.device)
        if config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with autocast(config, group.device):
            scores = model(pixels)
        scores = scores.float()
        among = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
        total = F.cross_entropy(scores, labels, reduction="sum")
        sums.append(torch.stack([total, (scores.argmax(1) == labels).sum(), among.sum()]))
        seen += len(labels)
        on_batch(len(labels))
    read = torch.stack(sums).tolist() if sums else [[0.0] * 3]
    loss, first, five, images, failed = group.total([*map(sum, zip(*read, strict=True)), seen, unreadable])
    if images == 0:
        raise ValueError(f"data: expected a validation image that can be read, got {int(failed)} that cannot")
    return Scores(loss / images, 100 * first / images, 100 * five / images, int(images), int(failed))


def class_numbers(
    known: Sequence[str] | None, count: int, there: Sequence[str] | None, num_classes: int | None
) -> Tensor:
    """The model's number of each class of the data, which may have fewer.

    Args:
        known: Names of the model's classes, None where unknown.
        count: Number of the model's classes.
        there: Names of the data's classes, None where unknown.
        num_classes: Number of the data's classes, None where unknown.

    Raises:
        ValueError: The data have other classes, or it is unknown which of the model's they have.
    """
    if known is None or there is None:
        if (num_classes or 0) > count:
            raise ValueError(f"data: expected at most the model's {count} classes, got {num_classes}")
        if there is not None and len(there) < count:
            raise ValueError(
                f"data: expected all {count} classes, as the checkpoint does not name them, got {len(there)}; add "
                "folders of the others, with an image each"
            )
        return torch.arange(count)
    unknown = [name for name in there if name not in known]
    if unknown:
        raise ValueError(
            f"data: expected classes that the model was trained on, got {shortened(unknown)} "
            f"besides; its classes are {shortened(known)}"
        )
    return torch.tensor([known.index(name) for name in there])
