"""The models of a study by torch.compile, in pieces that all its methods have in common."""

from typing import Any

import torch
from torch import nn

from torchdcls.conversion.swap import swap_modules_
from torchdcls.nn import DclsLayer


def compile_in_pieces_(model: nn.Module, backend: str = "inductor") -> None:
    """Compiles a model but for its depthwise layers, in place; names in its state dict change.

    The pieces are the largest modules with at most one depthwise layer: blocks, and what lies between stages. They are
    the same for all methods, sizes and seeds, so that a study compiles each shape once; a model compiled as a whole
    would be compiled anew for each of them. Call it under `many_shapes`.
    """
    swap_modules_(model, {module: _Apart(module) for module in model.modules() if _is_depthwise(module)})
    _compile_pieces(model, backend)


def many_shapes() -> Any:
    """A context in which torch.compile keeps as many graphs of one function as a study has of pieces."""
    from torch.compiler import config

    return config.patch(recompile_limit=256)  # type: ignore[attr-defined]


class _Apart(nn.Module):
    """A layer that compiled graphs end before and go on after; of one type, whatever the layer is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(input)
        return output


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, DclsLayer | nn.Conv2d) and module.groups == module.in_channels > 1


def _compile_pieces(module: nn.Module, backend: str) -> None:
    if sum(isinstance(part, _Apart) for part in module.modules()) <= 1:
        module.compile(dynamic=False, backend=backend)
    else:
        for part in module.children():
            _compile_pieces(part, backend)
