"""Training one cell."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from torchdcls.conversion import parameter_count
from torchdcls_train.comparison.training import Epoch, short_run, short_settings
from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.in_memory import channel_mean_std
from torchdcls_train.processes import Processes
from torchdcls_train.settings import TrainConfig
from torchdcls_train.validation import validate

from .cells import Cell, FinishedCell, Score
from .compiling import compile_in_pieces_
from .images import StudyImages
from .layers import build


def train_cell(
    cell: Cell,
    images: StudyImages,
    device: torch.device,
    origin: Mapping[str, Any],
    *,
    on_batch: Callable[[int], None] = lambda images: None,
) -> FinishedCell:
    """Trains and scores a cell.

    Training, and the choice of when it ends (after the last epoch, always), see no test image; those of a final cell
    are scored once, when all is done.

    `origin` is what `environment` says; `on_batch` is called with the number of images after each update.
    """
    started = time.perf_counter()
    model, kernel_count = build(cell, images.channels, images.classes)
    model.to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        compile_in_pieces_(model)
    settings = short_settings(cell, cell.seed, bilinear=cell.method == "bilinear", precision=cell.precision)
    mean, std = channel_mean_std(images.training.images)
    batches = HeldBatches(images.training, cell.batch_size, mean, std, cell.seed)
    validation = HeldBatches(images.validation, cell.batch_size, mean, std)
    curve: list[Epoch] = []
    failure = None
    try:
        for epoch in short_run(model, batches, validation, settings, device, on_images=on_batch, cuda_graph=on_gpu):
            curve.append(epoch)
    except FloatingPointError as error:
        # A rate too high for one method is a result too, not the end of the study.
        failure = str(error)
    test = None
    if cell.test and failure is None:
        test = _score(model, images, settings, device)
    return FinishedCell(
        id=cell.id,
        cell=cell,
        parameters=parameter_count(model),
        kernel_count=kernel_count,
        epochs=[asdict(epoch) for epoch in curve],
        validation=Score(curve[-1].loss, curve[-1].accuracy) if failure is None else None,
        test=test,
        failure=failure,
        images_per_second=median(epoch.images_per_second for epoch in curve) if curve else None,
        seconds=time.perf_counter() - started,
        **origin,
    )


def _score(model: torch.nn.Module, images: StudyImages, settings: TrainConfig, device: torch.device) -> Score:
    batches = HeldBatches(images.test.to(device), settings.batch_size, *channel_mean_std(images.training.images))
    scores = validate(model, batches, Processes(device), settings)
    return Score(scores.loss, scores.top1)
