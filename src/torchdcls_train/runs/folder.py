"""The folder of a run: what it was asked for, what came out, and its checkpoints."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from torchdcls.nn import DclsLayer
from torchdcls_results import environment, write_text

from ..settings import TrainConfig
from ..trainer import Step
from .checkpoint import Checkpoint, load_checkpoint
from .writer import RunWriter, read_rows

# What may differ between a run and its continuation: nothing that decides what is computed.
_FREE = {
    *("data", "data_dir", "workers", "max_unreadable", "max_image_pixels", "device", "threads", "out", "resume"),
    *("checkpoint_every", "tensorboard", "compile"),
}
_PACKAGES = ("torch", "torchvision", "timm", "torchdcls")


class RunFolder:
    """The folder of a run; made before its first update.

    `run.json` holds command, versions, commit, machine and settings; `config.yaml` the settings as `--config` takes
    them; `metrics.jsonl` a line for every `log_every` updates and for every epoch; `tensorboard/` the same and
    histograms of positions and sigmas; `checkpoints/last.safetensors` all that is needed to resume,
    `previous.safetensors` the one before it, and `best.safetensors` the weights, or their average, of the best epoch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.safetensors"
        self.previous = path / "checkpoints" / "previous.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"
        self._metrics = path / "metrics.jsonl"
        self._board: Any = None
        self._writer: RunWriter | None = None

    def checkpoint(self, resume: str | None) -> Checkpoint | None:
        """The checkpoint to resume from, None for a new run.

        Raises:
            ValueError: There is a run in the folder that was not meant, or the checkpoint cannot be read.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out: expected a folder, got '{self.path}', which is a file; take another one")
        holds_a_run = (self.path / "run.json").exists()
        kept = [path.resolve() for path in (self.last, self.previous)]
        own = resume == "auto" or (resume is not None and Path(resume).resolve() in kept)
        if holds_a_run and not own:
            raise ValueError(
                f"out: expected a folder without a run in it, got '{self.path}'; resume it by --resume auto, or "
                "take another folder with --out"
            )
        if resume not in (None, "auto"):
            return load_checkpoint(Path(resume))
        # A run that was killed between two renames has the one before alone.
        found = next((path for path in (self.last, self.previous) if holds_a_run and path.exists()), None)
        return None if found is None else load_checkpoint(found)

    def begin(self, config: TrainConfig, command: str, facts: Mapping[str, Any], first: Step, updates: int) -> None:
        """Writes what is known before the first update, and cuts what was logged after a checkpoint.

        Args:
            config: Settings.
            command: What the user typed.
            facts: What else the record should say: device, processes, parameters, data.
            first: The update that the run begins or resumes with.
            updates: Number of updates before that one.
        """
        self._writer = RunWriter(self.path, "run.json", self._metrics.name)
        self.last.parent.mkdir(exist_ok=True)
        settings = resolved(config)
        record = {**environment(command, _PACKAGES), **facts, "config": settings}
        if updates > 0:
            before = self.path / "run.json"
            begun = json.loads(before.read_text(encoding="utf-8")) if before.exists() else record
            record = {**begun, "resumed": [*begun.get("resumed", []), {**asdict(first), **record}]}
        self._writer.write(record)
        write_text(self.path / "config.yaml", yaml.safe_dump(settings, sort_keys=False))

        def stays(row: Mapping[str, Any]) -> bool:
            return bool(row["epoch"] < first.epoch if row["kind"] == "epoch" else row["updates"] <= updates)

        self._writer.keep(filter(stays, self.rows()))
        if config.tensorboard:
            self._board = _summary_writer(self.path / "tensorboard", updates)

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`, and its numbers to TensorBoard."""
        assert self._writer is not None
        self._writer.add(row)  # before the checkpoint that counts on it
        if self._board is not None:
            for name, value in row.items():
                if name not in ("kind", "epoch", "updates"):
                    self._board.add_scalar(f"{row['kind']}/{name}", value, row["updates"])

    def log_elements(self, model: nn.Module, updates: int) -> None:
        """Adds histograms of positions and sigmas to TensorBoard, shared ones once."""
        if self._board is None:
            return
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in ("position", "sigma"):
                self._board.add_histogram(name, parameter.detach().float().cpu(), updates)
        self._board.flush()

    def rows(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; one that was being written when the run was killed is left out."""
        return read_rows(self._metrics)

    def close(self) -> None:
        """Ends TensorBoard's file, and lets others have the folder."""
        if self._board is not None:
            self._board.close()
        if self._writer is not None:
            self._writer.close()


def resolved(config: TrainConfig) -> dict[str, Any]:
    """The settings as numbers, strings, lists and mappings."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in asdict(config).items()}


def check_resumable(
    checkpoint: Checkpoint,
    config: TrainConfig,
    updates_per_epoch: int,
    classes: tuple[str, ...] | None,
    identity: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Refuses to resume with settings or data that would compute something else.

    Args:
        checkpoint: What to resume from.
        config: Settings.
        updates_per_epoch: With these settings and data.
        classes: Names of the data's classes, if they are known.
        identity: Of the data, as of `Sources.identity`.

    Returns:
        A note, where the checkpoint does not say which images it was made with.

    Raises:
        ValueError: A setting, the number of updates, the classes, images or labels differ.
    """
    about = checkpoint.about

    def refuse_if(differ: bool, name: str, what: str, difference: str) -> None:
        if differ:
            raise ValueError(
                f"{name}: expected the {what} of '{checkpoint.path}', got others ({difference}); give the same ones, "
                f"or {new_run(checkpoint)}"
            )

    # As JSON gives them back. Settings that are newer than the checkpoint were as they are by default.
    own, defaults = (
        json.loads(json.dumps(settings))
        for settings in (resolved(config), {setting.name: setting.default for setting in fields(TrainConfig)})
    )
    stored = {**defaults, **about.get("config", {})}
    changes = [
        f"{name} was {stored.get(name)!r}, is {value!r}"
        for name, value in own.items()
        if name not in _FREE and value != stored.get(name)
    ]
    refuse_if(bool(changes), "resume", "settings", "; ".join(changes))
    updates = about.get("updates_per_epoch", updates_per_epoch)
    refuse_if(updates != updates_per_epoch, "data", "updates an epoch", f"{updates_per_epoch} in place of {updates}")
    before = tuple(about.get("classes") or ())
    if before and classes is not None and before != classes:
        pairs = zip(before, classes, strict=False)
        other = next((f"{came!r} in place of {name!r}" for name, came in pairs if name != came), "")
        counts = f"{len(classes)} in place of {len(before)}"
        refuse_if(True, "data", "classes", other if len(classes) == len(before) else counts)
    if about.get("data") is None:
        return f"note: '{checkpoint.path}' does not say which images it was made with, so they are not compared"
    for split, images in identity.items():
        there = about["data"][split]
        counts = f"{images['images']} in place of {there['images']}"
        how = "as many, of other names or labels" if images["images"] == there["images"] else counts
        refuse_if(images != there, "data", f"{split} images", how)
    return None


def new_run(checkpoint: Checkpoint) -> str:
    """How to train on where a run cannot be resumed."""
    return f"begin a new run with its weights: --initial-checkpoint '{checkpoint.path}' and another --out"


def element_statistics(model: nn.Module) -> dict[str, float]:
    """Share of positions at the grid's border and mean spread beyond the profile's smallest, over all DCLS layers."""
    layers: dict[nn.Parameter, DclsLayer] = {}  # by their positions, which they may share
    for module in model.modules():
        if isinstance(module, DclsLayer):
            layers.setdefault(module.position, module)
    borders = [
        ((axis <= -(size // 2)) | (axis >= size - 1 - size // 2)).flatten()
        for layer in layers.values()
        for axis, size in zip(layer.position.detach(), layer.learned_size, strict=True)
    ]
    sigmas = [layer.sigma.detach().abs().mean().item() for layer in layers.values() if layer.sigma is not None]
    found = {}
    if borders:
        at_border = torch.cat(borders)
        found["positions_at_border"] = at_border.sum().item() / len(at_border)
    if sigmas:
        found["mean_sigma"] = math.fsum(sigmas) / len(sigmas)
    return found


def _summary_writer(folder: Path, updates: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=updates + 1)  # type: ignore[no-untyped-call]
