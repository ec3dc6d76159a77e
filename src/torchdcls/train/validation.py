"""How good a model is on images that it was not trained on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .data.batches import Batch
from .processes import Processes


@dataclass(frozen=True)
class Scores:
    """Of a model on a set of images: mean loss an image, top-1 and top-5 accuracy in percent, and how many images."""

    loss: float
    top1: float
    top5: float
    images: int
    unreadable: int


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    group: Processes,
    precision: torch.autocast,
    channels_last: bool,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Scores:
    """Scores a model on images that the processes divide among them.

    Args:
        model: Put into evaluation mode.
        batches: This process's images.
        group: The processes.
        precision: Context of the forward pass.
        channels_last: Memory format of maps.
        on_batch: Called with the number of images after each batch.

    Raises:
        ValueError: No image can be read.
    """
    model.eval()
    # Loss, right at first, right among five, images, unreadable.
    sums = torch.zeros(5, device=group.device)
    for batch in batches:
        sums[4] += batch.unreadable
        if len(batch.labels) == 0:
            continue
        images, labels = batch.images.to(group.device), batch.labels.to(group.device)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with precision:
            scores = model(images)
        scores = scores.float()
        best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
        sums[0] += F.cross_entropy(scores, labels, reduction="sum")
        sums[1] += best[:, 0].sum()
        sums[2] += best.sum()
        sums[3] += len(labels)
        on_batch(len(labels))
    loss, first, five, images, unreadable = group.sum(sums).tolist()
    if images == 0:
        raise ValueError(f"data: expected a validation image that can be read, got {int(unreadable)} that cannot")
    return Scores(loss / images, 100 * first / images, 100 * five / images, int(images), int(unreadable))
