"""Training one cell."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from torchdcls.conversion import parameter_count
from torchdcls_train.comparison.loop import Epoch, score_batches, train

from .cells import Cell, FinishedCell, Score
from .compiling import compile_in_pieces_
from .images import Images, PlainBatches, TrainingBatches
from .methods import build


def train_cell(
    cell: Cell,
    images: Images,
    device: torch.device,
    origin: Mapping[str, Any],
    *,
    on_batch: Callable[[int], None] = lambda images: None,
) -> FinishedCell:
    """Trains and scores a cell.

    Training, and the choice of when it ends (after the last epoch, always), see no test image; those of a final cell
    are scored once, when all is done.

    Args:
        cell: The cell.
        images: The images of its study.
        device: Where to compute.
        origin: Where the numbers come from, of `environment`.
        on_batch: Called with the number of images after each step.
    """
    started = time.perf_counter()
    model, kernel_count = build(cell, images.channels, images.classes)
    model.to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        compile_in_pieces_(model)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=cell.precision == "bfloat16")
    validation = PlainBatches(images.validation, images.training, cell.batch_size, device)
    curve: list[Epoch] = []
    failure = None
    try:
        for epoch in train(
            model,
            TrainingBatches(images.training, cell.batch_size, cell.seed, device),
            cell,
            score=lambda model: score_batches(model, validation, device=device, precision=precision),
            device=device,
            on_batch=on_batch,
            bilinear=cell.method == "bilinear",
            precision=precision,
            recorded=on_gpu,
        ):
            curve.append(epoch)
    except FloatingPointError as error:
        # A rate too high for one method is a result too, not the end of the study.
        failure = str(error)
    test = None
    if cell.test and failure is None:
        test = _score(model, images, cell, device, precision)
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


def _score(
    model: torch.nn.Module, images: Images, cell: Cell, device: torch.device, precision: AbstractContextManager[object]
) -> Score:
    batches = PlainBatches(images.test, images.training, cell.batch_size, device)
    return Score(*score_batches(model, batches, device=device, precision=precision))
