"""Options of commands that are no settings of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import _checks
from ..profiles import Interpolation


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class InfoConfig:
    """Options of `torchdcls info`.

    Raises:
        ValueError: An option is out of range; the message names it.
    """

    dilated_kernel_size: Sequence[int] = _option((23,), "sizes of dense kernels to convert to, such as 13 17 23")
    interpolation: Sequence[Interpolation] = _option(
        ("bilinear", "triangle", "gaussian"), "interpolations to convert to"
    )
    kernel_count: int | Literal["iso"] = _option(
        "iso", "elements per kernel, or iso: as many as need no more parameters than before"
    )
    image_size: int | None = _option(
        None, "height and width of the images; by default those that the model is made for"
    )
    num_classes: int | None = _option(None, "number of classes; by default the model's own")

    def __post_init__(self) -> None:
        for size in self.dilated_kernel_size:
            _checks.integer("dilated_kernel_size", size, 1)
        for name in ("kernel_count", "image_size", "num_classes"):
            if getattr(self, name) not in (None, "iso"):
                _checks.integer(name, getattr(self, name), 0 if name == "num_classes" else 1)
