"""The models that a comparison has trained: their files, and their scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from .config import CompareConfig, Layers
from .models import compared_model
from .result import from_json

_FORMAT = "torchdcls comparison 1"


@dataclass(frozen=True)
class Compared:
    """The metadata of a trained model's file: all that is needed to build and to score the model.

    Args:
        config: Settings of its comparison, checked; `data` is a name or an absolute path.
        method: Its layers.
        image_size: Height and width of its images. Unit: pixels.
        mean: Of each channel of the training images, as is `std`.
    """

    config: CompareConfig
    method: Layers
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
    path: Path, model: nn.Module, config: CompareConfig, method: Layers, seed: int, data: ImageData
) -> None:
    """Writes a model's weights under its own names, and what `Compared` says; `data` is what it was trained on."""
    if config.data not in NAMED:
        config = replace(config, data=str(Path(config.data).expanduser().resolve()))
    mean, std = channel_mean_std(data.train.images)
    about = Compared(config, method, seed, data.channels, data.image_size, data.classes, mean.tolist(), std.tolist())
    row = asdict(about)
    del row["config"]["out"]
    metadata = {"format": _FORMAT, "about": json.dumps(row, default=str)}
    write_whole(path, lambda unfinished: save_model(model, str(unfinished), metadata))


def about_compared(path: Path) -> Compared | None:
    """What a file says about its model, None where it is none of a comparison.

    Raises:
        ValueError: The file is of a version with other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            return None
        about = json.loads(metadata["about"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError):
        return None  # who reads checkpoints says what is wrong
    try:
        compared: Compared = from_json(Compared, about)
        if unknown := about["config"].keys() - asdict(compared.config).keys():
            raise ValueError(f"it has the settings {', '.join(sorted(unknown))}")
    except ValueError as error:
        raise _of_another_version(path, error) from None
    return compared


def load_compared(path: Path, about: Compared) -> nn.Module:
    """The model of a file, on the CPU, in evaluation mode.

    Raises:
        ValueError: The file is of a version with another model.
    """
    model, _ = compared_model(about.config, about.method, about, about.seed)
    try:
        load_model(model, str(path))
    except RuntimeError as error:
        raise _of_another_version(path, error) from None
    return model.eval()


def _of_another_version(path: Path, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0]
    return ValueError(
        f"checkpoint: '{path}' is of another version of torchdcls compare ({reason}); use the version that wrote it, "
        "see results.json in the run folder"
    )


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
        raise ValueError("weights: expected 'model' for a checkpoint of torchdcls compare, got 'ema'")
    device = find_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = about.config
    data_dir = config.data_dir or (run.data_dir if config.data in (None, run.data) else None)
    most = config.max_image_pixels or run.max_image_pixels
    data = load_data(config.data or run.data, data_dir, about.image_size, least_classes=1, max_image_pixels=most)
    if data.channels not in (1, about.channels):
        raise ValueError(f"data: expected images of {about.channels} channels, got {data.channels} in '{data.name}'")
    numbers = class_numbers(about.classes, about.num_classes, data.classes, data.num_classes)
    test = ImageSet(data.test.images.expand(-1, about.channels, -1, -1), numbers[data.test.labels])
    batches = HeldBatches(test, config.micro_batch or run.batch_size, torch.tensor(about.mean), torch.tensor(about.std))
    model = load_compared(path, about).to(device)
    with ProgressBar(console, len(test)) as bar:
        plain = TrainConfig(precision="float32", channels_last=False)
        scores = validate(model, batches, Processes(device), plain, bar.advance)
    say(
        console,
        f"{run.model} with {about.method} layers, seed {about.seed}, on {data.name}: top-1 {scores.top1:.2f} "
        f"%, top-5 {scores.top5:.2f} %, loss {scores.loss:.4f} ({scores.images:,} test images; {device_name(device)})",
    )
    return scores
