"""The result file of a benchmark: at its top level `benchmark`, and what `environment` says."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torchdcls_results import environment, repeatable, write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(
    benchmark: str,
    argv: Sequence[str],
    packages: Iterable[str],
    gpu: str | None = None,
    module: str = "benchmarks.run",
) -> dict[str, Any]:
    """The fields that every result file has, of `python -m MODULE ARGV` and of the packages whose versions matter."""
    command = " ".join(["python -m", module, *repeatable(argv)])
    result = {"benchmark": benchmark, **environment(command, packages)}
    if gpu is not None:
        result["machine"]["gpu"] = gpu
    return result


def write(result: dict[str, Any], folder: Path, name: str | None = None) -> Path:
    """Writes `<name or benchmark>-<machine>-<commit>.json`, `-dirty` behind it where the tree was, and returns it."""
    commit = (result["commit"] or "no-commit")[:10] + ("-dirty" if result["dirty"] else "")
    path = folder / f"{name or result['benchmark']}-{slug(result['machine'])}-{commit}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def newest_of(name: str, folder: Path, partial: bool = False) -> dict[str, Any] | None:
    """The result `NAME-*.json` with the latest date in it, or None; one that is not complete only if `partial`."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{name}-*.json"))]
    whole = (result for result in found if partial or result.get("complete", True))
    return max(whole, key=lambda result: str(result["date"]), default=None)


def slug(machine: dict[str, Any]) -> str:
    """Short name of a machine for a file name, such as `amd-epyc-2-cores`, or of its GPU, such as `nvidia-h200`."""
    if "gpu" in machine:
        return "-".join(re.findall(r"[a-z0-9]+", machine["gpu"].lower()))
    # "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz" -> "Intel Xeon Gold 6130"; "AMD EPYC 7763 64-Core Processor" likewise.
    name = re.sub(r"\((r|tm|c)\)|@.*|\b(\d+-core|cpu|processor)\b", " ", machine["cpu"].lower())
    return "-".join([*re.findall(r"[a-z0-9]+", name), str(machine["cores"]), "cores"])
