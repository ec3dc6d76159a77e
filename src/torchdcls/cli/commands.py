"""The commands: what each takes, and what it calls. What a command needs is imported when it is run."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from .._checks import also_nearest, alternatives, nearest
from ..train.comparison.config import CompareConfig
from ..train.recipes import load_recipe, recipe_names
from ..train.settings import EvalConfig, ExportConfig, TrainConfig
from ..train.study.files import load_study, study_names
from .settings import InfoConfig


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        options: Makes its parser, from all arguments of the process.
        run: Does it, with what was parsed and all arguments, and returns the exit status.
    """

    options: Callable[[Sequence[str]], ArgumentParser]
    run: Callable[[dict[str, Any], list[str]], int]


def _compare_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        description="Train the same small model with 7x7 and with DCLS layers on real images, and compare them."
    )
    parser.add_argument("--config", action="config", help="YAML file with settings")
    _add_settings(parser, CompareConfig, {})
    return parser


def _compare(settings: dict[str, Any], arguments: list[str]) -> int:
    from ..train.comparison.compare import compare

    settings.pop("config")
    result = compare(CompareConfig(**settings), argv=arguments)
    return 130 if result["status"] == "interrupted" else 0


def _train_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls train (--config RECIPE | --model MODEL) --data DATA [--SETTING VALUE ...]",
        description="Train a model: one of the papers' by its recipe, or any of timm's. To use many GPUs: "
        "torchrun --nproc-per-node 8 -m torchdcls train ...",
    )
    parser.add_argument(
        "--config",
        type=str,
        help="a recipe of the package, such as convnext_tiny-dcls-gaussian ('list' names all), or a YAML file",
    )
    parser.add_argument("--dry-run", action="store_true", help="open the data, check all settings, print them, and end")
    needed = dict.fromkeys(("model", "data"), argparse.SUPPRESS)
    _add_settings(parser, TrainConfig, {**needed, **_recipe(arguments)})
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
        from ..train.engine import check
        from ..train.run_folder import resolved

        about = check(config, name=folder) if config.data else "data: not given, so that nothing was opened"
        print(yaml.safe_dump(resolved(config), sort_keys=False), end="")
        print("".join(f"# {line}\n" for line in about.splitlines()), end="")
        return 0
    from ..train.engine import train

    train(config, name=folder, argv=arguments)
    return 0


def _fitted(settings: dict[str, Any], arguments: Sequence[str]) -> list[str]:
    """Fits what goes with --epochs and --batch-size to them, unless the command line says it too; and says so."""
    given = {argument.partition("=")[0] for argument in arguments}
    notes: list[str] = []
    batch, micro = settings["batch_size"], settings["micro_batch"]
    if "--batch-size" in given and "--micro-batch" not in given and 1 <= batch < micro:
        settings["micro_batch"] = batch
        notes.append(f"--micro-batch is {batch} instead of {micro}, as --batch-size is")
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
        help="best.safetensors or last.safetensors of a run, or checkpoints/METHOD-seedN of one of torchdcls compare",
    )
    _add_settings(parser, EvalConfig, {})
    return parser


def _eval(settings: dict[str, Any], arguments: list[str]) -> int:
    from ..train.evaluate import evaluate

    evaluate(settings.pop("checkpoint"), EvalConfig(**settings))
    return 0


def _study_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls study CONFIG [--out FOLDER] [--data-dir FOLDER] [--models MODEL ...] [--seeds SEED ...] "
        "[--status | --report]",
        description="Run a study: tune every method alike, compare them with paired seeds, and report what comes out. "
        "The same command goes on where it was.",
    )
    parser.add_argument("config", type=str, help=f"{' or '.join(study_names())}, or a YAML file with settings")
    parser.add_argument("--out", type=Path, help="folder of the study (default: runs/study-CONFIG)")
    parser.add_argument("--data-dir", type=Path, help="where the files of the data are (default: as the file says)")
    parser.add_argument("--models", nargs="+", type=str, help="train these models' part alone, to share a study")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the final trainings do these seeds' alone, likewise")
    parser.add_argument("--status", action="store_true", help="print what is done and what remains, and end")
    parser.add_argument("--report", action="store_true", help="write page and pictures from what is done, and end")
    return parser


def _study(settings: dict[str, Any], arguments: list[str]) -> int:
    from ..train.study.run import print_status, report, study, study_folder

    name, out = Path(settings["config"]).stem, settings["out"]
    asked = [option for option in ("status", "report") if settings[option]]
    if len(asked) > 1 or (asked and (settings["models"] or settings["seeds"])):
        raise ValueError(f"{asked[0]}: expected by itself, for it is about all of a study, got other options beside it")
    if settings["report"]:
        if not study_folder(name, out).exists():
            load_study(settings["config"])  # a name that is none is said to be so
        report(name=name, out=out)
        return 0
    config = load_study(settings["config"])
    if settings["data_dir"] is not None:
        config = replace(config, data_dir=settings["data_dir"])
    if settings["status"]:
        print_status(config, name=name, out=out)
        return 0
    state = study(config, name=name, out=out, argv=arguments, models=settings["models"], seeds=settings["seeds"])
    return 130 if state == "interrupted" else 0


def _export_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls export CHECKPOINT --to onnx|pt2|safetensors [--SETTING VALUE ...]",
        description="Write the model of a checkpoint of torchdcls train for use elsewhere, and compare them.",
    )
    parser.add_argument("checkpoint", type=Path, help="best.safetensors or last.safetensors of a run")
    _add_settings(parser, ExportConfig, {"to": argparse.SUPPRESS})
    return parser


def _export(settings: dict[str, Any], arguments: list[str]) -> int:
    from ..train.export import export_checkpoint

    export_checkpoint(settings.pop("checkpoint"), ExportConfig(**settings))
    return 0


def _info_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="torchdcls info MODEL [--OPTION VALUE ...]",
        description="What a model is made of, and what a conversion would make of it: layers, parameters, operations, "
        "receptive field. No weights are needed.",
    )
    parser.add_argument("model", type=str, help="timm's name, or torchvision's: resnet50, torchvision:resnet50")
    _add_settings(parser, InfoConfig, {})
    return parser


def _info(settings: dict[str, Any], arguments: list[str]) -> int:
    from .info import info

    info(settings.pop("model"), InfoConfig(**settings))
    return 0


def _add_settings(parser: ArgumentParser, config: type[Any], defaults: Mapping[str, Any]) -> None:
    """An option for each setting of a dataclass, whose fields say what they mean; SUPPRESS leaves a default to it."""
    types = get_type_hints(config)
    for setting in fields(config):
        flag, text = "--" + setting.name.replace("_", "-"), setting.metadata["help"]
        kind, default = types[setting.name], defaults.get(setting.name, setting.default)
        if kind is bool:
            # With or without a word, whatever the default.
            parser.add_argument(flag, nargs="?", const=True, type=bool, default=default, help=text)
        elif get_origin(kind) is Sequence:
            (choice,) = get_args(kind)
            parser.add_argument(flag, nargs="+", type=choice, default=list(default), help=text)
        else:
            parser.add_argument(flag, type=kind, default=default, help=text)


def _recipe(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings that --config names, which are defaults of the command line's."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")  # that it has no value is for the whole parser to say
    name = first.parse_known_args(list(arguments))[0].config
    if name in (None, "list"):
        return {}
    recipe = load_recipe(name)
    checked = ArgumentParser(exit_on_error=False)
    _add_settings(checked, TrainConfig, {})
    for setting, value in recipe.items():
        try:
            checked.parse_object({setting: value}, defaults=False)
        except ArgumentError:
            raise _of_another_type(setting, get_type_hints(TrainConfig)[setting], value, f" in {name}") from None
    return recipe


def check_options(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuses an option that a command does not have."""
    known = {option for action in parser._actions for option in action.option_strings}
    for argument in arguments:
        option = argument.partition("=")[0]
        if option.startswith("--") and option.partition(".")[0] not in known:
            raise ValueError(f"{option}: expected an option; {nearest(option, sorted(known))}")


def mistake(error: ArgumentError, parser: ArgumentParser) -> ValueError:
    """What jsonargparse says in several lines of words that it cannot parse, in one.

    Args:
        error: What it raised.
        parser: That of the command.
    """
    text = " ".join(str(error).split())
    found = re.search(r'Parser key "(?:\w+\.)?(\w+)".*?(?:Got|Given) value: (.*)', str(error), re.DOTALL)
    if found is not None:
        (kind,) = (action._typehint for action in parser._actions if action.dest == found[1])  # type: ignore[attr-defined]
        return _of_another_type(found[1], kind, found[2].strip(), "")
    if (unknown := re.fullmatch(r"unrecognized arguments: (.*)", text)) is not None:
        return ValueError(f"expected options, which begin with --, got {unknown[1]!r} besides")
    if (content := re.fullmatch(r"(?:Unexpected config|Problems parsing config): (.*)", text)) is not None:
        return ValueError(f"config: expected a YAML file with lines of 'setting: value', got another ({content[1]})")
    # Keys and required words are called by their command too.
    text = re.sub(r'^Parser key "(?:\w+\.)?(\w+)": ', r"\1: ", re.sub(r"(required: )\w+\.", r"\1", text))
    return ValueError(re.sub(r"^argument (-[\w-]+): ", r"\1: ", text))


def _of_another_type(name: str, kind: Any, value: Any, place: str) -> ValueError:
    choices = [choice for choice in _choices(kind) if isinstance(choice, str)]
    hint = also_nearest(value, choices)
    if isinstance(value, str) and re.search(r":\S", value) and _takes_a_mapping(kind):
        spaced = re.sub(r":(?=\S)", ": ", value)
        hint = f"; YAML wants a space after the colon: {spaced!r}"
    return ValueError(f"{name}: expected {_in_words(kind)}{place}, got {value!r}{hint}")


def _takes_a_mapping(kind: Any) -> bool:
    return any(get_origin(one) is Mapping for one in (kind, *get_args(kind)))


def _choices(kind: Any) -> list[Any]:
    arguments = get_args(kind)
    return list(arguments) if get_origin(kind) is Literal else [one for part in arguments for one in _choices(part)]


_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a word",
    Path: "a path",
    NoneType: "null",
    Mapping: "a mapping such as '{depths: [2, 2], dims: [8, 8]}'",
}


def _in_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return alternatives(arguments)
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, arguments))
    if origin is tuple:
        return f"{len(arguments)} numbers such as '[0.5, 1]'"
    return _WORDS.get(origin or kind) or str(kind)


COMMANDS = {
    "compare": Command(_compare_options, _compare),
    "train": Command(_train_options, _train),
    "eval": Command(_eval_options, _eval),
    "study": Command(_study_options, _study),
    "export": Command(_export_options, _export),
    "info": Command(_info_options, _info),
}
