"""Takes a finished comparison into the repository: `python -m benchmarks.publish RUN_FOLDER`.

Its results go to `benchmarks/results/`, from where `python -m benchmarks.tables` makes the README's table, and its
pictures to `docs/images/`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .record import RESULTS, ROOT, write

PICTURES = ("accuracy.png", "positions.png", "kernels.png")


def publish(run: Path, results: Path, images: Path) -> Path:
    """Copies a run folder's results and pictures.

    Args:
        run: Folder that `torchdcls compare` wrote.
        results: Folder of the result files.
        images: Folder of the README's pictures.

    Returns:
        The result file.

    Raises:
        ValueError: The folder holds no finished comparison.
    """
    file = run / "results.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if result.get("status") != "finished":
        raise ValueError(f"run: expected the folder of a finished comparison, got '{run}' ({result.get('status')})")
    images.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        shutil.copyfile(run / name, images / name)
    return write(result, results)


def main(argv: Sequence[str] | None = None) -> int:
    """Publishes a run folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description="Publish a finished comparison.")
    parser.add_argument("run", type=Path, help="folder that torchdcls compare wrote")
    try:
        path = publish(parser.parse_args(argv).run, RESULTS, ROOT / "docs" / "images")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {path.relative_to(ROOT)}; now run python -m benchmarks.tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
