"""What is done to an image before a model sees it, by timm's transforms."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from ..settings import TrainConfig


class Preparation(NamedTuple):
    """How a model's images are prepared: mean and deviation of channels, interpolation, share of the central crop."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float


def preparation(model: nn.Module) -> Preparation:
    """How images are prepared for one of timm's models."""
    found = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    return Preparation(found["mean"], found["std"], found["interpolation"], found["crop_pct"])


def training_transform(config: TrainConfig, expected: Preparation) -> Callable[[Image.Image], Tensor]:
    """Random crop, mirroring, color or a policy, normalization, and erasing.

    Returns:
        A function of an RGB image to (3, image_size, image_size) float32. It draws from the generators of Python, NumPy
        and torch.

    Raises:
        ValueError: timm does not know the policy `auto_augment`.
    """
    try:
        transform = _transform(
            input_size=config.image_size,
            is_training=True,
            scale=config.scale,
            ratio=config.ratio,
            hflip=config.hflip,
            color_jitter=config.color_jitter,
            auto_augment=config.auto_augment,
            interpolation=expected.interpolation,
            mean=tuple(expected.mean),
            std=tuple(expected.std),
            re_prob=config.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:
        if config.auto_augment is None:
            raise
        raise ValueError(
            f"auto_augment: expected a policy that timm knows, such as rand-m9-mstd0.5-inc1, "
            f"got '{config.auto_augment}' ({type(error).__name__}: {error})"
        ) from None
    _keep_a_bit_(transform)
    return transform


def validation_transform(config: TrainConfig, expected: Preparation) -> Callable[[Image.Image], Tensor]:
    """Resizing, the central crop, and normalization of an RGB image to (3, image_size, image_size) float32."""
    return _transform(
        input_size=config.image_size,
        is_training=False,
        interpolation=expected.interpolation,
        mean=tuple(expected.mean),
        std=tuple(expected.std),
        crop_pct=expected.crop_pct if config.crop_pct is None else config.crop_pct,
    )


def _keep_a_bit_(transform: Any) -> None:
    # At their strongest timm's policies keep none of a color's bits, a black image, which Pillow 13 refuses.
    for step in transform.transforms:
        policies = [getattr(step, "ops", []), *getattr(step, "policy", [])]
        for operation in (operation for policy in policies for operation in policy):
            if operation.name.startswith("Posterize"):
                operation.level_fn = partial(_at_least_a_bit, operation.level_fn)


def _at_least_a_bit(level_fn: Callable[[float, Any], tuple[int]], level: float, settings: Any) -> tuple[int]:
    (bits,) = level_fn(level, settings)
    return (max(bits, 1),)


def _transform(**settings: Any) -> Callable[[Image.Image], Tensor]:
    transform: Callable[[Image.Image], Tensor] = create_transform(**settings)
    return transform
