"""Weights in a safetensors file, with the configuration from which the model is made again. Nothing is unpickled."""

import ctypes
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import _checks
from .._extras import needed_by
from ..conversion.report import mismatch
from ..nn import DclsLayer
from .configuration import FORMAT, Configuration
from .copies import copied
from .errors import ExportError

_CHECKSUM = "checksum"


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Loads the model of a safetensors file that `export` wrote.

    Args:
        path: The file.
        model: A model whose weights to set, in place. Needed if the file's model is not timm's, and the file does not
            say how to make it.

    Returns:
        `model`, or a new model on the CPU in evaluation mode. Its DCLS layers can be trained further.

    Raises:
        ValueError: The file is missing, cut short, of another program, or of another model.
    """
    if model is not None:
        _checks.module("model", model)
    stored = _read(_checks.path(path))
    if model is None:
        model = stored.made().eval()
    stored.set_(model)
    return model


def write_weights(model: nn.Module, path: Path, configuration: Configuration) -> None:
    """Writes weights, those that several layers share once, and reads them again.

    Raises:
        ExportError: The file gives another model, because the configuration is not the model's.
    """
    with needed_by("a safetensors file", "export"):
        from safetensors import SafetensorError
        from safetensors.torch import save_file

    foreign = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if foreign:
        raise ExportError(f"model: expected tensors alone in its state_dict, got {foreign[0]!r} too")
    first: dict[int, str] = {}
    shared, tensors = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        key = first.setdefault(id(tensor), name)
        if key == name:
            # A copy: safetensors takes neither other memory formats nor memory that tensors share.
            tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        else:
            shared[name] = key
    metadata = {
        "format": FORMAT,
        "about": configuration.to_text(),
        "shared": json.dumps(shared),
        "kernels": json.dumps(_kernels(model)),
    }
    metadata[_CHECKSUM] = _checksum(tensors, metadata)
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"'{path.name}' cannot be written ({error})") from error
    try:
        restored = load(path, _zeroed(model) if configuration.model is None else None).state_dict()
    except ValueError as error:
        if configuration.model is None:
            raise ExportError(f"model: expected the file to give the weights back, got others ({error})") from None
        raise ExportError(
            f"configuration: expected the name and arguments that the model was made with ({error})"
        ) from None
    other = [name for name, tensor in model.state_dict().items() if not _same(tensor, restored[name])]
    if other:
        raise ExportError(
            f"model: expected the file to give the weights back, got others for {_checks.first_names(other)}"
        )


@dataclass(frozen=True)
class _Stored:
    """A file of weights.

    Attributes:
        shared: For each other name of a tensor that layers share, the name under which it is stored.
        kernels: The `kernel_text` of each DCLS layer; nothing in older files.
    """

    path: Path
    configuration: Configuration
    tensors: Mapping[str, Tensor]
    shared: Mapping[str, str]
    kernels: Mapping[str, str]

    def made(self) -> nn.Module:
        """A model of timm as the file describes it, with other weights."""
        name, arguments = self.configuration.model, self.configuration.arguments
        if name is None:
            raise ValueError(
                f"model: expected a model to load into, as '{self.path}' does not say how to make one, got None; make "
                "the model as it was and call load(path, model)"
            )
        with needed_by(f"the model {name} of timm", "train"):
            import timm

            from ..models.stored import check_stored, making  # registers the package's models with timm too
        check_stored("path", self.path, name, arguments)
        elements = sum(map(Tensor.numel, self.tensors.values()))
        # The caller's random numbers stay what they would be.
        with making("path", self.path, elements), torch.random.fork_rng(devices=()):
            model: nn.Module = timm.create_model(name, **arguments)
        return model

    @torch.no_grad()
    def set_(self, model: nn.Module) -> None:
        """Sets a model's weights in place, their dtypes too."""
        own = model.state_dict(keep_vars=True)
        keys = {name: name if name in self.tensors else self.shared.get(name) for name in own}
        found = {name: self.tensors[key] for name, key in keys.items() if key is not None}
        differences = mismatch(
            missing=[name for name in own if name not in found],
            foreign=sorted(self.tensors.keys() - set(keys.values())),
            other=[name for name, tensor in found.items() if tensor.shape != own[name].shape],
        )
        kinds = [name for name, tensor in found.items() if _numbers(tensor) != _numbers(own[name])]
        if kinds and not differences:
            differences = f"kinds of numbers differ for {_checks.first_names(kinds)}"
        if differences:
            raise ValueError(f"path: '{self.path}' does not fit this {type(model).__name__} ({differences})")
        for name, kernel in _kernels(model).items():
            if self.kernels.get(name, kernel) != kernel:
                raise ValueError(
                    f"model: expected the layer {name or 'itself'} of '{self.path}' ({self.kernels[name]}), got "
                    f"another ({kernel}); make the model with the arguments that it was exported with"
                )
        for name, tensor in found.items():
            if own[name].dtype == tensor.dtype:
                own[name].copy_(tensor)
            else:
                own[name].data = tensor.to(own[name].device)


def _read(path: Path) -> _Stored:
    with needed_by("a safetensors file", "export"):
        from safetensors import SafetensorError, safe_open

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"path: expected a file, got '{path}', which {what}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"path: '{path}' cannot be read ({error}); it is cut short, broken, or no safetensors file (pickled files "
            "of torch are not read)"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ValueError(_foreign(path, metadata.get("format")))
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise ValueError(
            f"path: '{path}' is broken, as its checksum does not match its content; copy or export it again"
        )
    try:
        shared = json.loads(metadata["shared"])
        if not isinstance(shared, dict) or not set(shared.values()) <= tensors.keys():
            raise ValueError("shared: expected names of tensors")
        kernels = json.loads(metadata.get("kernels", "{}"))
        if not isinstance(kernels, dict):
            raise ValueError("kernels: expected names of layers")
        return _Stored(path, Configuration.from_text(metadata["about"]), tensors, shared, kernels)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"path: '{path}' cannot be read, its text is not as torchdcls writes it ({error})") from None


def _foreign(path: Path, found: str | None) -> str:
    if found is not None and found.startswith("torchdcls checkpoint"):
        return (
            f"path: expected a file of torchdcls export, got the checkpoint '{path}' of a run; export it with "
            "torchdcls export CHECKPOINT --to safetensors"
        )
    if found is not None and found.startswith("torchdcls model"):
        return f"path: expected {FORMAT!r}, got '{path}' with {found!r}; a newer torchdcls reads it"
    return (
        f"path: expected a file that torchdcls has exported ({FORMAT!r}), got '{path}' with format {found!r}; "
        "load weights of other programs with safetensors.torch.load_model"
    )


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():  # its bytes, without numpy, which has no bfloat16
            plain = tensor.cpu().contiguous()
            found.update((ctypes.c_char * plain.nbytes).from_address(plain.data_ptr()))
    return found.hexdigest()


def _kernels(model: nn.Module) -> dict[str, str]:
    """For each DCLS layer the settings of its kernel, which no shape shows."""
    return {name: layer.kernel_text() for name, layer in model.named_modules() if isinstance(layer, DclsLayer)}


@torch.no_grad()
def _zeroed(model: nn.Module) -> nn.Module:
    blank = copied(model)
    for tensor in blank.state_dict().values():
        tensor.zero_()
    return blank


def _numbers(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one.cpu(), other.cpu(), rtol=0, atol=0, equal_nan=True)
