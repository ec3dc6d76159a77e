"""What a comparison has come to, and the `results.json` of its folder, which is read and written here alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torchdcls_results import environment

from ..runs.writer import command_line

RESULTS = "results.json"

AnyResult = TypeVar("AnyResult", bound="Result")


@dataclass(frozen=True)
class Machine:
    """See `torchdcls_results.machine`."""

    cpu: str
    cores: int | None
    memory_gib: float | None
    os: str


@dataclass(kw_only=True)
class Result:
    """What the results of all comparisons say; see `torchdcls_results.environment` too.

    Attributes:
        benchmark: What is compared, in a word.

    Args:
        status: "running", "finished", "interrupted" or "failed: ERROR".
        threads: CPU threads.
        config: Settings, checked.
    """

    benchmark: ClassVar[str]
    date: str
    commit: str | None
    dirty: bool | None
    command: str
    machine: Machine
    load: float | None
    versions: dict[str, str]
    complete: bool = False
    status: str = "running"
    threads: int
    config: Any

    # What is told of one that is not complete, and of a quick one.
    counts: ClassVar[str] = "only runs that finished are shown"
    quickly: ClassVar[str] = "A quick run: that it runs is all it shows; its accuracies mean nothing."

    @property
    def notice(self) -> str:
        """What a reader must know first, or nothing."""
        if self.status != "finished":
            return f"The comparison is not complete ({self.status}): {self.counts}."
        return self.quickly if self.config.quick else ""

    def json(self) -> dict[str, Any]:
        """What the file holds."""
        return {"benchmark": self.benchmark, **asdict(self), "config": settings(self.config)}


def origin(argv: Sequence[str] | None, packages: Sequence[str]) -> dict[str, Any]:
    """The fields of a `Result` that say where it comes from.

    Args:
        argv: The command's arguments; None for those of the process.
        packages: Distributions whose versions matter.
    """
    made = environment(command_line(argv), packages)
    return {**made, "machine": Machine(**made["machine"])}


def settings(config: Any) -> dict[str, Any]:
    """The settings of a comparison that its results name."""
    return {name: value for name, value in asdict(config).items() if name not in config.UNRECORDED}


def read_result(kind: type[AnyResult], path: Path) -> AnyResult:
    """The results in a file, of this version or an earlier one.

    Raises:
        ValueError: They are of another comparison, or broken.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"expected JSON in '{path}', got something else ({error})") from None
    return result_from(kind, stored)


def result_from(kind: type[AnyResult], stored: Any) -> AnyResult:
    """The results in a file's JSON.

    Raises:
        ValueError: They are of another comparison, or broken.
    """
    benchmark = stored.get("benchmark") if isinstance(stored, dict) else None
    if benchmark != kind.benchmark:
        raise ValueError(f"benchmark: expected {kind.benchmark!r}, got {benchmark!r}")
    return from_json(kind, stored)  # type: ignore[no-any-return]


def from_json(kind: Any, stored: Any, place: str = "") -> Any:
    """A value of a type from what JSON has of it: missing settings take their defaults, further ones are ignored.

    Args:
        kind: A dataclass, or what the fields of these are.
        stored: The JSON.
        place: Where it stands, for the message.

    Raises:
        ValueError: It is of another type.
    """
    container, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(stored, dict):
        given = {}
        for field in fields(kind):
            inside = f"{place}.{field.name}".lstrip(".")
            if field.name in stored:
                given[field.name] = from_json(_hints(kind)[field.name], stored[field.name], inside)
            elif field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{inside}: expected a value, got none")
        return kind(**given)
    if container in (Union, UnionType):  # with None, always
        return None if stored is None else from_json(inner[0], stored, place)
    if container in (list, Sequence) and isinstance(stored, list):
        values = [from_json(inner[0], each, f"{place}[{number}]") for number, each in enumerate(stored)]
        return values if container is list else tuple(values)
    if container is dict and isinstance(stored, dict):
        return {name: from_json(inner[1], value, f"{place}.{name}") for name, value in stored.items()}
    if container is Literal and stored in inner:
        return stored
    if kind is Path and isinstance(stored, str):
        return Path(stored)
    if kind is float and type(stored) is int:
        return float(stored)
    if kind is Any or type(stored) is kind:
        return stored
    wanted = " or ".join(map(repr, inner)) if container is Literal else getattr(kind, "__name__", str(kind))
    raise ValueError(f"{place}: expected {wanted}, got {stored!r:.80}")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)
