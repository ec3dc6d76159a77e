"""Models of timm and torchvision by their names, with or without weights."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from .._checks import nearest
from .registered import twin

_TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class Named:
    """A model and what is known of it by its name.

    Attributes:
        name: timm's, or torchvision's behind "torchvision:".
        model: In evaluation mode, with random weights or none.
        input_size: Channels, height and width that it is made for.
        twin: For a registered DCLS model the name of the model of timm with dense kernels, else None.
    """

    name: str
    model: nn.Module
    input_size: tuple[int, int, int]
    twin: str | None


def named_model(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, weights: bool = True
) -> Named:
    """A model of timm, DCLS models included, or of torchvision.

    Args:
        name: timm's name; or torchvision's, behind "torchvision:" where timm has one of the same name.
        num_classes: None for the model's own.
        image_size: Height and width of images, for models whose weights depend on it. None for the model's own.
        weights: Whether to draw weights; else the model is on the meta device, unless it can only be made with them.

    Raises:
        ValueError: Neither has such a model, or it does not take these arguments.
    """
    _find(name)
    if not weights:
        # Some compute with tensors while they are made.
        with suppress(RuntimeError, NotImplementedError), torch.device("meta"):
            return _make(name, num_classes, image_size)
    return _make(name, num_classes, image_size)


def timm_model(
    name: str, *, num_classes: int | None = None, pretrained: bool = False, model_args: Mapping[str, Any] | None = None
) -> nn.Module:
    """A model of timm, DCLS models included.

    Args:
        name: timm's name.
        num_classes: None for the model's own.
        pretrained: Whether to fetch its weights.
        model_args: What else it is made with.

    Raises:
        ValueError: timm has no such model, or it does not take these arguments.
    """
    if not timm.is_model(name):
        raise ValueError(
            f"model_name: expected a name that timm knows, got {name!r}; {nearest(name, timm.list_models())}"
        )
    arguments = dict(model_args or {})
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:
        raise ValueError(f"model_args: {name} does not take {arguments} ({error})") from None
    return model


def _find(name: str) -> None:
    torchvision = _torchvision()
    known = torchvision.list_models() if torchvision is not None else []
    if name.startswith(_TORCHVISION):
        plain = name.removeprefix(_TORCHVISION)
        if torchvision is None:
            raise ValueError(f"model: {name!r} needs torchvision: pip install torchvision")
        if plain not in known:
            raise ValueError(
                f"model: expected a name that torchvision knows behind {_TORCHVISION!r}, got {plain!r}; "
                + nearest(plain, known)
            )
    elif not timm.is_model(name) and name not in known:
        raise ValueError(
            f"model: expected a name that timm or torchvision knows, got {name!r}; "
            + nearest(name, [*timm.list_models(), *known, *(_TORCHVISION + plain for plain in known)])
        )


def _make(name: str, num_classes: int | None, image_size: int | None) -> Named:
    if timm.is_model(name) and not name.startswith(_TORCHVISION):
        return _of_timm(name, num_classes, image_size)
    plain = name.removeprefix(_TORCHVISION)
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    torchvision: Any = _torchvision()
    if image_size is not None and "image_size" in _parameters(torchvision.get_model_builder(plain)):
        arguments["image_size"] = image_size
    try:
        model: nn.Module = torchvision.get_model(
            plain, weights=None, **_without_weights(torchvision, plain), **arguments
        )
    except TypeError as error:
        raise ValueError(f"model: {plain} of torchvision does not take {arguments} ({error})") from None
    size = image_size or {"inception_v3": 299}.get(plain, 224)
    return Named(f"{_TORCHVISION}{plain}", model.eval(), (3, size, size), None)


def _of_timm(name: str, num_classes: int | None, image_size: int | None) -> Named:
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        model: nn.Module = timm.create_model(name, **arguments)
        cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        if image_size is not None and cfg.get("fixed_input_size"):
            model = timm.create_model(name, img_size=image_size, **arguments)
    except TypeError as error:
        raise ValueError(f"model: {name} of timm does not take {arguments} ({error})") from None
    channels, height, width = cfg.get("input_size") or (3, 224, 224)
    if image_size is not None:
        height = width = image_size
    return Named(name, model.eval(), (channels, height, width), twin(name))


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ImportError:
        return None


def _parameters(builder: Any) -> set[str]:
    import inspect

    return set(inspect.signature(builder).parameters)


def _without_weights(torchvision: Any, name: str) -> dict[str, None]:
    """Segmentation and detection models fetch weights of their backbone unless they are told not to."""
    return {"weights_backbone": None} if "weights_backbone" in _parameters(torchvision.get_model_builder(name)) else {}
