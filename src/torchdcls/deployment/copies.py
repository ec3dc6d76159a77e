"""Copies of models, and why a model has none."""

from copy import deepcopy

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..ops.tracing import forward_pre_hooks
from .errors import ExportError, reason

# Hooks that compute a weight and keep it in the module; and what to use in their place.
_COMPUTE = {
    WeightNorm: " (torch.nn.utils.weight_norm); use torch.nn.utils.parametrizations.weight_norm, or call "
    "torch.nn.utils.remove_weight_norm first",
    SpectralNorm: " (torch.nn.utils.spectral_norm); use torch.nn.utils.parametrizations.spectral_norm, or call "
    "torch.nn.utils.remove_spectral_norm first",
    BasePruningMethod: " (torch.nn.utils.prune); call torch.nn.utils.prune.remove first",
}


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, or an ExportError that says why there is none."""
    try:
        return deepcopy(model)
    except Exception as error:
        why = _why_not(model) or f"copy.deepcopy can copy, got {reason(error)}"
        raise ExportError(f"model: expected one that {why}") from None


def _why_not(model: nn.Module) -> str | None:
    """Names the first tensor with a history, which torch does not copy, that a module has as attribute or buffer."""
    for name, module in model.named_modules():
        for attribute, value in [*vars(module).items(), *module.named_buffers(recurse=False)]:
            if isinstance(value, Tensor) and not value.is_leaf:
                hooks = forward_pre_hooks(module)
                made = [words for kind, words in _COMPUTE.items() if any(isinstance(hook, kind) for hook in hooks)]
                advice = made[0] if made else "; detach it, or keep it out of the module"
                place = f"'{name}'" if name else f"a {type(module).__name__}"
                return f"can be copied, got {place} with a computed {attribute}{advice}"
    return None
