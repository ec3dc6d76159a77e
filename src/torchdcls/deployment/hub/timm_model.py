"""Models of timm, with DCLS layers or without, that can be saved and loaded."""

import inspect
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from fnmatch import fnmatch
from pathlib import Path
from types import NoneType
from typing import Any, Self

from torch import Tensor, nn

from ... import _checks
from ..._checks import nearest
from ...conversion import convert
from ...models.named import timm_model
from ...models.stored import check_stored, making
from .arguments import encoded
from .mixin import DclsHubMixin
from .repository import FOLDER

# The file that a model is made from, and names of arguments that are not from the file. A subclass's constructor may
# pass on anything, so the check is in TimmModel's.
_READING: ContextVar[tuple[Path, Collection[str]] | None] = ContextVar("_READING", default=None)
_CONVERSION = tuple(name for name in inspect.signature(convert).parameters if name != "model")


class TimmModel(nn.Module, DclsHubMixin, tags=["timm"]):
    """A timm model, converted if `conversion` is given, with methods to save, load and push it to the Hub.

    Args:
        model_name: A timm name, those of `torchdcls.models` included.
        conversion: Arguments of `torchdcls.convert` as plain values; `where` is a pattern of layers' names such as
            "*.conv2", or a list of patterns. None keeps timm's own layers.
        num_classes: None for the model's own.
        model_args: Other arguments of timm's model.
        pretrained: Whether to start from timm's weights; not stored, as a saved model has its own.

    Attributes:
        model: The timm model.

    Raises:
        ValueError: timm has no such model, or an argument is wrong.

    Example:
        >>> conversion = dict(dilated_kernel_size=17, kernel_count="iso", interpolation="bilinear")
        >>> model = TimmModel("convnext_atto", conversion=conversion, num_classes=5)
        >>> model.conversion
        {'dilated_kernel_size': 17, 'kernel_count': 29, 'interpolation': 'bilinear'}
    """

    def __init__(
        self,
        model_name: str,
        *,
        conversion: Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        model_args: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        _checks.of_type("model_name", model_name, str, "a name of a model of timm")
        _checks.of_type("conversion", conversion, (Mapping, NoneType), "arguments of torchdcls.convert by name")
        _checks.of_type("model_args", model_args, (Mapping, NoneType), "arguments of the model by name")
        reading = _READING.get()
        if reading is not None:
            file, given = reading
            pretrained = False  # its weights are in the folder
            own = {} if "model_args" in given else model_args or {}
            for arguments in (own, {"num_classes": num_classes}):
                check_stored(FOLDER, file, model_name, arguments)
        self.model = timm_model(model_name, num_classes=num_classes, pretrained=pretrained, model_args=model_args)
        self.model_name = model_name
        self.conversion = None if conversion is None else _converted(self.model, _plain(conversion))
        if type(self).__init__ is TimmModel.__init__:  # a subclass has arguments of its own
            stored = {**self._made_with.stored, "conversion": self.conversion}
            self._hub_mixin_config = {name: value for name, value in stored.items() if name != "pretrained"}

    @classmethod
    def _made(cls, arguments: Mapping[str, Any], file: Path, elements: int, given: Collection[str]) -> Self:
        token = _READING.set((file, given))
        try:
            with making(FOLDER, file, elements):
                return super()._made(arguments, file, elements, given)
        finally:
            _READING.reset(token)

    def forward(self, images: Tensor) -> Tensor:
        """The output of the timm model."""
        output: Tensor = self.model(images)
        return output

    def _subject(self) -> str:
        return f"timm's `{self.model_name}`: {super()._subject()}"

    def _pipeline_tag(self) -> str:
        return "image-classification" if getattr(self.model, "num_classes", 0) else "image-feature-extraction"


def _plain(conversion: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `convert` as JSON holds them; others are refused."""
    found = {}
    for name, value in conversion.items():
        if name not in _CONVERSION:
            raise ValueError(
                f"conversion: expected arguments of torchdcls.convert, got {name!r}; {nearest(name, _CONVERSION)}"
            )
        try:
            found[name] = encoded(value)
        except TypeError:
            raise ValueError(
                f"conversion: expected plain values, which JSON can hold, got {name} of type {type(value).__name__}; "
                "write a class of your own with DclsHubMixin that makes it in __init__"
            ) from None
    return found


def _converted(model: nn.Module, conversion: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a model, and returns the arguments that make its layers again."""
    where = conversion.get("where")
    patterns = [where] if isinstance(where, str) else where
    if patterns is not None:
        where = lambda name, module: any(fnmatch(name, pattern) for pattern in patterns)  # noqa: E731
    report = convert(model, **{**conversion, "where": where})
    # The file has weights: nothing has to be fitted to others when it is read.
    stored = {name: value for name, value in conversion.items() if name not in ("init", "weight_std")}
    return {**stored, "kernel_count": report.kernel_count}
