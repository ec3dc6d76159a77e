"""The models that a comparison has trained: their files, and their scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from ..data.held_batches import HeldBatches
from ..data.image_set import ImageData, ImageSet
from ..data.in_memory import channel_mean_std, load_data
from ..processes import Processes, device_name, find_device
from ..runs.progress_bar import ProgressBar, say
from ..runs.writer import write_whole
from ..settings import NAMED, EvalConfig, TrainConfig
from ..validation import Scores, class_numbers, validate
from .config import CompareConfig, Method
from .models import method_model

_FORMAT = "torchdcls comparison 1"


@dataclass(frozen=True)
class Compared:
    """What the file of a trained model says of it: all that is needed to make it and to score it.

    Args:
        config: Settings of its comparison, checked, without the folder of the run.
        method: Its method.
        seed: Its seed.
        channels: Channels of its images.
        image_size: Height and width of its images. Unit: pixels.
        classes: Names of its classes.
        mean: Of each channel of the training images.
        std: Likewise.
    """

    config: Mapping[str, Any]
    method: Method
    seed: int
    channels: int
    image_size: int
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def save_compared(
    path: Path, model: nn.Module, config: CompareConfig, method: Method, seed: int, data: ImageData
) -> None:
    """Writes a model's weights under its own names, and what `Compared` says; `data` is what it was trained on."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    if config.data not in NAMED:
        settings["data"] = str(Path(config.data).expanduser().resolve())
    del settings["out"]
    mean, std = channel_mean_std(data.train.images)
    about = Compared(settings, method, seed, data.channels, data.image_size, data.classes, mean.tolist(), std.tolist())
    metadata = {"format": _FORMAT, "about": json.dumps(asdict(about))}
    write_whole(path, lambda unfinished: save_model(model, str(unfinished), metadata))


def about_compared(path: Path) -> Compared | None:
    """What a file says about its model, None where it is none of a comparison."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Compared(**json.loads(metadata["about"])) if metadata.get("format") == _FORMAT else None
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError):
        return None  # who reads checkpoints says what is wrong


def load_compared(path: Path, about: Compared) -> nn.Module:
    """The model of a file, on the CPU, in evaluation mode.

    Raises:
        ValueError: The file is of a version with other settings, or of another model.
    """
    try:
        model, _ = method_model(CompareConfig(**about.config), about.method, about, about.seed)
        load_model(model, str(path))
    except (TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"checkpoint: '{path}' is of another version of torchdcls compare ({reason}); use the version that wrote "
            "it, which results.json beside its folder names"
        ) from None
    return model.eval()


def evaluate_compared(path: Path, about: Compared, config: EvalConfig, console: Console | None) -> Scores:
    """Scores a model of a comparison on test images, prepared as in its run, and prints the result.

    Raises:
        ValueError: The file or the data cannot be used, or an option has no meaning for it.
    """
    console = console or Console()
    for name in ("val_split", "image_size", "crop_pct", "workers"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"{name}: expected none for a checkpoint of torchdcls compare, whose test images are read as in its "
                f"run, got {getattr(config, name)!r}"
            )
    if config.weights == "ema":
        raise ValueError("weights: expected 'model' for a checkpoint of torchdcls compare, which has no 'ema', got it")
    device = find_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = about.config
    folder = run["data_dir"] if config.data in (None, run["data"]) else None
    data_dir = config.data_dir or (None if folder is None else Path(folder))
    most = config.max_image_pixels or run["max_image_pixels"]
    data = load_data(config.data or run["data"], data_dir, about.image_size, least_classes=1, max_image_pixels=most)
    if data.channels not in (1, about.channels):
        raise ValueError(f"data: expected images of {about.channels} channels, got {data.channels} in '{data.name}'")
    numbers = class_numbers(about.classes, about.num_classes, data.classes, data.num_classes)
    test = ImageSet(data.test.images.expand(-1, about.channels, -1, -1), numbers[data.test.labels])
    batches = HeldBatches(
        test, config.micro_batch or run["batch_size"], torch.tensor(about.mean), torch.tensor(about.std)
    )
    model = load_compared(path, about).to(device)
    with ProgressBar(console, len(test)) as bar:
        plain = TrainConfig(precision="float32", channels_last=False)
        scores = validate(model, batches, Processes(device), plain, bar.advance)
    say(
        console,
        f"{run['model']} with {about.method} layers, seed {about.seed}, on {data.name}: top-1 {scores.top1:.2f} "
        f"%, top-5 {scores.top5:.2f} %, loss {scores.loss:.4f} ({scores.images:,} test images; {device_name(device)})",
    )
    return scores
