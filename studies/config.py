"""The settings of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from torchdcls import _checks
from torchdcls.profiles import INTERPOLATIONS, Interpolation

Precision = Literal["float32", "bfloat16"]
Layers = Literal["7x7", Interpolation, "dense", "dilated", "frozen"]
LAYERS: tuple[Layers, ...] = get_args(Layers)
BASELINE: Layers = "7x7"
# The layers whose positions are learned, and those whose elements have positions at all.
LEARNED: tuple[Layers, ...] = INTERPOLATIONS
PLACED: tuple[Layers, ...] = (*LEARNED, "frozen")
# Where positions start: uniformly within so many cells of the center, 0 for the papers' normal of 0.5, or everywhere.
Start = float | Literal["whole"]

# Taps a side of dilated kernels: 25, about as many as a DCLS kernel has elements.
TAPS = 5
_IMAGE_SIZES = {"embedded": 28, "fashion-mnist": 28, "cifar10": 32}
# What a candidate may set, and for which layers that means anything.
_CHOICES: Mapping[str, Sequence[Layers]] = {
    "lr": LAYERS,
    "weight_decay": LAYERS,
    "kernel_size": (*PLACED, "dense", "dilated"),
    "start": PLACED,
}


@dataclass(frozen=True)
class Candidate:
    """Settings that are chosen on the validation images; None where a method has none of the kind."""

    lr: float
    weight_decay: float
    kernel_size: int | None
    start: Start | None


@dataclass(frozen=True)
class Tuning:
    """How the settings of each method are chosen on the validation images."""

    seeds: Sequence[int] = (100,)  # seeds of the tuning; none of them is among the study's own
    epochs: int | None = None  # passes over the training images (default: those of the study)
    # For each method lists of lr, weight_decay, kernel_size and start. All combinations are tried, and every method has
    # as many; with one each, settings are fixed beforehand and nothing is tuned.
    candidates: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweeps:
    """What accuracy is drawn against, on the validation images, with all else as here."""

    models: Sequence[str] | None = None  # models to draw it for (default: the study's)
    methods: Sequence[Layers] = ("bilinear", "gaussian")  # methods to draw it for
    seeds: Sequence[int] = (100, 101)  # seeds
    epochs: int | None = None  # passes over the training images (default: those of the study)
    kernel_size: int = 17  # kernel size of the other two sweeps
    start: Start = 3.0  # where positions start in the other two sweeps
    kernel_sizes: Sequence[int] = ()  # kernel sizes
    kernel_counts: Sequence[int] = ()  # numbers of elements
    starts: Sequence[Start] = ()  # radii within which positions start


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study: what its YAML file may say. `kernel_size` and `start` in it count in grid cells."""

    models: Sequence[str] = ("convnext", "convformer")  # models of torchdcls compare, or timm's names
    data: str = "embedded"  # 'embedded', 'fashion-mnist' or 'cifar10'
    data_dir: Path | None = None  # where the files of 'fashion-mnist' or 'cifar10' are
    image_size: int | None = None  # pixels a side (default: the data's own)
    train_images: int | None = None  # use only so many of the data's training images (default: all)
    validation_images: int = 1000  # how many of these are set apart for validation
    methods: Sequence[Layers] = LAYERS  # what is compared; 7x7 is the baseline of all others
    seeds: Sequence[int] = (0, 1, 2, 3, 4)  # seeds, or their number
    epochs: int = 6  # passes over the training images
    batch_size: int = 64  # images per step
    lr: float = 4e-3  # base learning rate of AdamW, where no candidate says another
    weight_decay: float = 0.05  # weight decay, where no candidate says another
    label_smoothing: float = 0.1  # label smoothing of the training loss
    warmup_epochs: float = 1.0  # epochs of linear warm-up, at most a quarter of all
    tuning: Tuning = field(default_factory=Tuning)
    sweeps: Sweeps = field(default_factory=Sweeps)
    precision: Precision = "float32"  # of the forward pass: float32, or bfloat16 by autocast
    device: str = "auto"  # 'cpu', 'cuda', ..., or 'auto' for a GPU where there is one
    threads: int | None = None  # CPU threads (default: torch's)
    note: str | None = None  # what a reader of the results should know of how the study came about

    def __post_init__(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            ValueError: A setting is out of range; the message begins with its name.
        """
        _checks.one_of("data", self.data, tuple(_IMAGE_SIZES))
        counts = ("validation_images", "epochs", "batch_size", "image_size", "train_images", "threads")
        _checks.settings(self, _checks.count, *counts)
        _checks.settings(self, _checks.at_least_0, "lr", "weight_decay", "warmup_epochs")
        _checks.settings(self, _checks.share, "label_smoothing")
        _checks.one_of("precision", self.precision, get_args(Precision))
        if self.note is not None and not isinstance(self.note, str):
            raise ValueError(f"note: expected words, got {self.note!r}")
        _each("models", self.models)
        self._check_methods("methods", self.methods)
        if BASELINE not in self.methods:
            raise ValueError(f"methods: expected {BASELINE!r} among them, which the others are compared with, got none")
        _seeds("seeds", self.seeds)
        if len(self.seeds) < 2:
            raise ValueError(f"seeds: expected at least 2, as differences are between pairs, got {len(self.seeds)}")
        self._check_tuning()
        self._check_sweeps()

    @property
    def side(self) -> int:
        """Height and width of the images, which no kernel exceeds."""
        return self.image_size or _IMAGE_SIZES[self.data]

    def candidates(self, method: Layers) -> list[Candidate]:
        """The settings among which the validation images choose, in the order of the file."""
        grid = self.tuning.candidates.get(method, {})
        placed, sized = method in PLACED, method in _CHOICES["kernel_size"]
        return [
            Candidate(
                lr=float(lr),
                weight_decay=float(weight_decay),
                kernel_size=int(size) if sized else None,
                start=_start("start", start) if placed else None,
            )
            for size, start, lr, weight_decay in product(
                grid.get("kernel_size", [self.sweeps.kernel_size]),
                grid.get("start", ["whole" if method == "frozen" else self.sweeps.start]),
                grid.get("lr", [self.lr]),
                grid.get("weight_decay", [self.weight_decay]),
            )
        ]

    def _check_methods(self, name: str, methods: Sequence[str]) -> None:
        for method in methods:
            among(name, method, LAYERS, f"some of {', '.join(LAYERS)}")
        _each(name, methods)

    def _check_tuning(self) -> None:
        _seeds("tuning.seeds", self.tuning.seeds)
        _positive_or_none("tuning.epochs", self.tuning.epochs)
        if shared := set(self.tuning.seeds) & set(self.seeds):
            raise ValueError(f"tuning.seeds: expected none of the study's own seeds, got {sorted(shared)} in both")
        for method, grid in self.tuning.candidates.items():
            name = f"tuning.candidates.{method}"
            among(name, method, self.methods, "a method of this study")
            for choice, values in grid.items():
                allowed = [known for known, methods in _CHOICES.items() if method in methods]
                among(name, choice, allowed, f"lists of {', '.join(allowed)}")
                _each(f"{name}.{choice}", values)
                for value in values:
                    self._check_choice(f"{name}.{choice}", choice, value)
        counts = {method: len(self.candidates(method)) for method in self.methods}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{method} {count}" for method, count in counts.items())
            raise ValueError(
                f"tuning.candidates: expected as many for one method as for another, the same effort, got {listed}"
            )

    def _check_choice(self, name: str, choice: str, value: object) -> None:
        if choice == "kernel_size":
            self._check_size(name, value)
            if name.split(".")[-2] == "dilated" and (int(str(value)) - 1) % (TAPS - 1):
                raise ValueError(
                    f"{name}: expected an extent that {TAPS} taps at equal distances have, such as 9, 13 or 17, "
                    f"got {value}"
                )
        elif choice == "start":
            _start(name, value)
        else:
            _checks.at_least_0(name, value)

    def _check_size(self, name: str, value: object) -> None:
        size = _checks.integer(name, value, 1)
        if size > self.side:
            raise ValueError(f"{name}: expected at most {self.side}, the images' side, got {size}")

    def _check_sweeps(self) -> None:
        sweeps = self.sweeps
        for model in sweeps.models or ():
            among("sweeps.models", model, self.models, "models of this study")
        self._check_methods("sweeps.methods", sweeps.methods)
        for method in sweeps.methods:
            _checks.one_of("sweeps.methods", method, PLACED)
        _seeds("sweeps.seeds", sweeps.seeds)
        _positive_or_none("sweeps.epochs", sweeps.epochs)
        for size in (sweeps.kernel_size, *sweeps.kernel_sizes):
            self._check_size("sweeps.kernel_size" if size == sweeps.kernel_size else "sweeps.kernel_sizes", size)
        for count in sweeps.kernel_counts:
            _checks.integer("sweeps.kernel_counts", count, 1)
        for start in (sweeps.start, *sweeps.starts):
            _start("sweeps.starts", start)


def among(name: str, value: object, known: Sequence[str], expected: str) -> None:
    """Refuses a value that is not among those known, and says which is near."""
    if value not in known:
        raise ValueError(f"{name}: expected {expected}, got {value!r}; {_checks.nearest(str(value), known)}")


def _start(name: str, value: object) -> Start:
    if value == "whole":
        return "whole"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(
            f"{name}: expected a radius in cells, 0 for the papers' normal start, or 'whole' for all of the kernel, "
            f"got {value!r}"
        )
    return float(value)


def _positive_or_none(name: str, value: object) -> None:
    if value is not None:
        _checks.integer(name, value, 1)


def _each(name: str, values: object) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{name}: expected a list of at least one, got {values!r}")
    if len({str(value) for value in values}) != len(values):
        raise ValueError(f"{name}: expected each once, got {' '.join(map(str, values))!r}")


def _seeds(name: str, values: object) -> None:
    _each(name, values)
    assert isinstance(values, Sequence)
    for value in values:
        _checks.integer(name, value, 0)
