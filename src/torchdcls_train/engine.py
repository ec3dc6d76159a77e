"""A training run from its settings to its checkpoints, on one machine or many."""

import math
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import Tensor, nn

from torchdcls._environment import repeatable
from torchdcls.conversion import parameter_count

from .averaged import better_part
from .checkpoint import Checkpoint, save_checkpoint
from .data.batches import Batch, TrainingBatches, ValidationBatches
from .data.image_source import Images, Sources, Stream, image_count
from .data.sources import open_sources
from .data.transforms import preparation, training_transform, validation_transform
from .data.unreadable import Unreadable
from .folders import make_folder
from .initial import load_initial_
from .interruption import Interruption
from .processes import Processes, default_workers, device_name, processes
from .progress import ProgressBar
from .run_folder import RunFolder, check_same_data, check_same_run, element_statistics, new_run, resolved
from .settings import TrainConfig
from .threads import helpful_threads
from .trainer import Place, Trainer, autocast, build_model
from .validation import Scores, validate

_NAMES_SHOWN = 4


@dataclass
class Progress:
    """How far a run has come, as its checkpoints keep it.

    Args:
        epoch: Epoch of the next update.
        update: The next update's number in its epoch.
        loss_sum: Losses of the epoch's updates so far.
        unreadable: Images of the epoch so far that could not be read.
        row_loss_sum: Losses of the updates since the last line of metrics.
        row_updates: Number of these.
        best: Validation accuracy of the best epoch, of the weights or their average, in percent.
        best_epoch: That epoch.
    """

    epoch: int = 0
    update: int = 0
    loss_sum: float = 0.0
    unreadable: int = 0
    row_loss_sum: float = 0.0
    row_updates: int = 0
    best: float = -math.inf
    best_epoch: int | None = None


def train(
    config: TrainConfig, *, name: str | None = None, argv: Sequence[str] | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Trains a model; see `RunFolder` for what it leaves.

    Under torchrun each process calls this. What a run computes depends on its settings alone: every micro-batch has
    random numbers of its own, so that a run can be killed, go on, and come to the same, and one process and two come to
    the same but for rounding (and the running statistics of batch norms, which are those of the first process).

    Args:
        config: Settings.
        name: What the default folder is called below `runs/`; by default the model's name.
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
    command = shlex.join(["torchdcls", *repeatable(sys.argv[1:] if argv is None else argv)])
    with processes(config.device) as group:
        console = console or Console(quiet=not group.main)
        last = RunFolder(folder).last
        try:
            return _Run(config, RunFolder(folder), group, command, console).all_epochs()
        except KeyboardInterrupt:
            kept = f"--resume auto resumes from '{last}'" if last.exists() else "there is no checkpoint to resume from"
            console.print(f"Interrupted; {kept}", soft_wrap=True, highlight=False)
            raise
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"micro_batch: expected what the GPU's memory can hold, got {config.micro_batch}; halve it, which "
                f"changes nothing but the random numbers ({str(error).splitlines()[0]})"
            ) from None


def check(config: TrainConfig, *, name: str | None = None) -> str:
    """Does what `train` does before the first update, but for the weights and the folder.

    Args:
        config: Settings.
        name: What the default folder is called below `runs/`; by default the model's name.

    Returns:
        A sentence about the run.

    Raises:
        ValueError: As `train`.
    """
    _check_data(config)
    with processes(config.device) as group:
        RunFolder(_folder(config, name)).checkpoint(config.resume)
        sources = open_sources(config)
        num_classes = _num_classes(config, sources)
        model = _without_weights(config, num_classes)
        training, _ = _batches(config, sources, model, group)
        Trainer(replace(config, compile=False, ema=None), model, num_classes, training.updates_per_epoch, group)
        return _plan(config, parameter_count(model), sources, num_classes, training.updates_per_epoch, group)


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


def _plan(
    config: TrainConfig, parameters: int, sources: Sources, num_classes: int, updates: int, group: Processes
) -> str:
    return (
        f"{config.model}, {parameters:,} parameters, on {sources.name} ({image_count(sources.train)} "
        f"training and {image_count(sources.validation)} validation images, {num_classes} classes)\n"
        f"{config.epochs} epochs of {updates} updates of {config.batch_size} images on "
        f"{group.world} x {device_name(group.device)}"
    )


class _Run:
    def __init__(
        self, config: TrainConfig, folder: RunFolder, group: Processes, command: str, console: Console
    ) -> None:
        self.config, self.folder, self.group, self.console = config, folder, group, console
        self._announces = True
        self._say(f"opening the data, {config.data}")
        sources = open_sources(config)
        self._num_classes, self._classes = _num_classes(config, sources), sources.classes
        threads = torch.get_num_threads()
        if group.device.type == "cpu" and config.threads is None and helpful_threads(threads) < threads:
            # Not set here: a run that is resumed elsewhere would come to something else.
            self._say(f"{threads} CPU threads are slower than one now, beside other processes: try --threads 1")
        self._say(f"making the model, {config.model}")
        model = build_model(config, self._num_classes)
        checkpoint = _agreed(group, lambda: folder.checkpoint(config.resume))
        notes = []
        if checkpoint is None and config.initial_checkpoint is not None:
            source, reset = config.initial_checkpoint, config.reset_head
            notes.append(load_initial_(model, source, reset_head=reset, classes=self._classes))
        model.to(group.device)
        self.training, self.validation = _batches(config, sources, model, group)
        self.trainer = Trainer(config, model, self._num_classes, self.training.updates_per_epoch, group)
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
            make_folder(folder.path)
            folder.begin(config, command, facts, self._place, self._updates)
        group.wait()
        self._say(
            _plan(config, parameter_count(model), sources, self._num_classes, self.training.updates_per_epoch, group)
            + f", in folder {folder.path}"
            + "".join(f"\n{note}" for note in notes)
        )

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)

    @property
    def _place(self) -> Place:
        return Place(self.progress.epoch, self.progress.update)

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
            self.console.print(
                f"best: epoch {self.progress.best_epoch + 1}, top-1 {self.progress.best:.2f} %, {place}",
                soft_wrap=True,
                highlight=False,
            )
        self.group.wait()
        return row

    def _epoch(self, bar: ProgressBar) -> None:
        """The updates of an epoch that are still to be done."""
        config, progress = self.config, self.progress
        watch = _Watch(self.group, config.batch_size // config.micro_batch)
        unreadable = Unreadable(config.max_unreadable, self.training.updates_per_epoch * config.batch_size)
        unreadable.add(progress.update * config.batch_size, progress.unreadable, ())
        self.trainer.train_mode()
        since, done_before = time.perf_counter(), progress.update
        place = self._place
        for batches in self._announced(bar, self.training.epoch(place.epoch, place.update)):
            losses = self.trainer.update(batches, place)
            watch.add(place, self.trainer.lr, losses, batches, self._interruption.asked)
            place = Place(place.epoch, place.update + 1)
            saves = config.checkpoint_every is not None and place.update % config.checkpoint_every == 0
            last = place.update == self.training.updates_per_epoch
            for done in watch.finished(wait=saves or last):
                self._check(done)
                failures = [failure for batch in done.batches for failure in batch.failures]
                unreadable.add(config.batch_size, done.unreadable, failures)
                progress.update += 1
                progress.loss_sum += done.loss
                progress.unreadable += done.unreadable
                progress.row_loss_sum += done.loss
                progress.row_updates += 1
                if progress.update % config.log_every == 0 or progress.update == self.training.updates_per_epoch:
                    images = (progress.update - done_before) * config.batch_size
                    self._log_updates(done.lr, images / (time.perf_counter() - since))
                    since, done_before = time.perf_counter(), progress.update
            if saves or last or watch.stops:
                self._check_weights(done)
            if (saves and not last) or watch.stops:
                self._save()
            if watch.stops:
                self.group.wait()  # A process that has ended would have the others ended too.
                raise KeyboardInterrupt
        if unreadable.count:
            first = f", first {', '.join(unreadable.failures)}" if unreadable.failures else ""
            bar.say(f"epoch {place.epoch + 1}: {unreadable.count} unreadable images left out{first}")

    def _announced(self, bar: ProgressBar, updates: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The micro-batches of each update; what the first update of all waits for is said."""
        if not self._announces:
            yield from updates
            return
        self._announces = False
        workers = self.training.workers
        bar.say(f"reading the first {self.config.batch_size} images, workers: {workers}")
        for number, batches in enumerate(updates):
            if number == 0:
                bar.say("first update" + (", which compiles the model; this may take minutes" * self.trainer.compiles))
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
        precision = autocast(self.config, self.group.device)
        return validate(model, self.validation, self.group, precision, self.config.channels_last)

    def _check(self, done: "_Done") -> None:
        """Ends the run where a loss is not finite; all processes come here with the same sums."""
        if not math.isfinite(done.loss):
            names = [name for found in self.group.gather(done.names_not_finite()) for name in found]
            self._end(done, f"the loss of update {{}} is {done.loss}", names)

    def _check_weights(self, done: "_Done") -> None:
        """Ends the run before weights that are not finite are saved."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.trainer.model.parameters()])
        if not bool(finite.all()):
            names = [name for batch in done.batches for name in batch.names]
            names = [name for found in self.group.gather(names) for name in found]
            self._end(done, "weights after update {} are not finite", names)

    def _end(self, done: "_Done", what: str, names: Sequence[str]) -> NoReturn:
        path = self.folder.path / "not_finite.txt"
        if self.group.main:
            path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        update = f"{done.place.update + 1} of epoch {done.place.epoch + 1}"
        shown = ", ".join(names[:_NAMES_SHOWN]) + (" ..." if len(names) > _NAMES_SHOWN else "")
        kept = f"is '{self.folder.last}'" if self.folder.last.exists() else "does not exist yet"
        raise FloatingPointError(
            f"loss: {what.format(update)}, its images are {shown} (all of them in '{path}'); the last good checkpoint "
            f"{kept}. Try a smaller --lr, --clip-grad 1, or --precision float32"
        )

    def _save(self) -> None:
        if self.group.main:
            trainer, ema = self.trainer, self.trainer.ema
            about = {
                "updates_per_epoch": self.training.updates_per_epoch,
                "progress": asdict(self.progress),
            }
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
            "ema_updates": 0 if self.trainer.ema is None else self.trainer.ema.updates,
            **about,
        }
        try:
            save_checkpoint(path, about, **parts)
        except OSError as error:
            kept = "the one before it is still there" if self.folder.last.exists() else "there was none before it"
            raise OSError(f"checkpoint: {error}; {kept}. Make room, then go on with --resume auto") from error

    def _restore(self, checkpoint: Checkpoint) -> list[str]:
        """Sets everything to what a checkpoint holds; returns what to tell about it."""
        check_same_run(self.config, checkpoint)
        updates = checkpoint.about.get("updates_per_epoch")
        if updates is not None and updates != self.training.updates_per_epoch:
            raise ValueError(
                f"data: expected the data of '{checkpoint.path}' with {updates} updates an epoch, got "
                f"{self.training.updates_per_epoch}; give the same data, or {new_run(checkpoint)}"
            )
        classes = checkpoint.about.get("classes")
        if classes is not None and self._classes is not None and tuple(classes) != self._classes:
            raise ValueError(
                f"data: expected the classes of '{checkpoint.path}', got others "
                f"({_difference(tuple(classes), self._classes)}); give the same data, or {new_run(checkpoint)}"
            )
        note = check_same_data(self._data, checkpoint)
        checkpoint.load_optimizer(self.trainer.optimizer)
        checkpoint.load_weights(self.trainer.model)
        if self.trainer.ema is not None:
            checkpoint.load_weights(self.trainer.ema.module, "ema")
            self.trainer.ema.updates = checkpoint.about["ema_updates"]
        self.progress = Progress(**checkpoint.about["progress"])
        self._scores = checkpoint.about.get("scores")
        done = f"the run of '{checkpoint.path}' has done all of its epochs; to train on, {new_run(checkpoint)}"
        further = f"going on at epoch {self._place.epoch + 1}, update {self._place.update + 1}"
        return [done if self.progress.epoch == self.config.epochs else further, *([] if note is None else [note])]


@dataclass(frozen=True)
class _Done:
    """An update whose loss is known: mean over all processes, and this one's micro-batches with theirs."""

    place: Place
    lr: float
    loss: float
    unreadable: int
    losses: Sequence[float]
    batches: Sequence[Batch]

    def names_not_finite(self) -> list[str]:
        pairs = zip(self.losses, self.batches, strict=True)
        return [name for loss, batch in pairs if not math.isfinite(loss) for name in batch.names]


class _Watch:
    """Losses on their way from the device: of a GPU's updates each is looked at after the next, so that none waits.

    Attributes:
        stops: Whether a process was asked to end, as all of them hear after the same update.
    """

    def __init__(self, group: Processes, micro_batches: int) -> None:
        self.stops = False
        self._group, self._micro_batches = group, micro_batches
        self._under_way: deque[tuple[Place, float, Sequence[Batch], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, place: Place, lr: float, losses: Tensor, batches: Sequence[Batch], stop: bool) -> None:
        unreadable = sum(batch.unreadable for batch in batches)
        # Filled on the device: a copy from the host would wait for it.
        counts = losses.new_full((), unreadable), losses.new_full((), stop)
        sums = self._group.sum(torch.stack([losses.sum(), *counts]))
        values, event = torch.cat([sums, losses]), None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values, event = host.copy_(values, non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._under_way.append((place, lr, batches, values, event))

    def finished(self, wait: bool) -> Iterator[_Done]:
        """Updates whose losses have come, all of them if `wait` or if the run stops."""
        while self._under_way and (wait or self.stops or len(self._under_way) > 1 or self._under_way[0][4] is None):
            place, lr, batches, values, event = self._under_way.popleft()
            if event is not None:
                event.synchronize()
            loss, unreadable, stop, *losses = values.tolist()
            self.stops = self.stops or stop > 0
            yield _Done(place, lr, loss / self._micro_batches, int(unreadable), losses, batches)


def _batches(
    config: TrainConfig, sources: Sources, model: nn.Module, group: Processes
) -> tuple[TrainingBatches, ValidationBatches]:
    """What to train and to validate on, normalised as the model expects."""
    expected = preparation(model)
    on_gpu = group.device.type == "cuda"
    training = TrainingBatches(
        sources.train,
        training_transform(config, expected.mean, expected.std, expected.interpolation),
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        rank=group.rank,
        world=group.world,
        workers=_workers(config, sources.train, group),
        seed=config.seed,
        pin_memory=on_gpu,
    )
    validation = ValidationBatches(
        sources.validation,
        validation_transform(config, *expected),
        batch=config.micro_batch,
        rank=group.rank,
        world=group.world,
        workers=_workers(config, sources.validation, group),
        pin_memory=on_gpu,
    )
    return training, validation


def _workers(config: TrainConfig, source: Images | Stream, group: Processes) -> int:
    if config.workers is not None:
        return config.workers
    most = source.readers(group.world) if isinstance(source, Stream) else default_workers()
    return max(1, min(most, default_workers()))


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
        raise ValueError(f"num_classes: expected a number, as '{sources.name}' does not tell how many classes it has")
    return found


def _difference(expected: tuple[str, ...], came: tuple[str, ...]) -> str:
    if len(expected) != len(came):
        return f"{len(came)} in place of {len(expected)}"
    one, other = next(pair for pair in zip(expected, came, strict=True) if pair[0] != pair[1])
    return f"{other!r} in place of {one!r}"


def _named(scores: Scores, prefix: str) -> dict[str, float]:
    return {f"{prefix}_loss": scores.loss, f"{prefix}_top1": scores.top1, f"{prefix}_top5": scores.top5}


def _sentence(row: dict[str, Any], config: TrainConfig) -> str:
    averaged = f" (averaged weights {row['ema_val_top1']:.2f} %)" if "ema_val_top1" in row else ""
    return (
        f"epoch {row['epoch'] + 1}/{config.epochs}  training loss {row['train_loss']:.3f}  "
        f"validation top-1 {row['val_top1']:.2f} %{averaged}  {row['images_per_second']:.0f} images/s"
    )
