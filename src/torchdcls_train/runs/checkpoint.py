"""Checkpoints: one safetensors file each, with the settings and the place in the run as text inside.

Nothing is unpickled. A file is written under another name, synced, and renamed, so that a name always holds a whole
one. A checksum of all that is in it shows damage. Tensors come back in the memory format that they had: sums of the
same numbers in another order differ in the last bit.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from torchdcls.conversion.report import mismatch

from .writer import write_whole

_FORMAT = "torchdcls checkpoint 1"
# What stands for values that JSON lacks.
_TENSOR, _TUPLE, _DTYPE = "tensor", "tuple", "dtype"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    tensors: Mapping[str, Tensor]  # by name: "model.", "ema." or "optimizer.", and what they belong to
    about: Mapping[str, Any]  # settings, place in the run, and what else was saved as text

    def has(self, part: str) -> bool:
        """Whether there is a "model", an "ema" or an "optimizer" in it."""
        return any(name.startswith(f"{part}.") for name in self.tensors)

    def load_weights(self, model: nn.Module, part: str = "model") -> None:
        """Sets the weights of a model.

        Raises:
            ValueError: They are those of another model.
        """
        stored = {name.removeprefix(f"{part}."): t for name, t in self.tensors.items() if name.startswith(f"{part}.")}
        own = weights(model)
        missing, foreign = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
        other = [name for name in sorted(own.keys() & stored.keys()) if own[name].shape != stored[name].shape]
        if differences := mismatch(missing, foreign, other):
            raise ValueError(
                f"checkpoint: '{self.path}' is of another model ({differences}); "
                f"it was made with model {self.about.get('config', {}).get('model')!r}"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[name])

    def load_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Sets the state of an optimizer.

        Raises:
            ValueError: It has no such state, or one of other parameters.
        """
        state = self.about.get("optimizer")
        if state is None:
            raise ValueError(
                f"checkpoint: '{self.path}' holds weights alone, from which a run cannot resume; take "
                "last.safetensors, or begin a new run with them by --initial-checkpoint"
            )
        try:
            restored = _joined(state, self.tensors)
            restored["state"] = {int(index): values for index, values in restored["state"].items()}
            optimizer.load_state_dict(restored)
        except (ValueError, KeyError) as error:
            raise ValueError(f"checkpoint: '{self.path}' is of another optimizer ({error})") from None


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name; those that several layers share once, under their first name."""
    state = model.state_dict(keep_vars=True)
    return {names[0]: state[names[0]].detach() for names in tensor_names(model)}


def tensor_names(model: nn.Module) -> list[list[str]]:
    """The names of each tensor of a state dict; those that layers share have several."""
    found: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), []).append(name)
    return list(found.values())


def save_checkpoint(
    path: Path,
    about: Mapping[str, Any],
    *,
    model: nn.Module | None = None,
    ema: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    previous: Path | None = None,
) -> None:
    """Writes a checkpoint; the file of this name is the old one or the new one, never half of one.

    Args:
        path: The file.
        about: What to save as text: numbers, strings, lists and mappings.
        model: Whose weights to save.
        ema: Whose weights to save as averaged ones.
        optimizer: Whose state to save.
        previous: Where the old file of this name goes once the new one is complete.

    Raises:
        OSError: It cannot be written; the old file is still there.
    """
    tensors: dict[str, Tensor] = {}
    for part, module in (("model", model), ("ema", ema)):
        if module is not None:
            tensors.update({f"{part}.{name}": tensor for name, tensor in weights(module).items()})
    text = dict(about)
    if optimizer is not None:
        text["optimizer"] = _split(optimizer.state_dict(), "optimizer", tensors)
    # safetensors does not keep strides.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    strides = {name: torch.empty_like(tensor, device="meta").stride() for name, tensor in tensors.items()}
    strides = {name: stride for name, stride in strides.items() if stride != plain[name].stride()}
    metadata = {"format": _FORMAT, "about": json.dumps(text), "strides": json.dumps(strides)}
    metadata["checksum"] = _checksum(metadata, plain)
    write_whole(path, lambda unfinished: save_file(plain, unfinished, metadata), previous)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint, its tensors onto the CPU.

    Raises:
        ValueError: The file is missing, cut short, damaged, or not a checkpoint of torchdcls.
    """
    path = Path(path)
    if not path.is_file():
        came = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"checkpoint: expected a file, got '{path}', which {came}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint: '{path}' cannot be read ({error}); it is cut short, broken, or no safetensors file "
            f"(pickled files of torch are not read); take {_others(path)}"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"checkpoint: expected one of torchdcls train ({_FORMAT!r}), got '{path}' with "
            f"{len(tensors)} tensors and format {metadata.get('format')!r}"
        )
    try:
        # Files from before there were checksums have none.
        if metadata.get("checksum", "") not in ("", _checksum(metadata, tensors)):
            raise ValueError("its checksum is another")
        strides = json.loads(metadata.get("strides", "{}"))
        tensors.update({name: _laid(tensors[name], stride) for name, stride in strides.items()})
        return Checkpoint(path, tensors, json.loads(metadata["about"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint: '{path}' is damaged ({error}); take {_others(path)}") from None


def file_format(path: Path) -> str:
    """What a safetensors file says that its format is; empty where it says nothing, and for other files."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("format", ""))
    except (SafetensorError, OSError):
        return ""


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A tree that JSON can hold: tensors are put into `tensors`, their names into the tree."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {str(key): _split(entry, f"{name}.{key}", tensors) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        entries = [_split(entry, f"{name}.{index}", tensors) for index, entry in enumerate(value)]
        return {_TUPLE: entries} if isinstance(value, tuple) else entries
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    return value


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if value.keys() == {_TUPLE}:
            return tuple(_joined(entry, tensors) for entry in value[_TUPLE])
        if value.keys() == {_DTYPE}:
            dtype = getattr(torch, value[_DTYPE], None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"expected a dtype of torch, got {value[_DTYPE]!r}")
            return dtype
        return {key: _joined(entry, tensors) for key, entry in value.items()}
    if isinstance(value, list):
        return [_joined(entry, tensors) for entry in value]
    return value


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of everything that a checkpoint says: its text, and names, dtypes, shapes and bytes of its tensors."""
    digest = hashlib.sha256()
    for key in sorted(metadata.keys() - {"checksum"}):
        digest.update(f"{key} {metadata[key]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _laid(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    """The tensor with its numbers in another order in memory, without gaps, whatever a file asks for."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, stride, strict=True))
    if min(stride, default=0) < 0 or last + 1 != tensor.numel():
        raise ValueError(f"strides {tuple(stride)} of a tensor of {tuple(tensor.shape)}")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _others(path: Path) -> str:
    names = [f"'{other}'" for other in sorted(path.parent.glob("*.safetensors")) if other != path]
    return ", or ".join(["a copy of it", *names])
