"""A training run from its settings to its checkpoints, on one machine or many."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import nn

from torchdcls._checks import first_names
from torchdcls.conversion import parameter_count

from .data.batches import Batch, TrainingBatches, Unreadable
from .data.open_sources import open_sources
from .data.source_types import Images, Sources, Stream, image_count
from .data.transforms import preparation, training_transform
from .processes import Processes, device_name, helpful_threads, processes
from .runs.checkpoint import Checkpoint, save_checkpoint
from .runs.folder import RunFolder, check_resumable, element_statistics, new_run, resolved
from .runs.initial_weights import load_initial_
from .runs.interruption import Interruption
from .runs.progress_bar import ProgressBar, say
from .runs.trained_model import better_part
from .runs.writer import command_line
from .settings import TrainConfig
from .trainer import Done, NotFiniteError, Step, Trainer, build_model
from .validation import Scores, reading_workers, validate, validation_batches


@dataclass
class Progress:
    """How far a run has come, as its checkpoints keep it."""

    epoch: int = 0  # of the next update
    update: int = 0  # the next one's number in its epoch
    loss_sum: float = 0.0  # over the epoch's updates so far
    unreadable: int = 0  # images of the epoch so far
    row_loss_sum: float = 0.0  # over the updates since the last line of metrics
    row_updates: int = 0
    best: float = -math.inf  # validation accuracy of the best epoch, in percent
    best_epoch: int | None = None


def train(
    config: TrainConfig, *, name: str | None = None, argv: Sequence[str] | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Trains a model, and writes the files of `RunFolder`.

    Under torchrun each process calls this. What a run computes depends on its settings alone: every micro-batch has
    random numbers of its own. A run that is killed and resumed ends as one that is not; one process and two compute the
    same but for rounding (and the running statistics of batch norms, which are those of the first process).

    Args:
        config: Settings.
        name: Name of the default folder in `runs/`; by default the model's name.
        argv: The command's arguments, for the record; by default those of the process.
        console: Where to print; by default standard output.

    Returns:
        The last epoch's line of `metrics.jsonl`.

    Raises:
        ValueError: A setting, the data or a checkpoint cannot be used; the message says what to do.
        FloatingPointError: A loss is not finite.
        OSError: A file cannot be written.
    """
    _check_data(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    folder = _folder(config, name)
    with processes(config.device) as group:
        console = console or Console(quiet=not group.main)
        last = RunFolder(folder).last
        try:
            return _Run(config, RunFolder(folder), group, command_line(argv), console).all_epochs()
        except KeyboardInterrupt:
            kept = f"--resume auto resumes from '{last}'" if last.exists() else "there is no checkpoint to resume from"
            say(console, f"Interrupted; {kept}")
            raise
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"micro_batch: expected images that fit into the GPU's memory, got {config.micro_batch}; halve it, "
                f"which only changes the random numbers ({str(error).splitlines()[0]})"
            ) from None


def check(config: TrainConfig, *, name: str | None = None) -> str:
    """Does what `train` does before the first update, without weights and folder. It has the same arguments and errors.

    Returns:
        A sentence about the run.
    """
    _check_data(config)
    with processes(config.device) as group:
        RunFolder(_folder(config, name)).checkpoint(config.resume)
        sources = open_sources(config)
        num_classes = _num_classes(config, sources)
        model = _without_weights(config, num_classes)
        training = _training_batches(config, sources.train, model, group)
        validation_batches(config, sources.validation, model, group)
        plain = replace(config, compile=False, ema=None)
        Trainer(plain, model, training.updates_per_epoch, group, num_classes=num_classes)
        return _overview(config, model, sources, num_classes, training.updates_per_epoch, group)


def _check_data(config: TrainConfig) -> None:
    if not config.data:
        raise ValueError("data: expected a folder with train/ and val/, or a name such as 'cifar10', got nothing")


def _folder(config: TrainConfig, name: str | None) -> Path:
    return config.out or Path("runs") / (name or config.model)


def _without_weights(config: TrainConfig, num_classes: int) -> nn.Module:
    # Some models compute with tensors while they are made.
    with suppress(RuntimeError, NotImplementedError), torch.device("meta"):
        return build_model(config, num_classes)
    return build_model(config, num_classes)


def _overview(
    config: TrainConfig, model: nn.Module, sources: Sources, num_classes: int, updates: int, group: Processes
) -> str:
    return (
        f"{config.model}, {parameter_count(model):,} parameters, on {sources.name} ({image_count(sources.train)} "
        f"training and {image_count(sources.validation)} validation images, {num_classes} classes)\n"
        f"{config.epochs} epochs of {updates} updates of {config.batch_size} images on "
        f"{group.world} x {device_name(group.device)}"
    )


def _training_batches(
    config: TrainConfig, source: Images | Stream, model: nn.Module, group: Processes
) -> TrainingBatches:
    return TrainingBatches(
        source,
        training_transform(config, preparation(model)),
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        group=group,
        workers=reading_workers(config, source, group),
        seed=config.seed,
    )


class _Run:
    def __init__(
        self, config: TrainConfig, folder: RunFolder, group: Processes, command: str, console: Console
    ) -> None:
        self.config, self.folder, self.group, self.console = config, folder, group, console
        self._announces = True
        say(console, f"opening the data, {config.data}")
        sources = open_sources(config)
        self._num_classes, self._classes = _num_classes(config, sources), sources.classes
        threads = torch.get_num_threads()
        if group.device.type == "cpu" and config.threads is None and helpful_threads(threads) < threads:
            # Not set here: a run that is resumed elsewhere would compute something else.
            say(console, f"{threads} CPU threads are slower than one now, beside other processes: try --threads 1")
        say(console, f"making the model, {config.model}")
        model = build_model(config, self._num_classes)
        checkpoint = _agreed(group, lambda: folder.checkpoint(config.resume))
        notes = []
        if checkpoint is None and config.initial_checkpoint is not None:
            source, reset = config.initial_checkpoint, config.reset_head
            notes.append(load_initial_(model, source, reset_head=reset, classes=self._classes))
        model.to(group.device)
        self.training = _training_batches(config, sources.train, model, group)
        self.validation = validation_batches(config, sources.validation, model, group)
        updates = self.training.updates_per_epoch
        self.trainer = Trainer(config, model, updates, group, num_classes=self._num_classes)
        self.progress = Progress()
        self._interruption = Interruption(says=group.main)
        self._data = sources.identity()
        self._scores: dict[str, Any] | None = None
        if checkpoint is not None:
            notes += self._restore(checkpoint)
        facts = {
            "device": device_name(group.device),
            "processes": group.world,
            "workers": self.training.workers,
            "compiled": self.trainer.compiles,
            "parameters": parameter_count(model),
            "data": {
                "name": sources.name,
                "train": image_count(sources.train),
                "validation": image_count(sources.validation),
                "classes": sources.classes,
            },
        }
        if group.main:
            folder.begin(config, command, facts, self._next, self._updates)
        group.wait()
        overview = _overview(config, model, sources, self._num_classes, updates, group)
        say(console, "\n".join([f"{overview}, in folder {folder.path}", *notes]))

    @property
    def _next(self) -> Step:
        return Step(self.progress.epoch, self.progress.update)

    @property
    def _updates(self) -> int:
        return self.progress.epoch * self.training.updates_per_epoch + self.progress.update

    def all_epochs(self) -> dict[str, Any]:
        config, updates = self.config, self.training.updates_per_epoch
        images = config.epochs * updates * config.batch_size
        row: dict[str, Any] = next((row for row in reversed(self.folder.rows()) if row["kind"] == "epoch"), {})
        done = self._updates * config.batch_size
        with self._interruption.awaited(), ProgressBar(self.console, images, done) as bar:
            self.trainer.on_images = bar.advance
            while self.progress.epoch < config.epochs:
                bar.describe(f"epoch {self.progress.epoch + 1}/{config.epochs}")
                started, first = time.perf_counter(), self.progress.update
                self._epoch(bar)
                rate = (updates - first) * config.batch_size / (time.perf_counter() - started)
                bar.describe(f"epoch {self.progress.epoch + 1}/{config.epochs}, validation")
                row = self._end_epoch(rate)
                bar.say(_sentence(row, config))
        if self.group.main:
            self.folder.close()
        if self.progress.best_epoch is not None:
            # The best epoch may be one of the run that this one resumed, in another folder.
            there = self.folder.best.exists()
            place = f"in {self.folder.best}" if there else "saved by the run that was resumed, in its folder"
            best = f"best: epoch {self.progress.best_epoch + 1}, top-1 {self.progress.best:.2f} %, {place}"
            say(self.console, best)
        self.group.wait()
        return row

    def _epoch(self, bar: ProgressBar) -> None:
        """The updates of an epoch that are still to be done."""
        config, progress, first = self.config, self.progress, self._next
        unreadable = Unreadable(config.max_unreadable, self.training.updates_per_epoch * config.batch_size)
        unreadable.add(progress.update * config.batch_size, progress.unreadable, ())
        since, done_before = time.perf_counter(), progress.update
        every = config.checkpoint_every
        updates = self.trainer.epoch(
            self._announced(bar, self.training.epoch(first.epoch, first.update)),
            first,
            settle_every=every,
            asked=lambda: self._interruption.asked,
        )
        for done in self._finite(updates):
            failures = [failure for batch in done.batches for failure in batch.failures]
            unreadable.add(config.batch_size, done.unreadable, failures)
            progress.update += 1
            progress.loss_sum += done.loss
            progress.unreadable += done.unreadable
            progress.row_loss_sum += done.loss
            progress.row_updates += 1
            last = progress.update == self.training.updates_per_epoch
            if last or progress.update % config.log_every == 0:
                images = (progress.update - done_before) * config.batch_size
                self._log_updates(done.lr, images / (time.perf_counter() - since))
                since, done_before = time.perf_counter(), progress.update
            saves = done.stops or (every is not None and progress.update % every == 0 and not last)
            if done.settled and (saves or last):
                self._check_weights(done)
                if saves:
                    self._save()
                if done.stops:
                    self.group.wait()  # A process that has ended would have the others ended too.
                    raise KeyboardInterrupt
        if unreadable.count:
            names = f", first {', '.join(unreadable.failures)}" if unreadable.failures else ""
            bar.say(f"epoch {first.epoch + 1}: {unreadable.count} unreadable images left out{names}")

    def _announced(self, bar: ProgressBar, updates: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The micro-batches of each update; what the first update of all waits for is said."""
        if self._announces:
            bar.say(f"reading the first {self.config.batch_size} images, workers: {self.training.workers}")
        for batches in updates:
            if self._announces:
                compiles = ", which compiles the model; this may take minutes" if self.trainer.compiles else ""
                bar.say(f"first update{compiles}")
            self._announces = False
            yield batches

    def _log_updates(self, lr: float, images_per_second: float) -> None:
        progress = self.progress
        row = {
            "kind": "updates",
            "epoch": progress.epoch,
            "updates": self._updates,
            "loss": progress.row_loss_sum / progress.row_updates,
            "lr": lr,
            "images_per_second": images_per_second,
        }
        progress.row_loss_sum, progress.row_updates = 0.0, 0
        if self.group.main:
            self.folder.log(row)

    def _end_epoch(self, images_per_second: float) -> dict[str, Any]:
        """Validates, logs, and saves; the next update is then the next epoch's first."""
        progress, trainer = self.progress, self.trainer
        scores = self._validate(trainer.model)
        averaged = None if trainer.ema is None else self._validate(trainer.ema.module)
        top1 = scores.top1 if averaged is None else max(scores.top1, averaged.top1)
        best = top1 > progress.best
        if best:
            progress.best, progress.best_epoch = top1, progress.epoch
        row = {
            "kind": "epoch",
            "epoch": progress.epoch,
            "updates": self._updates,
            "train_loss": progress.loss_sum / self.training.updates_per_epoch,
            **_named(scores, "val"),
            **({} if averaged is None else _named(averaged, "ema_val")),
            "unreadable_images": progress.unreadable,
            "unreadable_val_images": scores.unreadable,
            "images_per_second": images_per_second,
            **element_statistics(trainer.model),
        }
        self._scores = row
        if self.group.main:
            self.folder.log(row)
            self.folder.log_elements(trainer.model, self._updates)
            if best:
                ema = None if trainer.ema is None else trainer.ema.module
                weights = {"ema": ema} if better_part(row) == "ema" else {"model": trainer.model}
                self._write(self.folder.best, {}, **weights)
        self.progress = Progress(epoch=progress.epoch + 1, best=progress.best, best_epoch=progress.best_epoch)
        self._save()
        return row

    def _validate(self, model: nn.Module) -> Scores:
        # Batch norms of each process have statistics of their own; those of the first are saved.
        self.group.as_first(model.buffers())
        return validate(model, self.validation, self.group, self.config)

    def _finite(self, updates: Iterator[Done]) -> Iterator[Done]:
        """Ends the run where a loss is not finite, in all processes alike."""
        try:
            yield from updates
        except NotFiniteError as error:
            assert error.done is not None
            names = [name for found in self.group.gather(error.done.names_not_finite()) for name in found]
            self._end(error.done, f"the loss of update {{}} is {error.loss}", names)

    def _check_weights(self, done: Done) -> None:
        """Ends the run before weights that are not finite are saved."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.trainer.model.parameters()])
        if not bool(finite.all()):
            names = [name for batch in done.batches for name in batch.names]
            names = [name for found in self.group.gather(names) for name in found]
            self._end(done, "weights after update {} are not finite", names)

    def _end(self, done: Done, what: str, names: Sequence[str]) -> NoReturn:
        path = self.folder.path / "not_finite.txt"
        if self.group.main:
            path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        update = f"{done.step.update + 1} of epoch {done.step.epoch + 1}"
        kept = f"is '{self.folder.last}'" if self.folder.last.exists() else "does not exist yet"
        raise FloatingPointError(
            f"loss: {what.format(update)}, its images are {first_names(names)} (all of them in '{path}'); the last "
            f"good checkpoint {kept}. Try a smaller --lr, --clip-grad 1, or --precision float32"
        )

    def _save(self) -> None:
        if self.group.main:
            trainer, ema = self.trainer, self.trainer.ema
            about = {"updates_per_epoch": self.training.updates_per_epoch, "progress": asdict(self.progress)}
            parts = {"model": trainer.model, "ema": None if ema is None else ema.module}
            previous = self.folder.previous
            self._write(self.folder.last, about, **parts, optimizer=trainer.optimizer, previous=previous)

    def _write(self, path: Path, about: dict[str, Any], **parts: Any) -> None:
        about = {
            "config": resolved(self.config),
            "num_classes": self._num_classes,
            "classes": self._classes,
            "data": self._data,
            "scores": self._scores,
            "ema_updates": self.trainer.ema_updates,
            **about,
        }
        try:
            save_checkpoint(path, about, **parts)
        except OSError as error:
            kept = "the one before it is still there" if self.folder.last.exists() else "there was none before it"
            raise OSError(f"checkpoint: {error}; {kept}. Make room, then resume with --resume auto") from error

    def _restore(self, checkpoint: Checkpoint) -> list[str]:
        """Sets everything to what a checkpoint holds; returns what to tell about it."""
        updates = self.training.updates_per_epoch
        note = check_resumable(checkpoint, self.config, updates, self._classes, self._data)
        checkpoint.load_optimizer(self.trainer.optimizer)
        checkpoint.load_weights(self.trainer.model)
        if self.trainer.ema is not None:
            checkpoint.load_weights(self.trainer.ema.module, "ema")
            self.trainer.ema_updates = checkpoint.about["ema_updates"]
        self.progress = Progress(**checkpoint.about["progress"])
        self._scores = checkpoint.about.get("scores")
        done = f"the run of '{checkpoint.path}' has finished all its epochs; to train further, {new_run(checkpoint)}"
        further = f"resuming at epoch {self._next.epoch + 1}, update {self._next.update + 1}"
        return [done if self.progress.epoch == self.config.epochs else further, *([] if note is None else [note])]


def _agreed(group: Processes, read: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """What each process reads; an error of one is an error of all."""
    found, error = None, None
    try:
        found = read()
    except ValueError as raised:
        error = str(raised)
    outcomes = group.gather((found is not None, error))
    errors = [text for _, text in outcomes if text is not None]
    if errors:
        raise ValueError(errors[0])
    if len({there for there, _ in outcomes}) > 1:
        raise ValueError("out: expected a folder that all machines share, got one in which only some find a checkpoint")
    return found


def _num_classes(config: TrainConfig, sources: Sources) -> int:
    if sources.classes is not None and len(sources.classes) < 2:
        raise ValueError(
            f"data: expected at least two classes in '{sources.name}', got only '{sources.classes[0]}'; add another"
        )
    found = config.num_classes or sources.num_classes
    if found is None:
        raise ValueError(f"num_classes: expected a number, as '{sources.name}' does not state its number of classes")
    return found


def _named(scores: Scores, prefix: str) -> dict[str, float]:
    return {f"{prefix}_loss": scores.loss, f"{prefix}_top1": scores.top1, f"{prefix}_top5": scores.top5}


def _sentence(row: dict[str, Any], config: TrainConfig) -> str:
    averaged = f" (averaged weights {row['ema_val_top1']:.2f} %)" if "ema_val_top1" in row else ""
    return (
        f"epoch {row['epoch'] + 1}/{config.epochs}  training loss {row['train_loss']:.3f}  "
        f"validation top-1 {row['val_top1']:.2f} %{averaged}  {row['images_per_second']:.0f} images/s"
    )
