"""A study from its settings to its page: `python -m studies.run CONFIG`; the same command resumes it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from rich.console import Console

from torchdcls.cli.main import run
from torchdcls.cli.options import Command
from torchdcls_results import environment
from torchdcls_train.data.in_memory import images_per_epoch
from torchdcls_train.processes import device_name, find_device
from torchdcls_train.runs.progress_bar import ProgressBar, say
from torchdcls_train.runs.writer import RunWriter, command_line

from .cells import Cell, FinishedCell, Platform
from .config import StudyConfig, among
from .files import load_study, study_names
from .images import StudyImages, load_images
from .layers import build
from .page import write_page
from .records import CELLS, SETTINGS, Data, Study, read_finished, read_run
from .results import Results, results_of
from .schedule import ScheduleEntry, make_schedule
from .settings.run import COMMAND as SETTINGS_STUDY
from .status import status_table
from .training import many_shapes, train_cell

_PACKAGES = ("torch", "torchvision", "timm", "scipy", "torchdcls")


def study(
    config: StudyConfig,
    *,
    name: str,
    out: Path | None = None,
    argv: Sequence[str] | None = None,
    console: Console | None = None,
    models: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Literal["finished", "interrupted"]:
    """Trains what of a study is not in its folder yet, and writes its page.

    The folder gets `study.json` (settings), `cells.jsonl` (a line for each finished cell), `results.md` and pictures.

    Args:
        config: Settings.
        name: What the study is called.
        out: Its folder; by default `runs/study-NAME`.
        argv: The command's arguments, for the record; by default those of the process.
        console: Where to print; by default standard output.
        models: Trains the cells of these alone, so that several machines share a study: the lines of all their
            `cells.jsonl` together are the study's. By default all models.
        seeds: Of the final runs does these seeds' alone, to share them likewise. By default all seeds.

    Raises:
        ValueError: The settings or the data cannot be used, or another process has the folder.
    """
    console = console or Console()
    for model in models or ():
        among("models", model, config.models, f"some of {', '.join(config.models)}")
    if missing := set(seeds or ()) - set(config.seeds):
        listed = ", ".join(map(str, config.seeds))
        raise ValueError(f"seeds: expected some of {listed}, got {', '.join(map(str, sorted(missing)))}")
    device = find_device(config.device)
    folder = study_folder(name, out)
    platform = platform_of(config, device)
    images = load_images(config)
    # What cannot be built is refused before hours of training.
    cells = (entry.cell for entry in make_schedule(config, platform, {}).entries if entry.cell is not None)
    for cell in {(it.model, it.method, it.kernel_size, it.kernel_count): it for it in cells}.values():
        build(cell, images.channels, images.classes)
    data = Data(images.name, len(images.training), len(images.validation), len(images.test), images.classes)
    images = images.on(device)
    command = command_line(argv, ("python", "-m", "studies.run"))
    state: Literal["finished", "interrupted"] = "finished"
    with RunWriter(folder, SETTINGS, CELLS) as writer:
        finished = read_finished(folder)
        now = Study(name, config, platform, data, finished)
        writer.write(now.header())
        say(
            console,
            f"{data.name}: {data.training_images:,} training, {data.validation_images:,} validation and "
            f"{data.test_images:,} test images. Run folder: {folder}",
        )
        if finished:
            used = len(make_schedule(config, platform, finished).used)
            others = len(finished) - used
            rest = f"; {others} others in the folder belong to other settings" if others else ""
            say(console, f"{used} cells were finished before and are used again{rest}")

        def unfinished() -> list[ScheduleEntry]:
            left = make_schedule(config, platform, finished).left
            mine = [entry for entry in left if entry.model in (models or config.models)]
            return [e for e in mine if e.phase != "final" or e.cell is None or e.cell.seed in (seeds or config.seeds)]

        def add(cell: FinishedCell) -> None:
            writer.add(asdict(cell))
            finished[cell.id] = cell

        try:
            _train_all(config, unfinished, images, device, add, command, console)
        except KeyboardInterrupt:
            state = "interrupted"
            console.print("Interrupted; rerun the same command to resume from the last finished cell")
    results = results_of(now)
    console.print(status_table(name, results.schedule))
    _write_page(results, folder, console)
    return state


def print_status(config: StudyConfig, *, name: str, out: Path | None = None, console: Console | None = None) -> None:
    """Prints what of a study is done and what remains; arguments as for `study`."""
    platform = platform_of(config, find_device(config.device))
    schedule = make_schedule(config, platform, read_finished(study_folder(name, out)))
    (console or Console()).print(status_table(name, schedule))


def report(*, name: str, out: Path | None = None, console: Console | None = None) -> None:
    """Writes the page and the pictures of a study from its records alone; arguments as for `study`.

    Raises:
        ValueError: The folder holds no study.
    """
    folder = study_folder(name, out)
    _write_page(results_of(read_run(folder)), folder, console or Console())


def study_folder(name: str, out: Path | None) -> Path:
    """Where a study's files are."""
    return out or Path("runs") / f"study-{name}"


def platform_of(config: StudyConfig, device: torch.device) -> Platform:
    """Where the cells of a study are trained; sets the number of threads to what the settings say."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return Platform(device.type, torch.get_num_threads() if device.type == "cpu" else None)


def _train_all(
    config: StudyConfig,
    unfinished: Callable[[], list[ScheduleEntry]],
    images: StudyImages,
    device: torch.device,
    add: Callable[[FinishedCell], None],
    command: str,
    console: Console,
) -> None:
    an_epoch = images_per_epoch(images.training, config.batch_size)
    todo = unfinished()
    with ProgressBar(console, sum(entry.epochs for entry in todo) * an_epoch) as progress:
        number, total = 0, len(todo)
        # Asked anew after each cell: which ones are final depends on those that came before.
        while todo := unfinished():
            entry, number = todo[0], number + 1
            assert entry.cell is not None, "tuning comes before what it decides"
            title = f"{entry.phase}: {entry.model}, {entry.method}, seed {entry.cell.seed}"
            progress.describe(f"{number}/{total} {title}")
            origin = environment(command, _PACKAGES)
            if device.type != "cpu":
                origin["machine"]["gpu"] = device_name(device)
            with many_shapes():
                finished = train_cell(entry.cell, images, device, origin, on_batch=progress.advance)
            add(finished)
            progress.say(f"{number}/{total} {title}{_settings(entry.cell)}: {_outcome(finished)}")


def _write_page(results: Results, folder: Path, console: Console) -> None:
    for path in write_page(results, folder):
        say(console, f"wrote {path}")


def _settings(cell: Cell) -> str:
    told = [] if cell.kernel_size is None else [f"kernel {cell.kernel_size}"]
    told += [] if cell.start is None else [f"start {cell.start}"]
    return ", ".join(["", *told, f"lr {cell.lr:g}"])


def _outcome(finished: FinishedCell) -> str:
    # Test scores are not shown before all of them are there, so that nobody stops or changes a study by them.
    if finished.validation is None:
        return f"diverged, {finished.failure}"
    return f"validation {finished.validation.accuracy:.2f} %, {finished.images_per_second:.0f} images/s"


def _study_options(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        usage="python -m studies.run CONFIG [--out FOLDER] [--data-dir FOLDER] [--models MODEL ...] [--seeds SEED ...] "
        "[--status | --report]",
        description="Run a study: tune every method alike, compare them with paired seeds, and report what comes out. "
        "Rerun the same command to resume.",
    )
    parser.add_argument("config", type=str, help=f"{', '.join(study_names())}, settings, or a YAML file")
    parser.add_argument("--out", type=Path, help="folder of the study (default: runs/study-CONFIG)")
    parser.add_argument("--data-dir", type=Path, help="where the files of the data are (default: as the file says)")
    parser.add_argument("--models", nargs="+", type=str, help="train these models' part alone, to share a study")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the final runs do these seeds' alone, likewise")
    parser.add_argument("--status", action="store_true", help="print what is done and what remains, and end")
    parser.add_argument("--report", action="store_true", help="write page and pictures from what is done, and end")
    return parser


def _study(settings: dict[str, Any], arguments: list[str]) -> int:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a study as the command line says, and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = SETTINGS_STUDY if "settings" in arguments else Command(_study_options, _study)
    return run("python -m studies.run", lambda: command, arguments)


if __name__ == "__main__":
    sys.exit(main())
