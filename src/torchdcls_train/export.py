"""The model of a checkpoint, written for use elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from torchdcls import deployment
from torchdcls.deployment import Configuration, ExportReport
from torchdcls.deployment.report import Format

from .data.transforms import preparation
from .runs.folder import resolved
from .runs.trained_model import read_trained
from .settings import ExportConfig

# What the settings are called in the function that does it.
_CALLED = {"path": "out", "example": "image_size"}


def export_checkpoint(checkpoint: str | Path, config: ExportConfig, console: Console | None = None) -> ExportReport:
    """Writes the model of a checkpoint for other programs, compares their outputs, and prints the result.

    Args:
        checkpoint: best.safetensors or last.safetensors of a run.
        config: What to write, and where.
        console: Where to print; by default standard output.

    Raises:
        ValueError: The checkpoint or a setting cannot be used, or the outputs of file and model differ. No file is
            written.
        ModuleNotFoundError: A package is missing.
    """
    to = cast(Format, config.to)  # checked where the settings are made
    console = console or Console()
    checkpoint = Path(checkpoint)
    out = config.out or _beside(checkpoint, to)
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise ValueError(f"out: expected another file than the checkpoint, got '{out}'")
    with console.status("reading the checkpoint") as status:
        try:
            deployment.check_path(out, to, config.overwrite)
            trained = read_trained(checkpoint, config.weights)
            model, run = trained.model, trained.run
            size, prepared = config.image_size or run.image_size, preparation(model)
            arguments = dict(run.model_args or {})
            report = deployment.export(
                model,
                out,
                to=to,
                example=torch.randn((2, arguments.get("in_chans", 3), size, size), generator=torch.Generator()),
                dynamic_size=config.dynamic_size,
                fused=config.fused,
                positions=config.positions,
                opset=config.opset,
                configuration=Configuration(
                    model=run.model,
                    arguments=_arguments(arguments, trained.num_classes, run.drop_path),
                    classes=trained.classes,
                    mean=prepared.mean,
                    std=prepared.std,
                    image_size=size,
                    interpolation=prepared.interpolation,
                    crop_pct=prepared.crop_pct if run.crop_pct is None else run.crop_pct,
                    weights=trained.taken.part,
                    training=_without_paths(resolved(run)),
                ),
                overwrite=config.overwrite,
                progress=status.update,
            )
        except ValueError as error:
            name, colon, rest = str(error).partition(":")
            raise ValueError(f"{_CALLED.get(name, name)}{colon}{rest}") from None
    report = replace(report, notes=(str(trained.taken), *report.notes))
    console.print(str(report), highlight=False, markup=False, soft_wrap=True)
    return report


def _beside(checkpoint: Path, to: str) -> Path:
    # The checkpoint has the ending of one of them.
    name = f"{checkpoint.stem}-model.{to}" if to == "safetensors" else f"{checkpoint.stem}.{to}"
    return checkpoint.with_name(name)


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without folders of the machine that the run was on."""
    kept = {name: value for name, value in settings.items() if name not in ("data_dir", "out", "resume")}
    for name in ("data", "initial_checkpoint"):
        if Path(kept[name] or "").is_absolute():
            kept[name] = Path(kept[name]).name
    return kept


def _arguments(arguments: dict[str, object], num_classes: int, drop_path: float) -> dict[str, object]:
    """What `build_model` makes a model with."""
    return {**arguments, "num_classes": num_classes, **({"drop_path_rate": drop_path} if drop_path else {})}
