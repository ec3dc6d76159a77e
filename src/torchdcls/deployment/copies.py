"""Copies of models, and why a model has none."""

from collections.abc import Iterator
from copy import deepcopy

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .errors import ExportError, reason

# Hooks that compute a weight and keep it in the module; and what to use in their place.
_COMPUTE = {
    WeightNorm: (
        "torch.nn.utils.weight_norm",
        "use torch.nn.utils.parametrizations.weight_norm, or call torch.nn.utils.remove_weight_norm first",
    ),
    SpectralNorm: (
        "torch.nn.utils.spectral_norm",
        "use torch.nn.utils.parametrizations.spectral_norm, or call torch.nn.utils.remove_spectral_norm first",
    ),
    BasePruningMethod: ("torch.nn.utils.prune", "call torch.nn.utils.prune.remove first"),
}


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ExportError: The model cannot be copied.
    """
    try:
        return deepcopy(model)
    except Exception as error:
        for place, attribute, module in _computed(model):
            maker, advice = _made_by(module)
            raise ExportError(
                f"model: expected one that can be copied, got {place} with a computed {attribute}{maker}; {advice}"
            ) from None
        raise ExportError(f"model: expected one that copy.deepcopy can copy, got {reason(error)}") from None


def _computed(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Tensors with a history, which torch does not copy, that modules have as attributes or buffers."""
    for name, module in model.named_modules():
        for attribute, value in [*vars(module).items(), *module.named_buffers(recurse=False)]:
            if isinstance(value, Tensor) and not value.is_leaf:
                yield f"'{name}'" if name else f"a {type(module).__name__}", attribute, module


def _made_by(module: nn.Module) -> tuple[str, str]:
    for hook in module._forward_pre_hooks.values():
        for kind, (maker, advice) in _COMPUTE.items():
            if isinstance(hook, kind):
                return f" ({maker})", advice
    return "", "detach it, or keep it out of the module"
