"""The folder of a run: what it was asked for, what came out, and its checkpoints."""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import yaml
from torch import nn

from torchdcls._environment import environment
from torchdcls.nn import DclsLayer

from .checkpoint import Checkpoint, load_checkpoint, write_whole
from .settings import TrainConfig
from .trainer import Place

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

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.safetensors"
        self.previous = path / "checkpoints" / "previous.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"
        self._metrics = path / "metrics.jsonl"
        self._board: Any = None
        self._lock: IO[str] | None = None

    def checkpoint(self, resume: str | None) -> Checkpoint | None:
        """The checkpoint to go on from, None for a new run.

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
                f"out: expected a folder without a run in it, got '{self.path}'; go on with it by --resume auto, or "
                "take another folder with --out"
            )
        if resume not in (None, "auto"):
            return load_checkpoint(Path(resume))
        # A run that was killed between two renames has the one before alone.
        found = next((path for path in (self.last, self.previous) if holds_a_run and path.exists()), None)
        return None if found is None else load_checkpoint(found)

    def begin(self, config: TrainConfig, command: str, facts: Mapping[str, Any], place: Place, updates: int) -> None:
        """Writes what is known before the first update, and cuts what was logged after the place of a checkpoint.

        Args:
            config: Settings.
            command: What the user typed.
            facts: What else the record should say: device, processes, parameters, data.
            place: Where the run begins or goes on.
            updates: Updates that were done before.
        """
        self.last.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path)
        settings = resolved(config)
        record = {**environment(command, _PACKAGES), **facts, "config": settings}
        if updates > 0:
            before = self.path / "run.json"
            first = json.loads(before.read_text(encoding="utf-8")) if before.exists() else record
            since = {"epoch": place.epoch, "update": place.update}
            record = {**first, "resumed": [*first.get("resumed", []), {**since, **record}]}
        self._write("run.json", json.dumps(record, indent=2) + "\n")
        self._write("config.yaml", yaml.safe_dump(settings, sort_keys=False))
        self._cut(place, updates)
        if config.tensorboard:
            self._board = _summary_writer(self.path / "tensorboard", updates)

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`, and its numbers to TensorBoard."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint may count on it
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
        rows = []
        if self._metrics.exists():
            for line in self._metrics.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows

    def close(self) -> None:
        """Ends TensorBoard's file, and lets others have the folder."""
        if self._board is not None:
            self._board.close()
        if self._lock is not None:
            self._lock.close()

    def _cut(self, place: Place, updates: int) -> None:
        def stays(row: Mapping[str, Any]) -> bool:
            return bool(row["epoch"] < place.epoch if row["kind"] == "epoch" else row["updates"] <= updates)

        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows() if stays(row)))

    def _write(self, name: str, text: str) -> None:
        write_whole(self.path / name, lambda unfinished: _write_text(unfinished, text))


def _locked(folder: Path) -> IO[str] | None:
    """Keeps other runs out of a folder until this process ends, where the system can."""
    if sys.platform == "win32":
        return None
    import fcntl

    file = (folder / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise ValueError(
            f"out: expected a folder that no other run writes to, got '{folder}'; wait for it, or end it"
        ) from None
    except OSError:  # a file system without locks
        pass
    return file


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def resolved(config: TrainConfig) -> dict[str, Any]:
    """The settings as numbers, strings, lists and mappings."""
    plain = {}
    for name, value in asdict(config).items():
        if isinstance(value, Path):
            value = str(value)
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def check_same_run(config: TrainConfig, checkpoint: Checkpoint) -> None:
    """Refuses to go on with settings that would compute something else.

    Raises:
        ValueError: A setting differs.
    """
    # As JSON gives them back.
    own = json.loads(json.dumps(resolved(config)))
    # Settings that are newer than the checkpoint were as they are by default.
    defaults = {setting.name: setting.default for setting in fields(TrainConfig)}
    stored = {**json.loads(json.dumps(defaults)), **checkpoint.about.get("config", {})}
    other = [name for name in own if name not in _FREE and own[name] != stored.get(name)]
    if other:
        changes = "; ".join(f"{name} was {stored.get(name)!r}, is {own[name]!r}" for name in other)
        raise ValueError(
            f"resume: expected the settings of '{checkpoint.path}', got others ({changes}); give the same ones, or "
            f"{new_run(checkpoint)}"
        )


def check_same_data(identity: Mapping[str, Mapping[str, Any]], checkpoint: Checkpoint) -> str | None:
    """Refuses to resume with other images or labels.

    Args:
        identity: By what the images are known, as `Sources.identity` says.
        checkpoint: What to resume from.

    Returns:
        A note, where the checkpoint does not say which images it was made with.

    Raises:
        ValueError: They are others.
    """
    stored = checkpoint.about.get("data")
    if stored is None:
        return f"note: '{checkpoint.path}' does not say which images it was made with, so they are not compared"
    for split, own in identity.items():
        if own != stored[split]:
            counts = f"{own['images']} in the place of {stored[split]['images']}"
            how = "as many, of other names or labels" if own["images"] == stored[split]["images"] else counts
            raise ValueError(
                f"data: expected the {split} images of '{checkpoint.path}', got others ({how}); give the same ones, or "
                f"{new_run(checkpoint)}"
            )
    return None


def new_run(checkpoint: Checkpoint) -> str:
    """How to train on where a run cannot be resumed."""
    return f"begin a new run with its weights: --initial-checkpoint '{checkpoint.path}' and another --out"


def element_statistics(model: nn.Module) -> dict[str, float]:
    """Share of positions at the grid's border and mean spread beyond the profile's smallest, over all DCLS layers."""
    at_border, count, sigmas = 0.0, 0, []
    seen: set[nn.Parameter] = set()
    for layer in (module for module in model.modules() if isinstance(module, DclsLayer)):
        if layer.position in seen:
            continue
        seen.add(layer.position)
        for axis, size in zip(layer.position.detach(), layer.learned_size, strict=True):
            at_border += float(((axis <= -(size // 2)) | (axis >= size - 1 - size // 2)).sum())
            count += axis.numel()
        if layer.sigma is not None:
            sigmas.append(layer.sigma.detach().abs().mean().item())
    if count == 0:
        return {}
    return {
        "positions_at_border": at_border / count,
        **({"mean_sigma": math.fsum(sigmas) / len(sigmas)} if sigmas else {}),
    }


def _summary_writer(folder: Path, updates: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=updates + 1)  # type: ignore[no-untyped-call]
