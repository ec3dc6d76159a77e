"""Packages that come with an extra, and one sentence about those that are missing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Extra = Literal["train", "data", "export", "delays"]

# The extras of pyproject.toml, by the names under which their packages are imported.
EXTRAS: Mapping[Extra, Sequence[str]] = {
    "train": (
        *("PIL", "huggingface_hub", "jsonargparse", "matplotlib", "numpy", "rich", "safetensors", "scipy", "timm"),
        *("torchvision", "yaml"),
    ),
    "data": ("datasets", "webdataset"),
    "export": ("onnx", "onnxruntime", "onnxscript", "safetensors"),
    "delays": ("nir", "pyarrow"),
}


class MissingExtraError(ModuleNotFoundError):
    """Packages of an extra are missing; the message names them and the command that installs them."""


def require(what: str, extra: Extra, *others: str) -> None:
    """Raises a `MissingExtraError` that begins with `what` if a package of the extra is missing; imports none of them.

    `others` are packages of this distribution, whose parts may be installed apart.
    """
    if missing := [name for name in (*EXTRAS[extra], *others) if not _is_there(name)]:
        raise _error(what, extra, missing)


@contextmanager
def needed_by(what: str, extra: Extra) -> Iterator[None]:
    """Around imports of some packages of an extra: a `MissingExtraError` that begins with `what` if one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if isinstance(error, MissingExtraError) or not package or _is_there(package):
            raise
        raise _error(what, extra, [package]) from None


def install_command(extra: Extra) -> str:
    """The command that installs an extra of this package, from the checkout if it is one."""
    root = Path(__file__).parents[2]
    if (root / "pyproject.toml").is_file():
        return f'pip install -e "{root}[{extra}]"'
    return f'pip install "{__package__}[{extra}]"'


def _error(what: str, extra: Extra, missing: Iterable[str]) -> MissingExtraError:
    names = list(missing)
    are = "is" if len(names) == 1 else "are"
    return MissingExtraError(
        f"{what} needs the packages of the {extra} extra ({', '.join(names)} {are} missing): {install_command(extra)}",
        name=names[0],
    )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: something else is in sys.modules under this name
        return False
