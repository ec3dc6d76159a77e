"""The commands of this package: what each takes, and what it calls. What a command needs is imported when it is run."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from torchdcls._checks import alternatives, nearest
from torchdcls.cli.options import Command, add_settings, of_another_type

from .comparison.config import CompareAllConfig, CompareConfig, DigitsConfig, PositionsConfig
from .recipes import load_recipe, recipe_names
from .settings import EvalConfig, ExportConfig, TrainConfig


def _compare_options(arguments: Sequence[str]) -> ArgumentParser:
    if not arguments or arguments[0].startswith("-"):
        parser = ArgumentParser(
            usage=f"torchdcls compare [{' | '.join(COMPARISONS)}] [--SETTING VALUE ...]",
            description=" ".join(
                [
                    "Without a name, positions and images run with their defaults.",
                    *(f"{word}: {about}" for word, (about, _) in COMPARISONS.items()),
                ]
            ),
        )
        _refuse_settings_of_one(arguments)
        add_settings(parser, CompareAllConfig, {})
        return parser
    word = arguments[0]
    if word not in COMPARISONS:
        raise ValueError(f"expected {alternatives(COMPARISONS)}, or an option; {nearest(word, COMPARISONS)}")
    about, config = COMPARISONS[word]
    parser = ArgumentParser(usage=f"torchdcls compare {word} [--SETTING VALUE ...]", description=about)
    parser.add_argument("comparison", type=str, help=argparse.SUPPRESS)
    parser.add_argument("--config", action="config", help="YAML file with settings")
    add_settings(parser, config, {})
    return parser


COMPARISONS: dict[str, tuple[str, type[Any]]] = {
    "positions": (
        "Can elements find the taps of known kernels? Compare all interpolations.",
        PositionsConfig,
    ),
    "images": (
        "Train the same small model with 7x7 and with DCLS layers on real images, and compare the accuracies.",
        CompareConfig,
    ),
    "digits": (
        "Train spiking networks with and without learned delays on spoken digits, and compare the accuracies.",
        DigitsConfig,
    ),
}


def _refuse_settings_of_one(arguments: Sequence[str]) -> None:
    """Where no comparison is named, refuses settings that only some of them have."""
    own = {setting.name for setting in fields(CompareAllConfig)}
    for argument in arguments:
        option = argument.partition("=")[0]
        name = option.removeprefix("--").replace("-", "_")
        words = [
            word
            for word, (_, config) in COMPARISONS.items()
            if name not in own and name in {"config", *(setting.name for setting in fields(config))}
        ]
        if words:
            raise ValueError(
                f"{option}: expected {alternatives(words)} before it, as in torchdcls compare {words[-1]} {option}"
            )


def _compare(settings: dict[str, Any], arguments: list[str]) -> int:
    word = settings.pop("comparison", None)
    settings.pop("config", None)
    argv = ["compare", *arguments]
    if word is not None:
        compare = getattr(import_module(f".comparison.{word}.run", __package__), f"compare_{word}")
        return _ended(compare(COMPARISONS[word][1](**settings), argv=argv).status)
    from .comparison.images.findings import images_section
    from .comparison.images.run import compare_images
    from .comparison.positions.findings import positions_section
    from .comparison.positions.run import compare_positions
    from .comparison.record import run_folder
    from .comparison.report import write_report

    out = run_folder(settings.pop("out"), "compare")
    given = {name: value for name, value in settings.items() if value is not None}
    positions = compare_positions(PositionsConfig(**given, out=out / "positions"), argv=argv)
    if positions.status != "finished":
        return _ended(positions.status)
    images = compare_images(CompareConfig(**settings, out=out / "images"), argv=argv)
    parts = [positions_section(positions, out / "positions"), images_section(images, out / "images")]
    write_report(out / "report.html", parts)
    print(f"wrote {out / 'report.html'}, with both comparisons")
    return _ended(images.status)


def _ended(status: str) -> int:
    return 130 if status == "interrupted" else 0


def _train_options(arguments: Sequence[str]) -> ArgumentParser:
    if arguments and arguments[0] in recipe_names():
        raise ValueError(f"config: expected --config before the name of a recipe, as in --config {arguments[0]}")
    parser = ArgumentParser(
        usage="torchdcls train (--config RECIPE | --model MODEL) --data DATA [--SETTING VALUE ...]",
        description="Train one of the papers' models by its recipe, or any timm model. To use many GPUs: "
        "torchrun --nproc-per-node 8 -m torchdcls train ...",
    )
    parser.add_argument(
        "--config",
        type=str,
        help="a recipe of the package, such as convnext_tiny-dcls-gaussian ('list' names all), or a YAML file",
    )
    parser.add_argument("--dry-run", action="store_true", help="open the data, check all settings, print them, and end")
    needed = dict.fromkeys(("model", "data"), argparse.SUPPRESS)
    add_settings(parser, TrainConfig, {**needed, **_recipe(arguments)})
    return parser


def _train(settings: dict[str, Any], arguments: list[str]) -> int:
    name, dry_run = settings.pop("config"), settings.pop("dry_run")
    if name == "list":
        print("\n".join(recipe_names()))
        return 0
    if name is None and not any(argument.partition("=")[0] == "--model" for argument in arguments):
        raise ValueError(
            f"config: expected a recipe, such as {', '.join(recipe_names()[:3])}, or a YAML file, or a --model, "
            "got neither"
        )
    for note in _fitted(settings, arguments):
        print(f"torchdcls train: {note}", file=sys.stderr)
    config, folder = TrainConfig(**settings), None if name is None else Path(name).stem
    if dry_run:
        from .runs.folder import resolved
        from .train import check

        about = check(config, name=folder) if config.data else "data: not given, and not checked"
        print(yaml.safe_dump(resolved(config), sort_keys=False), end="")
        print("".join(f"# {line}\n" for line in about.splitlines()), end="")
        return 0
    from .train import train

    train(config, name=folder, argv=arguments)
    return 0


def _fitted(settings: dict[str, Any], arguments: Sequence[str]) -> list[str]:
    """Fits what goes with --epochs and --batch-size to them, unless the command line says it too; and says so."""
    given = {argument.partition("=")[0] for argument in arguments}
    notes: list[str] = []
    batch, micro = settings["batch_size"], settings["micro_batch"]
    if "--batch-size" in given and "--micro-batch" not in given and 1 <= batch < micro:
        settings["micro_batch"] = batch
        notes.append(f"--micro-batch is {batch} instead of {micro}, to match --batch-size")
    epochs, warmup, repulsion = settings["epochs"], settings["warmup_epochs"], settings["repulsion_from"]
    if "--epochs" not in given or epochs < 1:
        return notes
    if "--warmup-epochs" not in given and warmup > epochs / _WARMUP_SHARE:
        settings["warmup_epochs"] = epochs / _WARMUP_SHARE
        notes.append(
            f"--warmup-epochs is {epochs / _WARMUP_SHARE:g} instead of {warmup:g}, a quarter of --epochs {epochs}"
        )
    if "--repulsion-from" not in given and repulsion is not None and repulsion >= epochs:
        notes.append(f"--repulsion-from is {repulsion}, which --epochs {epochs} does not reach: no repulsion")
    return notes


_WARMUP_SHARE = 4


def _eval_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls eval CHECKPOINT [--SETTING VALUE ...]",
        description="Score a checkpoint of torchdcls train or compare on validation images.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="best.safetensors or last.safetensors of a run, or checkpoints/METHOD-seedN.safetensors of a comparison",
    )
    add_settings(parser, EvalConfig, {})
    return parser


def _eval(settings: dict[str, Any], arguments: list[str]) -> int:
    from .evaluate import evaluate

    evaluate(settings.pop("checkpoint"), EvalConfig(**settings))
    return 0


def _export_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls export CHECKPOINT --to onnx|pt2|safetensors [--SETTING VALUE ...]",
        description="Write the model of a checkpoint of torchdcls train for other programs, and compare the outputs.",
    )
    parser.add_argument("checkpoint", type=Path, help="best.safetensors or last.safetensors of a run")
    add_settings(parser, ExportConfig, {"to": argparse.SUPPRESS})
    return parser


def _export(settings: dict[str, Any], arguments: list[str]) -> int:
    from .export import export_checkpoint

    export_checkpoint(settings.pop("checkpoint"), ExportConfig(**settings))
    return 0


def _recipe(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings of --config, which are defaults of the command line."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")  # that it has no value is for the whole parser to say
    name = first.parse_known_args(list(arguments))[0].config
    if name in (None, "list"):
        return {}
    recipe = load_recipe(name)
    checked = ArgumentParser(exit_on_error=False)
    add_settings(checked, TrainConfig, {})
    for setting, value in recipe.items():
        try:
            checked.parse_object({setting: value}, defaults=False)
        except ArgumentError:
            raise of_another_type(setting, get_type_hints(TrainConfig)[setting], value, f" in {name}") from None
    return recipe


COMPARE = Command(_compare_options, _compare)
TRAIN = Command(_train_options, _train)
EVAL = Command(_eval_options, _eval)
EXPORT = Command(_export_options, _export)
