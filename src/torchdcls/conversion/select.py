"""Which layers of a model are converted, why the others are not, and which of them share positions."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from torch import nn

from ..ops.tracing import own_parameters
from .report import counted
from .swap import CONVOLUTIONS, TRANSPOSED

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Where = Callable[[str, nn.Module], bool]
Share = Callable[[str, nn.Module], Hashable]


def is_convolution(module: nn.Module) -> bool:
    """Whether a report should say something about this module."""
    return isinstance(module, CONVOLUTIONS + TRANSPOSED)


def default_reason(module: Convolution) -> str | None:
    """Why the default leaves a convolution alone, or None for depthwise ones with stride 1 and more than one tap."""
    if not (module.groups == module.in_channels == module.out_channels):
        groups = counted(module.groups, "group")
        return f"not depthwise ({module.in_channels} to {module.out_channels} channels in {groups})"
    if math.prod(module.kernel_size) == 1:
        return "its kernel has one tap"
    if any(step != 1 for step in module.stride):
        return f"stride {module.stride}"
    return None


def impossible_reason(module: nn.Module, kernel_size: Sequence[int] | None) -> str | None:
    """Why no DCLS layer of this kernel size can replace a convolution, or None if one can."""
    # First, as a parametrization makes a subclass of its module's type. A bias of None is among the parameters.
    if not own_parameters(module).keys() >= {"weight", "bias"}:
        return "its weight or bias is computed by a parametrization, which has to be removed first"
    if type(module) not in CONVOLUTIONS:
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            return f"{type(module).__name__} has no sizes yet: run the model once first"
        if isinstance(module, TRANSPOSED):
            return f"{type(module).__name__} is not converted: make a torchdcls.Dcls{type(module).__name__[4:]} instead"
        return f"{type(module).__name__} is a subclass with a behavior of its own"
    assert isinstance(module, CONVOLUTIONS)
    if any(step != 1 for step in module.dilation):
        return f"it has dilation {module.dilation}, and DCLS layers have none"
    if kernel_size is None:
        return f"dilated_kernel_size has another number of axes than its kernel {module.kernel_size}"
    if converted_padding(module, kernel_size) is None:
        return (
            f"no padding keeps its output size with kernel {tuple(kernel_size)} instead of {module.kernel_size}, "
            "unless both are odd or both are even and the new one is not smaller"
        )
    return None


def converted_padding(module: Convolution, kernel_size: Sequence[int]) -> tuple[int, ...] | str | None:
    """Padding that keeps a convolution's output size when its kernel becomes `kernel_size`; None if there is none."""
    if module.padding == "same":
        return "same"
    old = module.kernel_size
    pads = (0,) * len(old) if isinstance(module.padding, str) else module.padding
    totals = [2 * pad + new - taps for pad, new, taps in zip(pads, kernel_size, old, strict=True)]
    if all(total >= 0 and total % 2 == 0 for total in totals):
        return tuple(total // 2 for total in totals)
    if all(step == 1 for step in module.stride) and totals == [new - 1 for new in kernel_size]:
        return "same"
    return None


def stages(names: Iterable[str]) -> dict[str, str]:
    """The stage of each layer, from the numbers in their names.

    In names of one form, such as `stages.0.blocks.2.conv_dw`, the first number that varies counts stages if a later one
    varies too, and blocks of a single stage if none does. Numbers that never vary, such as a wrapper's, count nothing.

    Returns:
        For each name the stage's own name, such as `stages.0`, or `(root)` where that is the whole model.
    """
    forms: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for name in names:
        tokens = name.split(".")
        forms[tuple("*" if token.isdecimal() else token for token in tokens)].append(tokens)
    ends: list[tuple[list[str], int | None]] = []
    known: set[str] = set()
    for form, members in forms.items():
        varying = [at for at, token in enumerate(form) if token == "*" and len({row[at] for row in members}) > 1]
        if len(varying) > 1:
            known.update(_path(tokens, varying[0] + 1) for tokens in members)
        ends += [(tokens, varying[0] if varying else None) for tokens in members]

    found = {}
    for tokens, at in ends:
        # One layer of its kind a stage varies in one number only; other kinds tell that it counts stages. Outermost
        # first: a kind that only one stage has, several times a block, takes its blocks for stages.
        prefixes = [_path(tokens, length) for length in range(1, len(tokens))]
        stage = next((prefix for prefix in prefixes if prefix in known), None)
        found[".".join(tokens)] = _path(tokens, len(tokens) - 1 if at is None else at) if stage is None else stage
    return found


def _path(tokens: Sequence[str], length: int) -> str:
    return ".".join(tokens[:length]) or "(root)"
