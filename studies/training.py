"""Training one cell."""

import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from torchdcls.conversion import parameter_count
from torchdcls_train.comparison.training import Epoch, short_run, short_settings
from torchdcls_train.data.held_batches import BatchDraws, HeldBatches
from torchdcls_train.data.named import channel_mean_std
from torchdcls_train.processes import Processes
from torchdcls_train.settings import TrainConfig
from torchdcls_train.validation import validate

from .cells import Cell
from .compiling import compile_in_pieces_
from .images import Images
from .methods import build


def train_cell(
    cell: Cell,
    images: Images,
    device: torch.device,
    *,
    on_batch: Callable[[int], None] = lambda images: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> dict[str, Any]:
    """Trains and scores a cell.

    Training, and the choice of when it ends (after the last epoch, always), see no test image; those of a final cell
    are scored once, when all is done.

    Args:
        cell: The cell.
        images: The images of its study.
        device: Where to compute.
        on_batch: Called with the number of images after each update.
        on_epoch: Called after each epoch.

    Returns:
        `parameters`, `kernel_count` (elements or taps), `epochs` (the curve), `validation` and `test` (loss and
        accuracy; None for the test of a cell that is not final), `failure` (None, or why a training broke off),
        `images_per_second` (median of the epochs), `seconds` (of all this).
    """
    started = time.perf_counter()
    model, kernel_count = build(cell, images.channels, images.classes)
    model.to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        compile_in_pieces_(model)
    settings = short_settings(cell, cell.seed, bilinear=cell.method == "bilinear", precision=cell.precision)
    mean, std = channel_mean_std(images.training.images)
    batches = HeldBatches(images.training, cell.batch_size, mean, std, BatchDraws(cell.seed))
    validation = HeldBatches(images.validation, cell.batch_size, mean, std)
    curve: list[Epoch] = []
    failure = None
    try:
        for epoch in short_run(model, batches, validation, settings, device, on_images=on_batch, cuda_graph=on_gpu):
            curve.append(epoch)
            on_epoch(epoch)
    except FloatingPointError as error:
        # A rate too high for one method is a result too, not the end of the study.
        failure = str(error)
    test = None
    if cell.test and failure is None:
        test = _score(model, images, settings, device)
    return {
        "parameters": parameter_count(model),
        "kernel_count": kernel_count,
        "epochs": [asdict(epoch) for epoch in curve],
        "validation": {"loss": curve[-1].loss, "accuracy": curve[-1].accuracy} if failure is None else None,
        "test": test,
        "failure": failure,
        "images_per_second": median(epoch.images_per_second for epoch in curve) if curve else None,
        "seconds": time.perf_counter() - started,
    }


def _score(model: torch.nn.Module, images: Images, settings: TrainConfig, device: torch.device) -> dict[str, float]:
    batches = HeldBatches(images.test.to(device), settings.batch_size, *channel_mean_std(images.training.images))
    scores = validate(model, batches, Processes(device), settings)
    return {"loss": scores.loss, "accuracy": scores.top1}
