"""The weights that a new run begins with: those of a checkpoint, of an exported file, or of a plain state dict."""

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from torchdcls._checks import first_names
from torchdcls.conversion import files, official
from torchdcls.conversion.report import mismatch
from torchdcls.deployment import load
from torchdcls.models.official import load_official

from .checkpoint import file_format, tensor_names
from .trained_model import read_trained


class _Found(NamedTuple):
    """A state dict, what it is in words, and the model and classes that it is of, where the file tells."""

    state: MutableMapping[str, Tensor]
    what: str
    model: str | None = None
    classes: Sequence[str] | None = None


def load_initial_(model: nn.Module, source: str, *, reset_head: bool, classes: Sequence[str] | None) -> str:
    """Sets the weights of a new model to those of a file; nothing in the file is run.

    Args:
        model: One of timm's, whose classifier `reset_head` is about.
        source: A file or an address: a checkpoint of a run, of which the weights are taken that `taken_part` says; a
            file of `torchdcls export --to safetensors`; or a state dict in a file of safetensors or torch.
        reset_head: Leave the classifier as it was drawn.
        classes: Names of the classes, if they are known.

    Returns:
        What was loaded and what was not, in a sentence.

    Raises:
        ValueError: The file cannot be read, or is of another model.
    """
    try:
        path = files.fetched(source)
        found = _read(path)
    except ValueError as error:
        # The readers name arguments of their own.
        name, colon, rest = str(error).partition(": ")
        raise ValueError(f"initial_checkpoint: {rest if colon and name.isidentifier() else error}") from None
    head = _classifier(model) if reset_head else ()
    names = tensor_names(model)
    kept = {name: tensor for name, tensor in found.state.items() if not _within(name, head)}
    wanted = [shared for shared in names if not _within(shared[0], head)]
    own = model.state_dict()
    missing = [shared[0] for shared in wanted if kept.keys().isdisjoint(shared)]
    foreign = sorted(kept.keys() - own.keys())
    other = [name for name in kept if name in own and kept[name].shape != own[name].shape]
    if differences := mismatch(missing, foreign, other):
        head = _classifier(model, strict=False)
        if all(_within(name, head) for name in (*missing, *foreign, *other)):
            raise ValueError(
                f"initial_checkpoint: expected as many classes as the data have, got '{path}' with a classifier for "
                f"others ({differences}); --reset-head draws a new one"
            )
        of = "" if found.model is None else f", which is of {found.model}"
        raise ValueError(
            f"initial_checkpoint: expected weights of this model, got '{path}'{of} ({differences}); give the --model "
            "and --model-args that the weights are of"
        )
    for name in found.state.keys() - kept.keys():
        del found.state[name]  # which says of itself by which version of layers it was made, as no copy does
    try:
        model.load_state_dict(found.state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"initial_checkpoint: '{path}' is of another model ({' '.join(str(error).split())})") from None
    new = [shared[0] for shared in names if shared not in wanted]
    text = f"weights of '{path}' ({found.what}): {len(wanted)} of the model's {len(names)} tensors are loaded"
    if new:
        text += f", new are {first_names(new)}"
    if not reset_head and found.classes is not None and classes is not None and list(found.classes) != list(classes):
        text += "; note: the classes have other names than in that run, --reset-head draws a new classifier"
    return text


def _read(path: Path) -> _Found:
    kind = file_format(path)
    if kind.startswith("torchdcls checkpoint"):
        trained = read_trained(path, "auto")
        return _Found(trained.model.state_dict(), str(trained.taken), trained.run.model, trained.classes)
    if kind.startswith("torchdcls model"):
        return _Found(load(path).state_dict(), "an exported model")
    content = files.read(path)
    if official.official_state_dict(content) is not None:
        return _Found(load_official(path).state_dict(), "a model of the package DCLS")
    part_name, state = official.plain_state_dict(content)
    if not state:
        raise ValueError(f"path: expected a file with a state dict, got '{path}', which has no tensors with names")
    return _Found(state, "a state dict" if part_name is None else f"its {part_name}")


def _classifier(model: nn.Module, strict: bool = True) -> tuple[str, ...]:
    """Names of the layers that give the classes' scores."""
    settings: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    named = settings.get("classifier") or ()
    if not named and strict:
        raise ValueError(
            f"reset_head: expected a model that says which layer is its classifier, got {type(model).__name__}"
        )
    return (named,) if isinstance(named, str) else tuple(named)


def _within(name: str, layers: Sequence[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)
