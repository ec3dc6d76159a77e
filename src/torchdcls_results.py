"""What results say of where they come from, the files that they are written to, and tables in Markdown of them.

It stands beside the packages: `torchdcls_train`, `studies` and `benchmarks` use it, and the library does not.
"""

import importlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from torchdcls._files import sync, touch

# The checkout, where the packages run from one.
_CHECKOUT = Path(__file__).resolve().parents[1]
# The models of comparisons that are no others' (`torchdcls_train.comparison.small`). Isotropic ones, as the authors'
# own for CIFAR-10, which is the second: channels and blocks.
CONVMIXERS = {"convmixer": (32, 3), "convmixer-256-16": (256, 16)}
DEEP_MODELS = ("convnext", "convformer")
SMALL_MODELS = (*CONVMIXERS, *DEEP_MODELS)
# What elements that search for taps see (`torchdcls_train.comparison.positions`), in words.
INPUTS = {"edges": "edges of images", "images": "images"}


def environment(command: str, packages: Iterable[str]) -> dict[str, Any]:
    """The fields that every result file has: `date` (ISO 8601, UTC), `commit`, `dirty`, `command` and so on.

    They name neither a host nor a path.

    Args:
        command: What makes the result again.
        packages: Distributions whose versions matter.
    """
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing.
    from_checkout = (_CHECKOUT / "src" / "torchdcls").is_dir()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **(git_state(_CHECKOUT) if from_checkout else {"commit": None, "dirty": None}),
        "command": command,
        "machine": machine(),
        "load": load(),
        "versions": {"Python": platform.python_version(), **{name: _version(name) for name in packages}},
    }


def repeatable(arguments: Sequence[str]) -> list[str]:
    """The arguments that make the same result again, without `--out` and with the last part alone of every path."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--out":
            next(rest, None)
        elif not argument.startswith("--out="):
            option, equals, value = argument.rpartition("=")
            kept.append(option + equals + (Path(value).name if os.sep in value else value))
    return kept


def git_state(root: Path) -> dict[str, Any]:
    """Commit of the tree at `root` and whether it differs from it, result files aside; None where there is no git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": changes != ""}


def machine() -> dict[str, Any]:
    """The machine in the words that a reader needs: processor, cores, memory (GiB), operating system."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib(), "os": _operating_system()}


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def write_whole(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Has a file written under another name, the same each time, synced and renamed.

    Args:
        path: The file.
        write: Writes it under the name that it is called with.
        previous: Where the old file of this name goes once the new one is complete; None for nowhere.

    Raises:
        OSError: It cannot be written. What had this name before is still there, and nothing else is left.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)  # of a process that was killed
        mode = touch(unfinished)
        write(unfinished)
        unfinished.chmod(mode)
        sync(unfinished)
        if previous is not None and path.exists():
            path.replace(previous)
        unfinished.replace(path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise OSError(f"'{path}' cannot be written ({error})") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file of text, as `write_whole`."""
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON, as `write_whole`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, none where there is no file, without one that was not written to its end."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the header first, as Markdown: the first column to the left, the others to the right."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def half_interval(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of the confidence interval of the mean (Student's t), for two values or more."""
    from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]

    return float(t.ppf((1 + confidence) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def mean_and_interval(values: Sequence[float], form: str = ".2f", least: int = 2) -> str:
    """The mean, written in a form, and half its 95 % interval where there are so many values."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) < least else f"{mean} ± {half_interval(values):{form.lstrip('+z')}}"


def model_title(name: str) -> str:
    """What a reader calls the model of a comparison."""
    return {"convmixer-256-16": "ConvMixer-256/16"}.get(name, f"Small {name}" if name in SMALL_MODELS else name)


def stem_stride(image_size: int, cells: int = 32) -> int:
    """Pixels of an image along each axis that a cell stands for, so that there are about `cells` of them."""
    return next((step for step in (1, 2) if image_size <= 1.25 * cells * step), 4)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # beside the interpreter and not installed
        return str(importlib.import_module(package).__version__)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        if found is not None:
            return found[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _operating_system() -> str:
    # Not platform.platform(): a kernel's release string may carry names of somebody's own.
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
