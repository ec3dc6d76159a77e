"""The comparison of delays on spoken digits: trains, records, draws and prints; the same command resumes it."""

from dataclasses import replace
from itertools import product

import torch
from rich.console import Console

from torchdcls import _checks

from ...data.fsdd import RATE, Recordings, find_fsdd
from ...data.spikes import BANDS, spikes_of
from ...runs.progress_bar import ProgressBar, say
from ..config import DigitsConfig
from ..record import Record, run_folder
from ..report import present
from ..result import origin
from .findings import digits_section, finished_methods
from .network import dense_width, parameter_count
from .pictures import draw_pictures, save_example
from .result import DigitsData, DigitsResult, DigitsRun, Key
from .task import POSITION_LR_SCALE, VALIDATION, Spoken, fold_without, train_network

_PACKAGES = ("torch", "torchdcls", "scipy")
_DIGITS = 10


def compare_digits(
    config: DigitsConfig, *, argv: list[str] | None = None, console: Console | None = None
) -> DigitsResult:
    """Trains what is not in the run folder yet, records, draws and prints.

    The run folder gets `results.json` (settings, versions, every run), `table.md`, `examples/*.safetensors`,
    `accuracy.png`, `delays.png`, `fields.png`, `raster.png` and `report.html`, which holds them all.

    Args:
        argv: The command's arguments, for `results.json`; by default those of the process.

    Raises:
        ValueError: A setting, the data or the folder cannot be used; the message says what to do.
        FloatingPointError: A loss is not finite.
    """
    console = console or Console()
    config = config.checked()
    torch.set_num_threads(config.threads)
    recordings = find_fsdd(config.data_dir)
    config = replace(config, speakers=_speakers(config, recordings))
    assert config.speakers is not None
    folder = run_folder(config.out, "digits")
    record = Record(folder, _new_result(config, recordings, argv))
    result, total = record.result, len(_keys(config))
    say(
        console,
        f"{len(recordings):,} recordings of {len(set(recordings.speakers))} speakers; {total} training runs, "
        f"{total - len(result.runs)} of them left. Run folder: {folder}",
    )
    with record.under_way(console):
        _train_all(config, recordings, record, console)
    part = digits_section(result, folder) if finished_methods(result) else None
    present(part, folder, console, lambda: draw_pictures(folder, result))
    return result


def _speakers(config: DigitsConfig, recordings: Recordings) -> tuple[str, ...]:
    there = sorted(set(recordings.speakers))
    if len(there) < 2:
        raise ValueError(f"data_dir: expected recordings of at least 2 speakers, got {', '.join(there)} alone")
    for name in config.speakers or ():
        _checks.one_of("speakers", name, there)
    chosen = tuple(config.speakers or (there[:2] if config.quick else there))
    numbers = recordings.numbers
    if not (numbers < VALIDATION).any() or not (numbers >= VALIDATION).any():
        raise ValueError(
            f"data_dir: expected recordings with numbers below {VALIDATION} for validation, and others for training, "
            f"got {int(numbers.min())} to {int(numbers.max())}"
        )
    return chosen


def _new_result(config: DigitsConfig, recordings: Recordings, argv: list[str] | None) -> DigitsResult:
    data = DigitsData(
        name="Free Spoken Digit Dataset",
        recordings=len(recordings),
        speakers=len(set(recordings.speakers)),
        fingerprint=recordings.fingerprint,
        validation_recordings=VALIDATION,
        hidden=config.hidden,
        dense_hidden=dense_width(2 * BANDS, config.hidden, _DIGITS, config.max_delay),
        position_lr_scale=POSITION_LR_SCALE,
    )
    threads, recorded = torch.get_num_threads(), replace(config, data_dir=None, out=None)
    return DigitsResult(**origin(argv, _PACKAGES), threads=threads, config=recorded, data=data)


def _keys(config: DigitsConfig) -> list[Key]:
    """All runs. Seeds and speakers are the outer loops, so that what is there after an interruption is paired."""
    assert config.speakers is not None
    rows = product(range(config.seeds), config.speakers, config.methods, config.lrs)
    return [(speaker, method, seed, lr) for seed, speaker, method, lr in rows]


def _train_all(config: DigitsConfig, recordings: Recordings, record: Record[DigitsResult], console: Console) -> None:
    """Adds to the record what it lacks; it is on the disk after each run."""
    done = {run.key for run in record.result.runs}
    todo = [key for key in _keys(config) if key not in done]
    if not todo:
        return
    console.print("Turning recordings into spikes", highlight=False)
    spikes = spikes_of(recordings.samples, RATE)
    spoken = Spoken(spikes, recordings.digits, recordings.speakers, recordings.numbers)
    assert config.epochs is not None and config.speakers is not None
    inputs = spoken.spikes.shape[1]
    folds = {speaker: fold_without(spoken, speaker, config.train_recordings) for speaker, *_ in todo}
    total = config.epochs * sum(len(folds[speaker].train) for speaker, *_ in todo)
    with ProgressBar(console, total, noun="recordings") as progress:
        for number, (speaker, method, seed, lr) in enumerate(todo, 1):
            title = f"{number}/{len(todo)} {method}, without {speaker}, seed {seed}, lr {lr:g}"
            progress.describe(title)
            hidden = config.hidden
            if method == "dense":
                hidden = dense_width(inputs, hidden, _DIGITS, config.max_delay)
            trained = train_network(
                method,
                spoken,
                folds[speaker],
                widths=(inputs, hidden, hidden, _DIGITS),
                max_delay=config.max_delay,
                epochs=config.epochs,
                batch_size=config.batch_size,
                lr=lr,
                seed=seed,
                on_recordings=progress.advance,
            )
            if (speaker, seed) == (config.speakers[0], 0):  # before the record says that this run is done
                first = folds[speaker].test[0]
                save_example(record.folder, method, lr, trained, spoken.spikes[first], spoken.digits[first])
            rounded = trained.test_rounded
            record.result.runs.append(
                DigitsRun(
                    *(speaker, method, seed, lr),
                    parameters=parameter_count(trained.network),
                    validation=round(trained.validation, 2),
                    validation_loss=round(trained.validation_loss, 4),
                    test=round(trained.test, 2),
                    test_rounded=None if rounded is None else round(rounded, 2),
                    seconds=round(trained.seconds, 1),
                )
            )
            record.save()
            # Test accuracies are not told before all of them are there, so that nobody stops by them.
            progress.say(f"{title}: validation {trained.validation:.1f} %, {trained.seconds:.0f} s")
