"""Fine-tuning after a conversion, from a warm start and with new weights: `python -m benchmarks.fine_tuning`.

A small ConvNeXt is trained with its 7x7 layers, converted, and trained on for two epochs: with what `init="keep"` finds
of its kernels, with random weights, and as it is. Results go to `benchmarks/results/`, the picture to `docs/images/`.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from torchdcls import convert
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.small import comparison_model
from torchdcls_train.comparison.training import short_run, short_settings
from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.image_set import ImageData
from torchdcls_train.data.in_memory import channel_mean_std, images_per_epoch, load_data
from torchdcls_train.processes import Processes
from torchdcls_train.runs.progress_bar import ProgressBar
from torchdcls_train.trainer import Step, Trainer
from torchdcls_train.validation import validate

from .kept_weights import ARMS, BASELINE, EVALUATIONS_AN_EPOCH, Arm, draw
from .record import RESULTS, ROOT, record, write

PICTURE = ROOT / "docs" / "images" / "fine-tuning.png"
PACKAGES = ("torch", "torchvision", "timm", "torchdcls")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class FineTuning:
    """What is trained, and how long."""

    # Settings of the training with 7x7 layers, checked; kernel size and start of positions are those of the conversion
    # too.
    config: CompareConfig
    epochs: int  # of fine-tuning
    rates: Sequence[float]  # base learning rates of fine-tuning; each arm has its turn with each
    seeds: Sequence[int]  # of initial weights, order and augmentation

    def images(self, data: ImageData) -> int:
        """How many images are trained on in all."""
        assert self.config.epochs is not None
        epochs = self.config.epochs + len(ARMS) * len(self.rates) * self.epochs
        return len(self.seeds) * epochs * images_per_epoch(data.train, self.config.batch_size)


def measure(study: FineTuning, data: ImageData, bar: ProgressBar) -> list[dict[str, Any]]:
    """Trains everything; one entry a seed, with the 7x7 model's accuracy and each arm's curve at each rate."""
    runs = []
    for seed in study.seeds:
        torch.manual_seed(seed)
        trained = comparison_model(study.config.model, data.channels, len(data.classes), data.image_size)
        bar.describe(f"seed {seed}, {BASELINE} from nothing")
        accuracy = _train(trained, data, study.config, seed, bar.advance)
        bar.say(f"seed {seed}: {BASELINE} {accuracy:.2f} %")
        fine_tuned = []
        for arm in ARMS:
            for lr in study.rates:
                bar.describe(f"seed {seed}, {arm.title}, learning rate {lr:g}")
                model, about = start(trained, arm, study.config, seed)
                curve = list(_fine_tune(model, arm, data, study, lr, seed, bar.advance))
                bar.say(f"seed {seed}: {arm.title} at {lr:g}: {curve[0]:.2f} % to {curve[-1]:.2f} %")
                fine_tuned.append({"arm": arm.name, "lr": lr, **about, "test_accuracy": curve})
        runs.append({"seed": seed, "trained_test_accuracy": accuracy, "fine_tuned": fine_tuned})
    return runs


def _train(
    model: nn.Module, data: ImageData, config: CompareConfig, seed: int, on_batch: Callable[[int], None]
) -> float:
    """Trains a model from nothing; its test accuracy in percent."""
    *_, last = short_run(model, *_batches(data, config, seed), short_settings(config, seed), _CPU, on_images=on_batch)
    return last.accuracy


def _batches(data: ImageData, config: CompareConfig, seed: int) -> tuple[HeldBatches, HeldBatches]:
    """What to train on, and what to test on."""
    mean, std = channel_mean_std(data.train.images)
    training = HeldBatches(data.train, config.batch_size, mean, std, seed)
    return training, HeldBatches(data.test, config.batch_size, mean, std)


def start(trained: nn.Module, arm: Arm, config: CompareConfig, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of the trained model, converted as an arm has it, and what its conversion came to."""
    model = copy.deepcopy(trained)
    if arm.interpolation is None:
        return model, {"kernel_count": None, "parameters_added": 0, "residual": None}
    torch.manual_seed(seed)
    report = convert(
        model,
        dilated_kernel_size=config.dilated_kernel_size,
        kernel_count="iso",
        interpolation=arm.interpolation,
        position_init=("uniform", config.position_radius),
        weight_std=0.02 if arm.init == "random" else None,
        init=arm.init,
    )
    residuals = [row.residual for row in report.replaced if row.residual is not None]
    return model, {
        "kernel_count": report.kernel_count,
        "parameters_added": report.parameters_after - report.parameters_before,
        "residual": statistics.mean(residuals) if residuals else None,
    }


def _fine_tune(
    model: nn.Module,
    arm: Arm,
    data: ImageData,
    study: FineTuning,
    lr: float,
    seed: int,
    on_batch: Callable[[int], None],
) -> Iterator[float]:
    """Trains on; test accuracy in percent before the first update and several times an epoch."""
    # Other order and augmentation than the training before it had, the same for all arms.
    batches, test = _batches(data, study.config, seed + 1000)
    asked = replace(study.config, epochs=study.epochs, lr=lr, warmup_epochs=0.0)
    settings = replace(short_settings(asked, seed, bilinear=arm.interpolation == "bilinear"), repulsion_from=None)
    looks = {round(part * len(batches) / EVALUATIONS_AN_EPOCH) for part in range(1, EVALUATIONS_AN_EPOCH + 1)}
    group = Processes(_CPU)
    trainer = Trainer(settings, model, len(batches), group)
    trainer.on_images = on_batch
    yield validate(model, test, group, settings).top1
    for epoch in range(study.epochs):
        for done in trainer.epoch(([batch] for batch in batches), Step(epoch, 0)):
            if done.step.update + 1 in looks:
                yield validate(model, test, group, settings).top1
                model.train()


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, writes, draws; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    try:
        config = CompareConfig(model=arguments.model, data=arguments.data, epochs=arguments.epochs).checked()
        data = load_data(arguments.data)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    study = FineTuning(config, arguments.fine_tuning_epochs, arguments.rates, range(arguments.seeds))
    result = record("fine-tuning", argv, PACKAGES, module="benchmarks.fine_tuning")
    result["settings"] = {
        "model": config.model,
        "epochs": config.epochs,
        "fine_tuning_epochs": study.epochs,
        "rates": list(study.rates),
        "dilated_kernel_size": config.dilated_kernel_size,
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
    }
    result["data"] = {"name": data.name, "train_images": len(data.train), "test_images": len(data.test)}
    with ProgressBar(Console(), study.images(data)) as bar:
        result["runs"] = measure(study, data, bar)
    path = write(result, arguments.out)
    draw(result, arguments.picture)
    print(f"Written to {path} and {arguments.picture}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fine_tuning",
        description="Fine-tune a converted model from a warm start and with new weights.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", default="convnext", help="see torchdcls compare (default: %(default)s)")
    parser.add_argument("--data", default="embedded", help="see torchdcls compare (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="with 7x7 layers (default: %(default)s)")
    parser.add_argument("--fine-tuning-epochs", type=int, default=2, help="after it (default: %(default)s)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[4e-3, 1e-3], help="base learning rates of fine-tuning"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default: benchmarks/results)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw (default: docs/images)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
