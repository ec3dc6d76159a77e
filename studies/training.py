"""Training one cell; on GPUs its model by torch.compile, in pieces that all methods of a study have in common."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
from torch import nn

from torchdcls.conversion import parameter_count
from torchdcls.conversion.swap import swap_modules_
from torchdcls.nn import DclsLayer
from torchdcls_train.comparison.training import Epoch, short_run, short_settings
from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.in_memory import channel_mean_std
from torchdcls_train.processes import Processes
from torchdcls_train.settings import TrainConfig
from torchdcls_train.validation import validate

from .cells import Cell, FinishedCell, Score
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


def _score(model: nn.Module, images: StudyImages, settings: TrainConfig, device: torch.device) -> Score:
    batches = HeldBatches(images.test.to(device), settings.batch_size, *channel_mean_std(images.training.images))
    scores = validate(model, batches, Processes(device), settings)
    return Score(scores.loss, scores.top1)


def compile_in_pieces_(model: nn.Module, backend: str = "inductor") -> None:
    """Compiles a model but for its depthwise layers, in place; names in its state dict change.

    The pieces are the largest modules with at most one depthwise layer: blocks, and what lies between stages. They are
    the same for all methods, sizes and seeds, so that a study compiles each shape once; a model compiled as a whole
    would be compiled anew for each of them. Call it under `many_shapes`.
    """
    swap_modules_(model, {module: _Apart(module) for module in model.modules() if _is_depthwise(module)})
    _compile_pieces(model, backend)


def many_shapes() -> Any:
    """A context in which torch.compile keeps as many graphs of one function as a study has of pieces."""
    from torch.compiler import config

    return config.patch(recompile_limit=256)  # type: ignore[attr-defined]


class _Apart(nn.Module):
    """A layer that compiled graphs end before and go on after; of one type, whatever the layer is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(input)
        return output


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, DclsLayer | nn.Conv2d) and module.groups == module.in_channels > 1


def _compile_pieces(module: nn.Module, backend: str) -> None:
    if sum(isinstance(part, _Apart) for part in module.modules()) <= 1:
        module.compile(dynamic=False, backend=backend)
    else:
        for part in module.children():
            _compile_pieces(part, backend)
