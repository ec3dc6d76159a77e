"""The results of a comparison, which are read from and written to JSON here alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
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


@dataclass(frozen=True)
class Resumption:
    """When and by which command a comparison was resumed."""

    date: str
    commit: str | None
    dirty: bool | None
    command: str


@dataclass(kw_only=True)
class Result:
    """The results of any comparison, with the fields of `torchdcls_results.environment`.

    Attributes:
        benchmark: The word in the file that tells comparisons apart.
        subject: What is compared, in a word.

    Args:
        status: "running", "finished", "interrupted" or "failed: ERROR".
        threads: CPU threads.
        config: Settings, checked.
        data: Facts about the data, a dataclass; only a comparison with equal ones is resumed.
        resumed: One entry for each time; files of comparisons that were never resumed lack it.
    """

    benchmark: ClassVar[str]
    subject: ClassVar[str]
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
    data: Any
    resumed: list[Resumption] = field(default_factory=list)

    # Parts of the notice, if a comparison is not complete or quick.
    incomplete_notice: ClassVar[str] = "only runs that finished are shown"
    quick_notice: ClassVar[str] = "A quick run: it only shows that everything works, and its accuracies mean nothing."

    @property
    def notice(self) -> str:
        """The sentence that comes first in a report, or nothing."""
        if self.status != "finished":
            return f"The comparison is not complete ({self.status}): {self.incomplete_notice}."
        return self.quick_notice if self.config.quick else ""

    def json(self) -> dict[str, Any]:
        """The content of the file; not all results have all keys."""
        row = {"benchmark": self.benchmark, **asdict(self), "config": settings(self.config)}
        return {name: value for name, value in row.items() if value or name not in ("travel", "resumed")}


def origin(argv: Sequence[str] | None, packages: Sequence[str]) -> dict[str, Any]:
    """The fields of a `Result` that say where it comes from; see `environment`. `argv` may be that of the process."""
    made = environment(command_line(argv), packages)
    return {**made, "machine": from_json(Machine, made["machine"])}


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


def resumed(folder: Path, now: AnyResult) -> AnyResult:
    """The results in a run's folder, to be continued by a comparison that would begin with `now`.

    More seeds may be asked for than before.

    Raises:
        ValueError: They are of a comparison with other settings or data, or of something else.
    """
    try:
        before = read_result(type(now), folder / RESULTS)
    except ValueError as error:
        raise ValueError(
            f"out: expected a folder with a comparison of {now.subject} or with none, got '{folder}' ({error}); "
            "take another folder"
        ) from None
    stored, given = (json.loads(json.dumps(settings(it.config) | asdict(it.data))) for it in (before, now))
    changes = [
        f"{name} was {stored[name]!r}, is {value!r}"
        for name, value in given.items()
        if value != stored[name] and not (name == "seeds" and value > stored[name])
    ]
    if changes:
        raise ValueError(
            f"out: expected the settings and data of the comparison in '{folder}' to resume it, got others "
            f"({'; '.join(changes)}); give the same ones, or take another folder"
        )
    if before.complete and stored == given:
        return before  # to be drawn again
    resumption = Resumption(now.date, now.commit, now.dirty, now.command)
    return replace(before, config=now.config, complete=False, status="running", resumed=[*before.resumed, resumption])


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
    """A value of a type, read from JSON.

    Fields of a dataclass that are missing take their defaults; unknown ones are ignored.

    Args:
        kind: A dataclass, a type of JSON, a path, a Literal, or lists, dicts and options of these.
        stored: The parsed JSON.
        place: Its place in the file, for the message.

    Raises:
        ValueError: The JSON is of another type.
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
