"""Whether the GPU computes what is right: convolutions, kernels, compiled layers, all gradients, in every dtype.

What is right comes from float64: of convolutions on the GPU by torch's own, of kernels on the CPU.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdcls import Dcls2d, construct_kernel, large_kernel_conv
from torchdcls.profiles import INTERPOLATIONS

from . import Problem, clock

SUMMARY = "output and gradients against float64"
SECONDS = 60

# Batch, channels, map and kernel: odd, even, larger than the map, of one axis and of two.
SHAPES = (
    (8, 96, (56, 56), (23, 23)),
    (8, 40, (14, 14), (23, 23)),
    (4, 33, (7, 7), (13, 13)),
    (3, 17, (31, 20), (5, 31)),
    (2, 24, (9, 64), (7, 8)),
    (4, 16, (500,), (101,)),
)
DTYPES = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
LAYOUTS = (torch.channels_last, torch.contiguous_format)
METHODS = ("triton", "auto", "fft")
# Largest error allowed, as a share of the largest value: a few roundings of the result, and of float32 for its sums.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def problems() -> dict[str, Problem]:
    """Convolutions by every method, then kernels, then a compiled layer."""
    found: dict[str, Problem] = {}
    for dtype in DTYPES:
        for batch, channels, map, kernel in SHAPES:
            for layout in LAYOUTS if len(map) == 2 else LAYOUTS[1:]:
                name = f"{_by(kernel)} on {(batch, channels, *map)}, {str(dtype)[6:]}, {str(layout)[6:]}"
                case = partial(_convolutions, (batch, channels, *map), kernel, dtype, layout)
                found.update({f"{method}: {name}": partial(case, method) for method in METHODS})
    for interpolation in INTERPOLATIONS:
        found[f"kernel: {interpolation}, float32"] = partial(_kernels, interpolation)
    for dtype in (torch.float32, torch.bfloat16):
        found[f"compiled: Dcls2d, {str(dtype)[6:]}"] = partial(_compiled, dtype)
    return found


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """What is wrong, the header first; of what is right the number alone."""
    failed = [entry for entry in result["entries"] if not entry.get("right")]
    table = [["against float64", "", "", "outcome"]]
    table.append([f"{len(result['entries'])} cases", "", "", f"{len(failed)} wrong"])
    return [*table, *([entry["name"], "", "", entry.get("error") or _words(entry)] for entry in failed)]


def _by(kernel: Sequence[int]) -> str:
    return "x".join(map(str, kernel))


def _words(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{part} off by {error:.1e}" for part, error in entry["errors"].items())


def _convolutions(
    shape: tuple[int, ...], kernel: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, method: str
) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": dtype, "device": clock.DEVICE}
    torch.manual_seed(0)
    input = torch.randn(shape, **options).contiguous(memory_format=layout)
    weight, bias = torch.randn(shape[1], 1, *kernel, **options), torch.randn(shape[1], **options)
    padding = [size // 2 for size in kernel]
    torchs: Callable[..., Tensor] = F.conv1d if len(kernel) == 1 else F.conv2d

    def ours(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        by: Any = method
        return large_kernel_conv(input, weight, bias, padding=padding, groups=shape[1], method=by)

    exact = [tensor.double() for tensor in (input, weight, bias)]
    gradient = torch.randn_like(ours(input, weight, bias))
    wanted = _answers(lambda *args: torchs(*args, 1, padding, 1, shape[1]), exact, gradient.double())
    return _judged(
        ("output", "input", "weight", "bias"), _answers(ours, [input, weight, bias], gradient), wanted, dtype
    )


def _kernels(interpolation: str) -> dict[str, Any]:
    torch.manual_seed(0)
    elements = [torch.randn(96, 1, 26), 5 * torch.randn(2, 96, 1, 26)]
    if interpolation != "bilinear":
        elements.append(torch.rand(2, 96, 1, 26))
    gradient = torch.randn(96, 1, 23, 23)
    known: Any = interpolation

    def made(weight: Tensor, position: Tensor, sigma: Tensor | None = None) -> Tensor:
        return construct_kernel(weight, position, sigma, 23, known)

    got = _answers(made, [each.to(clock.DEVICE) for each in elements], gradient.to(clock.DEVICE))
    wanted = _answers(made, [each.double() for each in elements], gradient.double())
    return _judged(("kernel", "weight", "position", "sigma"), got, wanted, torch.float32)


def _compiled(dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(0)
    layer = Dcls2d(96, 96, 26, groups=96, dilated_kernel_size=23, padding=11).to(clock.DEVICE, dtype)
    images = torch.randn(4, 96, 28, 28, device=clock.DEVICE, dtype=dtype).contiguous(memory_format=torch.channels_last)
    leaves = [images.requires_grad_(), *layer.parameters()]
    names = ("output", "input", *(name for name, _ in layer.named_parameters()))
    gradient = torch.randn_like(images)

    def answers(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        output = run(images)
        return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]

    compiled: Any = torch.compile(layer, fullgraph=True)
    return _judged(names, answers(compiled), answers(layer), dtype)


def _answers(run: Callable[..., Tensor], leaves: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    output = run(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def _judged(
    parts: Sequence[str], got: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype
) -> dict[str, Any]:
    errors = {
        part: ((one.cpu().double() - other.cpu().double()).abs().max() / other.cpu().double().abs().max()).item()
        for part, one, other in zip(parts, got, wanted, strict=False)
    }
    return {"right": all(error <= TOLERANCES[dtype] for error in errors.values()), "errors": errors}
