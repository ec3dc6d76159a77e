"""What a file says about its model, as text in each of the formats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

FORMAT = "torchdcls model 1"


@dataclass(frozen=True)
class Configuration:
    """How to make a model, and how to prepare its inputs.

    Attributes:
        model: timm's name of the model, or torchdcls's; None for another model, which must then be passed to `load`.
        arguments: Arguments of `timm.create_model` beside the name.
        classes: Names of the outputs, in their order.
        mean: Mean of each channel of the images, on the scale of 0 to 1.
        std: Standard deviation of each channel.
        image_size: Height and width of the images. Unit: pixels.
        interpolation: How images are resized.
        crop_pct: Share of the resized image's side that the central crop takes.
        weights: Which weights of the training run these are: "model", or "ema" for their average.
        training: Settings of the training run.
    """

    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    image_size: int | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    weights: str | None = None
    training: Mapping[str, Any] | None = None

    def to_text(self) -> str:
        """JSON, with the versions of the packages beside it.

        Raises:
            ValueError: JSON cannot hold a value.
        """
        try:
            return json.dumps({**asdict(self), "versions": _versions()})
        except TypeError as error:
            raise ValueError(f"configuration: expected texts, numbers, lists and mappings alone ({error})") from None

    def with_format(self) -> str:
        """The same as one text that names its format, for files that have no other place for that."""
        return json.dumps({"format": FORMAT, "about": json.loads(self.to_text())})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The configuration in a text of `to_text`. What a newer version adds is left out; other texts are refused.

        Raises:
            ValueError: It is another text.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"configuration: expected a mapping, got {type(values).__name__}")
        return cls(**{entry.name: values[entry.name] for entry in fields(cls) if entry.name in values})


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torchdcls", "torch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # timm is optional
            continue
    return found
