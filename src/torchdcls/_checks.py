"""Argument checks of all rooms. Every error names the argument, what was expected and what came."""

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any, Literal, ParamSpec, SupportsFloat, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor, nn

from .profiles import PROFILES, Interpolation, Profile

# The interpolations of the PyPI package DCLS by `version`, for hints in error messages and for its checkpoints.
DCLS_NAMES: dict[str, Interpolation] = {"v0": "bilinear", "v1": "bilinear", "max": "triangle", "gauss": "gaussian"}

# Arguments of torch's convolutions and of the PyPI package DCLS that have another name here.
FOREIGN = {
    "dilation": "expected no such argument: positions replace it, and the size of the kernel is dilated_kernel_size",
    "kernel_size": "expected kernel_count, the number of elements, and dilated_kernel_size, the size of the kernel",
    "version": "expected interpolation",
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_SUPPORTED = f"{', '.join(map(str, _DTYPES))} are supported"

# What can be iterated over and is no list of sizes.
_NO_LIST = (str, bytes, Mapping)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class WrongTypeError(TypeError, ValueError):
    """An argument of a wrong type. It is also a ValueError, for code that reports any refused argument."""


def integer(name: str, value: object, minimum: int) -> int:
    """`value` as an int of at least `minimum`. NaN, fractions and booleans are refused."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongTypeError(f"{name}: expected an integer of at least {minimum}, got {value!r}")
    number = value if isinstance(value, int) else float(value)
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(f"{name}: expected an integer of at least {minimum}, got {value!r}")
    if number < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value!r}")
    return int(number)


def number(name: str, value: object) -> None:
    """Refuses anything but a real number or a tensor of one."""
    many = isinstance(value, Tensor) and value.numel() != 1
    if many or isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise WrongTypeError(f"{name}: expected a number, got {_kind(value)}")


def at_least_0(name: str, value: object) -> float:
    """`value` as a finite float of at least 0."""
    number(name, value)
    found = float(value)  # type: ignore[arg-type]  # a number, as was checked
    if not 0 <= found < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return found


def share(name: str, value: object) -> float:
    """`value` as a float from 0 to below 1."""
    if (found := at_least_0(name, value)) >= 1:
        raise ValueError(f"{name}: expected a number from 0 to below 1, got {value!r}")
    return found


def settings(config: Any, check: Callable[[str, object], object], *names: str) -> None:
    """Checks settings of a dataclass, each by its name; None passes if the type allows it."""
    types = get_type_hints(type(config))
    for name in names:
        value = getattr(config, name)
        if value is not None or NoneType not in get_args(types[name]):
            check(name, value)


def count(name: str, value: object) -> int:
    """`value` as an int of at least 1."""
    return integer(name, value, 1)


def integers(name: str, value: object, count: int, minimum: int) -> tuple[int, ...]:
    """One integer for all axes, or one for each of `count` axes, as a tuple of `count`."""
    if isinstance(value, Iterable) and not isinstance(value, _NO_LIST):
        values = tuple(value)
        if len(values) != count:
            raise ValueError(f"{name}: expected one integer or {count} of them, one per axis, got {values!r}")
        return tuple(integer(f"{name}[{axis}]", entry, minimum) for axis, entry in enumerate(values))
    return (integer(name, value, minimum),) * count


def kernel_size(value: object, dims: int, learned_dims: Sequence[int], kernel_count: int) -> tuple[int, ...]:
    """Dense sizes, one per axis, that have room for more than one element."""
    sizes = integers("dilated_kernel_size", value, dims, 1)
    if kernel_count > 1 and all(sizes[dim] == 1 for dim in learned_dims):
        raise ValueError(
            f"dilated_kernel_size: expected more than 1 along a learned axis, got {sizes} for {kernel_count} elements, "
            "which would all sit on one cell; it is what torch calls the kernel size"
        )
    return sizes


def of_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Refuses other types than `kind`; `expected` says what the value should be."""
    if not isinstance(value, kind):
        raise WrongTypeError(f"{name}: expected {expected}, got {_kind(value)}")


def path(value: object) -> Path:
    """The path of a file, by its name or itself."""
    if not isinstance(value, str | os.PathLike):
        raise WrongTypeError(f"path: expected the name of a file, got {_kind(value)}")
    return Path(value)


def flags(**values: object) -> None:
    """Refuses anything but True or False."""
    for name, value in values.items():
        of_type(name, value, bool, "True or False")


def device(value: torch.device | str) -> torch.device:
    """A device, by its name or itself."""
    try:
        return torch.device(value)
    except (RuntimeError, TypeError):
        wrong = ValueError if isinstance(value, str) else WrongTypeError
        raise wrong(f"device: expected a torch.device or the name of one, such as 'cuda', got {value!r}") from None


def dtype(value: torch.dtype) -> torch.dtype:
    """A dtype for weights."""
    if value not in _DTYPES:
        wrong = ValueError if isinstance(value, torch.dtype) else WrongTypeError
        raise wrong(f"dtype: expected a floating-point dtype, got {value!r}; {_SUPPORTED}")
    return value


def channels(groups: object, **counts: object) -> None:
    """Refuses channel counts that are not integers or not divisible by the groups."""
    group_count = integer("groups", groups, 1)
    for name, value in counts.items():
        if integer(name, value, 1) % group_count:
            raise ValueError(f"{name}: expected a multiple of groups={group_count}, got {value}")


def axes(learned_dims: Sequence[int] | None, dims: int) -> tuple[int, ...]:
    """The axes along which positions are learned, ascending; all of them for None."""
    if learned_dims is None:
        return tuple(range(dims))
    expected = f"learned_dims: expected a tuple of different spatial axes out of {tuple(range(dims))}, such as (0,)"
    if not isinstance(learned_dims, Iterable) or isinstance(learned_dims, _NO_LIST):
        raise WrongTypeError(f"{expected}, got {learned_dims!r}")
    chosen = tuple(sorted(integer("learned_dims", dim, 0) for dim in learned_dims))
    if not chosen or len(set(chosen)) != len(chosen) or chosen[-1] >= dims:
        raise ValueError(f"{expected}, got {learned_dims!r}")
    return chosen


def profile(interpolation: Interpolation | Profile) -> Profile:
    """The profile of this name, or the profile itself."""
    if isinstance(interpolation, Profile):
        return interpolation
    expected = f"interpolation: expected {', '.join(map(repr, PROFILES))} or a torchdcls.Profile, got {interpolation!r}"
    if not isinstance(interpolation, str):
        raise WrongTypeError(expected)
    if interpolation in PROFILES:
        return PROFILES[interpolation]
    theirs = DCLS_NAMES.get(interpolation)
    raise ValueError(expected + (f" (DCLS's {interpolation!r} is {theirs!r} here)" if theirs is not None else ""))


def hint_for(name: str, value: object) -> str:
    """What to pass instead of an argument of torch or of DCLS."""
    hint = FOREIGN[name]
    if name == "version":
        hint += f"={DCLS_NAMES[value]!r}" if isinstance(value, str) and value in DCLS_NAMES else ""
    return f"{name}: {hint}, got {name}={value!r}"


def with_hints(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The same function, with a TypeError that names the argument to pass instead of one of torch's or DCLS's."""

    @functools.wraps(function)
    def hinting(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        for name in FOREIGN:
            if name in kwargs:
                raise TypeError(hint_for(name, kwargs[name]))
        return function(*args, **kwargs)

    return hinting


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an error message: the known words that are most similar to a wrong one, at most three.

    Also similar are words that begin with it, and its initials. Leading dashes do not count.

    Example:
        >>> from torchdcls._checks import nearest
        >>> nearest("warmup-epoch", ["lr", "epochs", "warmup_epochs"])
        "did you mean 'warmup_epochs'?"
        >>> nearest("vit", ["lr", "epochs"])
        'no name is similar'
    """
    scores = {name: _resemblance(_plain(word), _plain(name)) for name in known}
    best = max(scores.values(), default=0.0)
    if best < _SIMILAR:
        return _NONE
    found = sorted((name for name, score in scores.items() if score == best), key=len)
    return f"did you mean {alternatives(found[:_SHOWN])}?"


def also_nearest(value: object, known: Iterable[str]) -> str:
    """The hint at the end of a message that lists all known words: empty if none is similar."""
    hint = nearest(value, known) if isinstance(value, str) else _NONE
    return "" if hint == _NONE else f"; {hint}"


_NONE = "no name is similar"
# The least similarity of a suggestion, and the weight of the other kinds of similarity.
_SIMILAR, _BEGINS, _INITIALS = 0.6, 0.9, 0.8
_SHOWN = 3


def _plain(word: str) -> str:
    return word.lower().lstrip("-").replace("-", "_")


def _resemblance(asked: str, name: str) -> float:
    initials = "".join(part[0] for part in asked.split("_") if part) if "_" in asked else None
    whole, begins = (difflib.SequenceMatcher(None, asked, part).ratio() for part in (name, name[: len(asked)]))
    return max(whole, _BEGINS * begins if asked else 0.0, _INITIALS if name == initials else 0.0)


def first_names(names: Sequence[str]) -> str:
    """The first few names of a list, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def first_line(error: BaseException) -> str:
    """The first line of an error, or its type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def alternatives(words: Iterable[object]) -> str:
    """Words in quotes as a list with "or"."""
    *most, last = map(repr, words)
    return f"{', '.join(most)} or {last}" if most else last


def element_count(value: object) -> int | Literal["iso"]:
    """`kernel_count` of a conversion: an integer, or "iso"."""
    if isinstance(value, str):
        if value != "iso":
            raise ValueError(
                f"kernel_count: expected an integer or 'iso', got {value!r}{also_nearest(value, ('iso',))}"
            )
        return "iso"
    return integer("kernel_count", value, 1)


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuses a value that is not among the choices."""
    if value not in choices:
        wrong = ValueError if isinstance(value, str) else WrongTypeError
        hint = also_nearest(value, choices)
        raise wrong(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def module(name: str, value: object) -> None:
    """Refuses anything but a torch.nn.Module."""
    if isinstance(value, nn.Module):
        return
    advice = ""
    if isinstance(value, str):
        advice = "; make the model first, for example by timm.create_model"
    elif isinstance(value, list | tuple) and any(isinstance(entry, nn.Module) for entry in value):
        advice = "; put the modules into a torch.nn.ModuleList"
    raise WrongTypeError(f"{name}: expected a torch.nn.Module, got {_kind(value)}{advice}")


def tensors(*, optional: Sequence[str] = (), **values: object) -> None:
    """Refuses anything but a torch.Tensor, or None for the optional ones."""
    for name, value in values.items():
        if value is not None or name not in optional:
            tensor(name, value)


def tensor(name: str, value: object) -> None:
    """Refuses anything but a torch.Tensor."""
    if not isinstance(value, Tensor):
        advice = "; torch.from_numpy makes a tensor of it" if type(value).__module__ == "numpy" else ""
        raise WrongTypeError(f"{name}: expected a torch.Tensor, got {_kind(value)}{advice}")


def _kind(value: object) -> str:
    kind = type(value)
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def axis_count(name: str, value: Tensor, count: int) -> None:
    """Refuses tensors of another number of axes."""
    tensor(name, value)
    if value.dim() != count:
        raise ValueError(f"{name}: expected {count} axes, got shape {tuple(value.shape)}")


def elements(
    weight: Tensor, position: Tensor, sigma: Tensor | None, learned: int, dense_sizes: tuple[int, ...], profile: Profile
) -> None:
    """Refuses elements that are not real numbers, or do not fit each other, the dense axes or the interpolation."""
    for name, value in (("weight", weight), ("position", position), ("sigma", sigma)):
        if value is not None and value.dtype not in _DTYPES:
            raise ValueError(f"{name}: expected a floating-point tensor, got {value.dtype}; {_SUPPORTED}")
    if weight.dim() != 3 + len(dense_sizes) or tuple(weight.shape[2:-1]) != dense_sizes:
        dense = "".join(f", {size}" for size in dense_sizes)
        raise ValueError(
            f"weight: expected shape (out_channels, in_channels/groups{dense}, kernel_count), got {tuple(weight.shape)}"
        )
    expected = (learned, *weight.shape)
    if tuple(position.shape) != expected:
        raise ValueError(f"position: expected shape (axes, *weight.shape) = {expected}, got {tuple(position.shape)}")
    if profile.start is None:
        if sigma is not None:
            raise ValueError(f"sigma: expected None, as {profile.name} interpolation has none, got a tensor")
    elif sigma is None:
        raise ValueError(f"sigma: expected a tensor of shape {expected} for {profile.name} interpolation, got None")
    elif tuple(sigma.shape) != expected:
        raise ValueError(f"sigma: expected the shape of position, {expected}, got {tuple(sigma.shape)}")
