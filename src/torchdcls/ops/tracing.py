"""Whether tensors are plain numbers in memory, and what traces or transforms them.

Only this file names private parts of torch, so that only this file has to follow a new version.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")
_LIBRARY: Any = torch.library.Library("torchdcls", "DEF")  # type: ignore[no-untyped-call]

_FAKE, _PROXY = torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY


def special_tensors() -> bool:
    """Whether values of tensors must not be read or kept now.

    Tensors are traced (torch.compile, torch.export, torch.jit.trace, make_fx), carry more than numbers (torch.func,
    forward differentiation), or have no numbers (fake).
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or transformed()
        or torch._C._get_dispatch_mode(_FAKE) is not None
        or torch._C._get_dispatch_mode(_PROXY) is not None
        or torch._ops._get_dispatch_mode_pre_dispatch(_PROXY) is not None  # type: ignore[no-untyped-call]
    )


def differentiated_forwards() -> bool:
    """Whether forward-mode differentiation is on."""
    return torch.autograd.forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is on: tensors carry more than numbers."""
    return torch._C._functorch.maybe_current_level() is not None or differentiated_forwards()


def batched(tensor: Tensor) -> bool:
    """Whether this is a batch of tensors, as gradients are with `is_grads_batched=True`."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def numbers_when_run(*tensors: Tensor | None) -> bool:
    """Whether tensors are plain numbers in memory: now, or when a compiled graph runs; never in an exported program."""
    if torch.compiler.is_compiling():
        return not exporting() and not _transformed()
    return not special_tensors() and all(
        tensor is None or (type(tensor) in (Tensor, nn.Parameter) and not batched(tensor)) for tensor in tensors
    )


def exporting() -> bool:
    """Whether torch.export is tracing; its programs must run without this package.

    This reads the flag itself, as torch 2.11's compiler takes `torch.compiler.is_exporting()` for True in every graph.
    """
    return torch.compiler._is_exporting_flag


def traced_by_jit() -> bool:
    """Whether torch.jit.trace or torch's old ONNX exporter is recording; sizes are tensors then."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def written_as_onnx() -> bool:
    """Whether torch's old ONNX exporter is recording."""
    return traced_by_jit() and torch.onnx.is_in_onnx_export()


def with_numbers(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)` while torch.jit.trace pauses, so that all sizes are numbers.

    For sizes that are the same in every call of the program, such as those of a kernel, and for checks of the example.
    """
    if not traced_by_jit():
        return function(*arguments)
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return function(*arguments)
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def shape_of(tensor: Tensor) -> torch.Size:
    """The shape, in numbers also under torch.jit.trace."""
    shape: torch.Size = with_numbers(getattr, tensor, "shape")
    return shape


def sizes_are_known(sizes: Sequence[int]) -> bool:
    """Whether these are numbers, not symbols for any size of a compiled graph or an exported program."""
    if not torch.compiler.is_compiling():
        return not traced_by_jit() and all(isinstance(size, int) for size in sizes)
    from torch.fx.experimental.symbolic_shapes import has_static_value  # comes with the compiler

    return not exporting() and all(has_static_value(size) for size in sizes)


def shown(tensor: Tensor) -> Tensor:
    """The same numbers in memory: negative views and zero tensors are written out."""
    return tensor.clone() if tensor.is_neg() or tensor._is_zerotensor() else tensor


def as_read(tensor: Tensor) -> Tensor:
    """The same numbers in contiguous memory."""
    return shown(tensor).contiguous()


def version(tensor: Tensor) -> int:
    """How often the tensor was written in place, not counting `.data`."""
    return tensor._version


def memory_key(tensor: Tensor) -> int:
    """A number for the memory of a tensor; tensors that share memory have the same one."""
    number: int = tensor.untyped_storage()._cdata
    return number


def own_parameters(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    """The parameters of a module itself, also those that are None, but none that a parametrization computes."""
    return module._parameters


def forward_pre_hooks(module: nn.Module) -> Sequence[Callable[..., Any]]:
    """The functions that a module calls before its forward; torch's older functions compute tensors there."""
    return list(module._forward_pre_hooks.values())


def schema(operator: Any) -> Any:
    """The name and the arguments of an operator of torch."""
    return operator._schema


def with_versions(state_dict: OrderedDict[str, Tensor], entries: Any) -> OrderedDict[str, Tensor]:
    """A state dict with the metadata of another one: the versions of modules, by name."""
    state_dict._metadata = metadata(entries)  # type: ignore[attr-defined]
    return state_dict


def metadata(state_dict: Any) -> Any:
    """The metadata of a state dict, by the names of modules; an empty dict for one without."""
    return getattr(state_dict, "_metadata", {})


def owned(made: Tensor) -> Tensor:
    """The same memory as a result that an `autograd.Function` may return: no view to autograd.

    A view made inside a function must not be changed in place afterwards, as `nn.SiLU(inplace=True)` does.
    """
    return made.detach()


def gpu_waits(cycles: int) -> None:
    """Lets the current GPU wait for this many of its cycles."""
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def define_operator(
    schema: str, run: Callable[..., Any], like: Callable[..., Any], devices: Sequence[str] = ("CPU",)
) -> None:
    """Defines an operator of `torch.ops.torchdcls` that `run` computes; `like` makes an empty result for compilers."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in devices:
        _LIBRARY.impl(name, run, device)
    torch.library.register_fake(f"torchdcls::{name}", like, lib=_LIBRARY)


def constant_when_compiled(function: Function) -> Function:
    """Makes `torch.compile` call a function of constants while it traces, and keep the result.

    This is `torch.compiler.assume_constant_result` without the import of the compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


_transformed = constant_when_compiled(transformed)
