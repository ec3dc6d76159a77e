"""What a result file says about how its numbers came about, and the file itself.

Every result file has at its top level `benchmark`, `date` (ISO 8601, UTC), `commit`, `dirty`, `command`, `machine` and
`versions`; those of benchmarks have `load` too. It names neither a host nor a path.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(benchmark: str, argv: Sequence[str], packages: Iterable[str]) -> dict[str, Any]:
    """The fields that every result file has.

    Args:
        benchmark: Name of the benchmark.
        argv: Arguments of `python -m benchmarks.run`, the benchmark's name first.
        packages: Distributions whose versions matter.
    """
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **git_state(ROOT),
        "command": command_line(argv),
        "machine": machine(),
        "load": load(),
        "versions": {"Python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
    }


def write(result: dict[str, Any], folder: Path) -> Path:
    """Writes `<benchmark>-<machine>-<commit>.json`, `-dirty` behind the commit where the tree was, and returns it."""
    commit = (result["commit"] or "no-commit")[:10] + ("-dirty" if result["dirty"] else "")
    path = folder / f"{result['benchmark']}-{slug(result['machine'])}-{commit}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def git_state(root: Path) -> dict[str, Any]:
    """Commit of the tree at `root` and whether it differs from it, result files aside; None where there is no git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": changes != ""}


def command_line(argv: Sequence[str]) -> str:
    """The command that measures the same again: where the result is written is left out."""
    kept: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--out":
            next(arguments, None)
        elif not argument.startswith("--out="):
            kept.append(argument)
    return " ".join(["python -m benchmarks.run", *kept])


def machine() -> dict[str, Any]:
    """The machine in the words that a reader needs: processor, cores, memory (GiB), operating system."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib(), "os": _operating_system()}


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def slug(machine: dict[str, Any]) -> str:
    """Short name of a machine for a file name, such as `amd-epyc-2-cores`."""
    # "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz" -> "Intel Xeon Gold 6130"; "AMD EPYC 7763 64-Core Processor" likewise.
    name = re.sub(r"\((r|tm|c)\)|@.*|\b(\d+-core|cpu|processor)\b", " ", machine["cpu"].lower())
    return "-".join([*re.findall(r"[a-z0-9]+", name), str(machine["cores"]), "cores"])


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
