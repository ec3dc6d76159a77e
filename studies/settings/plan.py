"""What the study varies: questions, each a grid of settings around the paper's, and the cells that answer them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from torchdcls.profiles import Interpolation

if TYPE_CHECKING:
    from torchdcls_train.comparison.config import Inputs, Layers

# To be raised when a change of the code changes what the same settings lead to: older results are not used then.
_VERSION = 1
INPUTS: "tuple[Inputs, ...]" = ("edges", "images")
Task = Literal["taps", "networks"]


@dataclass(frozen=True)
class TapsCell:
    """A run of the recovery task of `torchdcls compare positions`: elements look for taps at known places."""

    inputs: "Inputs" = "edges"  # what kernels see
    interpolation: Interpolation = "gaussian"  # of the layer
    sigma: float | None = None  # where it starts; None for the paper's start. Unit: grid cells
    annealed: bool = False  # whether sigma is not learned, but falls from `sigma` to 0 in three quarters of the updates
    # Positions start uniformly within so many cells along each axis, 0 for the paper's normal of 0.5 cells.
    radius: float = 0.0
    position_lr_scale: float = 5.0  # learning rate of positions and sigmas over that of weights
    elements: int = 6  # of a kernel
    size: int = 23  # height and width of the kernel
    updates: int = 400  # of the run
    seed: int = 0  # of taps, starts and images

    @cached_property
    def id(self) -> str:
        """A hash of the settings: 16 hexadecimal digits."""
        return _id("taps", self)


@dataclass(frozen=True)
class NetworkCell:
    """A training run of the network of `torchdcls compare images`, scored on validation images."""

    method: "Layers" = "gaussian"  # what stands in the place of its 7x7 layers
    sigma: float | None = None  # where it starts; None for the paper's start. Unit: grid cells
    radius: float = 0.0  # as for `TapsCell`
    size: int = 17  # height and width of the DCLS kernels
    position_lr_scale: float = 5.0  # as for `TapsCell`
    elements: int | None = None  # of a kernel; None for the most with which no parameters are added
    seed: int = 0  # of weights, positions, order and augmentation

    @cached_property
    def id(self) -> str:
        """A hash of the settings: 16 hexadecimal digits."""
        return _id("networks", self)


Cell = TapsCell | NetworkCell
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A grid: rows are what is asked about, columns that beside which it is asked."""

    title: str  # what is asked about
    choice: str  # what a reader does who asks it, after "If you"
    task: Task  # what the cells are runs of
    rows: Mapping[str, Changes]  # settings by name; the first row is what the others are compared with
    columns: Mapping[str, Changes]  # likewise
    by_loss: bool = False  # whether the loss is compared, and not the share of taps found

    def cell(self, row: str, column: str, seed: int, inputs: "Inputs" = "edges") -> Cell:
        """One cell of the grid. `radius` "whole" is half the size."""
        changes = {**self.columns[column], **self.rows[row], "seed": seed}
        if self.task == "networks":
            return NetworkCell(**changes)
        if changes.get("radius") == "whole":
            changes["radius"] = changes.get("size", TapsCell.size) / 2 - 0.5
        return TapsCell(inputs=inputs, **changes)


# How many of each task the study has.
SEEDS: Mapping[Task, int] = {"taps": 8, "networks": 6}

_BILINEAR = {"interpolation": "bilinear"}
_WIDE = {"sigma": 3.0}
_SPREAD = {"radius": 9.0}
_STARTS: Mapping[str, Changes] = {"narrow start": {}, "spread start": _SPREAD}
_THREE: Mapping[str, Changes] = {"bilinear": _BILINEAR, "Gaussian": {}, "Gaussian, sigma 3": _WIDE}


def _sigmas(interpolation: Interpolation, start: float) -> dict[str, Changes]:
    kind = {"interpolation": interpolation}
    return {f"{start:g} (paper)": kind, **{f"{sigma:g}": {**kind, "sigma": float(sigma)} for sigma in (1, 2, 3, 5)}}


def _annealed(interpolation: Interpolation) -> dict[str, Changes]:
    kind = {"interpolation": interpolation}
    falls = {f"annealed from {sigma}": {**kind, "sigma": float(sigma), "annealed": True} for sigma in (1, 3, 6)}
    return {"learned from 3": {**kind, **_WIDE}, **falls}


_WIDER = {"sigma": 3.0, "radius": 3.0}
_NETWORK_STARTS: Mapping[str, Changes] = {
    "normal, 0.5 (paper)": {},
    "uniform within 3": {"radius": 3.0},
    "uniform within 8": {"radius": 8.0},
}
_NETWORKS: Mapping[str, Changes] = {"bilinear": {"method": "bilinear"}, "Gaussian": {}}

QUESTIONS: tuple[Question, ...] = (
    Question(
        "Both starts wider: sigma 3, positions uniform within 3",
        "choose both starts",
        "taps",
        {"paper": {}, "both wider": _WIDER},
        {"triangle": {"interpolation": "triangle"}, "Gaussian": {}},
    ),
    Question(
        "Interpolation",
        "choose the interpolation",
        "taps",
        {name: {"interpolation": name} for name in ("bilinear", "triangle", "gaussian")},
        _STARTS,
    ),
    Question(
        "Start of sigma, Gaussian", "choose where a Gaussian's sigma starts", "taps", _sigmas("gaussian", 0.23), _STARTS
    ),
    Question(
        "Start of sigma, triangle", "choose where a triangle's sigma starts", "taps", _sigmas("triangle", 0), _STARTS
    ),
    Question(
        "Annealing of sigma, Gaussian",
        "learn a Gaussian's sigma or let it fall",
        "taps",
        _annealed("gaussian"),
        _STARTS,
    ),
    Question(
        "Annealing of sigma, triangle",
        "learn a triangle's sigma or let it fall",
        "taps",
        _annealed("triangle"),
        _STARTS,
    ),
    Question(
        "Spread of positions at the start",
        "choose where positions start",
        "taps",
        {"normal, 0.5 (paper)": {}, **{f"uniform within {radius}": {"radius": float(radius)} for radius in (3, 6, 9)}},
        {"bilinear": _BILINEAR, "triangle": {"interpolation": "triangle"}, **dict(list(_THREE.items())[1:])},
    ),
    Question(
        "Learning rate of positions over that of weights",
        "choose the learning rate of positions, over that of weights",
        "taps",
        {
            "5 (paper)": {"position_lr_scale": 5.0},
            **{str(scale): {"position_lr_scale": float(scale)} for scale in (1, 2, 10, 20)},
        },
        _THREE,
    ),
    Question(
        "Number of elements for 6 taps",
        "have parameters for more elements than taps",
        "taps",
        {str(count): {"elements": count} for count in (6, 12, 24)},
        _THREE,
        by_loss=True,
    ),
    Question(
        "Kernel size, narrow start",
        "choose the kernel size, with a narrow start",
        "taps",
        {str(size): {"size": size} for size in (23, 19, 31, 41)},
        _THREE,
    ),
    Question(
        "Kernel size, positions spread over the whole kernel",
        "choose the kernel size, with positions all over the kernel",
        "taps",
        {str(size): {"size": size, "radius": "whole"} for size in (23, 19, 31, 41)},
        _THREE,
    ),
    Question(
        "Length of the run",
        "can train longer",
        "taps",
        {f"{updates} updates": {"updates": updates} for updates in (400, 100, 1600)},
        {**_THREE, "Gaussian, sigma 3, spread start": {**_WIDE, **_SPREAD}},
    ),
    Question(
        "Networks: start of positions",
        "train a small network for minutes, and choose where positions start",
        "networks",
        _NETWORK_STARTS,
        {**_NETWORKS, "Gaussian, sigma 3": _WIDE},
    ),
    # What follows was added after three seeds of the rows before.
    Question(
        "Networks: start of sigma, Gaussian",
        "train a small network for minutes, and choose where sigma starts",
        "networks",
        {"0.23 (paper)": {}, "1": {"sigma": 1.0}, "3": _WIDE},
        _NETWORK_STARTS,
    ),
    Question(
        "Networks: interpolation",
        "train a small network for minutes, and choose the interpolation",
        "networks",
        {name: {"method": name} for name in ("bilinear", "triangle", "gaussian")},
        {"normal, 0.5 (paper)": {}},
    ),
    Question(
        "Networks: learning rate of positions over that of weights",
        "train a small network for minutes, and choose the learning rate of positions",
        "networks",
        {"5 (paper)": {}, **{str(scale): {"position_lr_scale": float(scale)} for scale in (1, 20)}},
        _NETWORKS,
    ),
    Question(
        "Networks: number of elements",
        "train a small network for minutes, and choose the number of elements",
        "networks",
        {"as many parameters as 7x7": {}, **{str(count): {"elements": count} for count in (5, 10)}},
        _NETWORKS,
    ),
    Question(
        "Networks: kernel size",
        "train a small network for minutes, and choose the kernel size",
        "networks",
        {str(size): {"size": size} for size in (17, 9, 27)},
        _NETWORKS,
    ),
    Question(
        "Networks: both starts wider",
        "train a small network for minutes, and choose both starts",
        "networks",
        {"paper": {}, "both wider": _WIDER},
        {"Gaussian": {}},
    ),
)


def planned(seeds: Mapping[Task, int]) -> Iterator[Cell]:
    """All cells of so many seeds, each once; seed by seed, so that what is done at any time is balanced."""
    seen = set()
    for seed in range(max(seeds.values(), default=0)):
        cells: list[Cell] = []
        for question in QUESTIONS:
            every = INPUTS if question.task == "taps" else INPUTS[:1]
            for row, column, inputs in product(question.rows, question.columns, every):
                cells.append(question.cell(row, column, seed, inputs))
        cells.append(baseline(seed))
        for cell in cells:
            if seed < seeds.get(task_of(cell), 0) and cell.id not in seen:
                seen.add(cell.id)
                yield cell


def task_of(cell: Cell) -> Task:
    """What a cell is a run of."""
    return "taps" if isinstance(cell, TapsCell) else "networks"


def baseline(seed: int) -> NetworkCell:
    """The network with its own layers."""
    return NetworkCell("7x7", seed=seed)


def _id(task: Task, cell: Cell) -> str:
    return hashlib.sha256(json.dumps([task, _VERSION, asdict(cell)], sort_keys=True).encode()).hexdigest()[:16]
