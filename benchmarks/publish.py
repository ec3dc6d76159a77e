"""Takes a finished comparison or a study into the repository: `python -m benchmarks.publish RUN_FOLDER`.

A comparison's results go to `benchmarks/results/`, from where `python -m benchmarks.tables` makes its table, and its
pictures to `docs/images/`. One on images is known by the name of its data: it replaces none on others. The records of a
study go to `benchmarks/results/study-NAME.jsonl`, from which the same command makes its table, page and pictures; those
of the study `settings` to `benchmarks/results/settings.jsonl`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from studies.records import SETTINGS, read_published, read_run, write_published
from studies.schedule import make_schedule
from studies.settings.records import RECORDS, read_records

from . import evidence
from .record import RESULTS, ROOT, write

# What is published of the pictures of other comparisons than those on images, and under which names.
PICTURES = {
    "digits": {name: f"digits-{name}" for name in ("accuracy.png", "delays.png", "fields.png", "raster.png")},
    "positions": {name: name for name in ("travel.gif", "travel.png", "found.png", "curves.png")},
}


def publish(run: Path, results: Path, images: Path) -> Path:
    """Copies a comparison's results, with the table made of them, and its pictures; returns the result file.

    Raises:
        ValueError: The folder holds no finished comparison.
    """
    file = run / "results.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    benchmark = result.get("benchmark")
    if result.get("status") != "finished" or benchmark not in ("comparison", *PICTURES):
        raise ValueError(f"run: expected the folder of a finished comparison, got '{run}' ({result.get('status')})")
    result["table"] = (run / "table.md").read_text(encoding="utf-8").rstrip("\n")
    images.mkdir(parents=True, exist_ok=True)
    if benchmark == "comparison":  # on images, known by its data
        data = result["data"]["name"]
        pictures, name = {each: evidence.picture(data, each) for each in evidence.PICTURES}, f"comparison-{data}"
    else:
        pictures, name = PICTURES[benchmark], benchmark
    for each, published in pictures.items():
        shutil.copyfile(run / each, images / published)
    return write(result, results, name)


def publish_study(run: Path, results: Path) -> Path:
    """Copies the records of a study, whole or not: its settings and the finished cells that belong to them.

    The result file replaces an older one of the same name, whose note is kept where the settings have none.
    """
    study = read_run(run)
    path = results / f"study-{study.name}.jsonl"
    if study.config.note is None and path.is_file():
        study = replace(study, config=replace(study.config, note=read_published(path).config.note))
    write_published(path, study, make_schedule(study.config, study.platform, study.finished).used)
    return path


def publish_settings(run: Path, results: Path) -> Path:
    """Copies the records of the study `settings`, whole or not; returns the result file."""
    read_records(run / RECORDS)  # what is broken is refused
    results.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(run / RECORDS, results / RECORDS))


def main(argv: Sequence[str] | None = None) -> int:
    """Publishes a run folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description="Publish a result.")
    parser.add_argument("run", type=Path, help="folder that torchdcls compare or studies.run wrote")
    try:
        run = parser.parse_args(argv).run
        if (run / RECORDS).is_file():
            path = publish_settings(run, RESULTS)
        elif (run / SETTINGS).is_file():
            path = publish_study(run, RESULTS)
        else:
            path = publish(run, RESULTS, ROOT / "docs" / "images")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {path.relative_to(ROOT)}; now run python -m benchmarks.tables and python -m benchmarks.pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
