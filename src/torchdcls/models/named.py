"""Models of timm and torchvision by their names, with or without weights."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from .._checks import nearest
from .registered import twin

_TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class Named:
    """A model and what is known about it by its name.

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
        weights: Whether to draw weights; without them the model is on the meta device, if it can be made there.

    Raises:
        ValueError: Neither has such a model, or it does not take these arguments.
    """
    from torchvision.models import list_models

    plain = name.removeprefix(_TORCHVISION)
    known = list_models()
    if plain == name and timm.is_model(name):
        make = partial(_of_timm, name, num_classes, image_size)
    elif plain in known:
        make = partial(_of_torchvision, plain, num_classes, image_size)
    elif plain == name:
        raise ValueError(
            f"model: expected a name that timm or torchvision knows, got {name!r}; "
            + nearest(name, [*timm.list_models(), *known, *(_TORCHVISION + plain for plain in known)])
        )
    else:
        raise ValueError(
            f"model: expected a model of torchvision after {_TORCHVISION!r}, got {plain!r}; {nearest(plain, known)}"
        )
    if not weights:
        # Some compute with tensors while they are made; errors of others come below.
        with suppress(RuntimeError, ValueError), torch.device("meta"):
            return make()
    return make()


def timm_model(
    name: str,
    *,
    num_classes: int | None = None,
    drop_path_rate: float | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    called: str = "model_name",
) -> nn.Module:
    """A model of timm, DCLS models included.

    Args:
        name: timm's name.
        num_classes, drop_path_rate: None for the model's own.
        pretrained: Whether to download its weights.
        model_args: Other arguments of the model.
        called: The caller's name for `name`, for messages.

    Raises:
        ValueError: timm has no such model, or it does not take these arguments.
    """
    if not timm.is_model(name):
        raise ValueError(
            f"{called}: expected a name that timm knows, got {name!r}; {nearest(name, timm.list_models())}"
        )
    own = dict(model_args or {})
    # Not all models know these.
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    rate: dict[str, Any] = {} if drop_path_rate is None else {"drop_path_rate": drop_path_rate}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **classes, **rate, **own)
    except (TypeError, AttributeError, LookupError, AssertionError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not own:
            raise
        raise ValueError(f"model_args: {name} does not take {rate | own} ({error})") from None
    return model


def _of_torchvision(name: str, num_classes: int | None, image_size: int | None) -> Named:
    from torchvision.models import get_model, get_model_builder

    taken = inspect.signature(get_model_builder(name)).parameters
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if image_size is not None and "image_size" in taken:
        arguments["image_size"] = image_size
    # Segmentation and detection models fetch weights of their backbone unless they are told not to.
    weights = {"weights": None, **({"weights_backbone": None} if "weights_backbone" in taken else {})}
    try:
        model: nn.Module = get_model(name, **weights, **arguments)
    except TypeError as error:
        raise ValueError(f"model: {name} of torchvision does not take {arguments} ({error})") from None
    size = image_size or {"inception_v3": 299}.get(name, 224)
    return Named(f"{_TORCHVISION}{name}", model.eval(), (3, size, size), None)


def _of_timm(name: str, num_classes: int | None, image_size: int | None) -> Named:
    model = timm_model(name, num_classes=num_classes)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    if image_size is not None and cfg.get("fixed_input_size"):
        model = timm_model(name, num_classes=num_classes, model_args={"img_size": image_size})
    channels, height, width = cfg.get("input_size") or (3, 224, 224)
    return Named(name, model.eval(), (channels, image_size or height, image_size or width), twin(name))
