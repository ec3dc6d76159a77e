"""Convolutions drawn at random, by every method, in processes of their own: a crash is a fault like any other."""

import os
import pickle
import random
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .case import Case

CASES = 2000
WORST = "share of the error allowed"
# Problems of one child process. What corrupts memory ends it later than where it happens.
CASES_OF_A_CHILD = 50
# Rounding units of float64 that two sums of a problem may differ by, relative to its largest number; and those by which
# a sum in float32 may err in addition to twice what torch's errs, which adds in another order.
ROUNDING_UNITS, UNITS_BEYOND_TORCHS = 64, 16


@dataclass(frozen=True)
class Drawn:
    """A problem; `maps` and `weights` say how the tensors lie in memory."""

    dims: int
    batch: int
    channels: tuple[int, int, int]
    map: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    beyond: tuple[int, ...] | None
    bias: bool
    maps: str
    weights: str
    dtype: str
    seed: int

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self).items())


def draw(random: random.Random) -> Drawn:
    """A small problem; in every second one the kernel is larger than the map along some axis."""
    dims = random.choice((1, 2, 2, 2, 3))
    most_map, most_kernel = {1: (60, 90), 2: (16, 52), 3: (6, 9)}[dims]
    while True:
        transposed = random.random() < 0.3
        map = tuple(random.randint(1, most_map) for _ in range(dims))
        kernel = tuple(random.randint(1, most_kernel if random.random() < 0.5 else cells + 2) for cells in map)
        stride = (1,) * dims if random.random() < 0.7 else tuple(random.randint(1, 3) for _ in range(dims))
        padding: tuple[int, ...] | str = tuple(random.choice((taps // 2, random.randint(0, taps))) for taps in kernel)
        beyond = None
        if transposed:
            beyond = tuple(random.randrange(step) for step in stride)
            rows = zip(map, kernel, stride, padding, beyond, strict=True)
            sizes = [(cells - 1) * step + taps - 2 * pad + more for cells, taps, step, pad, more in rows]
            fits = all(1 <= size <= 4 * most_kernel for size in sizes)
        else:
            if stride == (1,) * dims and random.random() < 0.3:
                padding = "same"
            fits = padding == "same" or all(
                cells + 2 * pad >= taps for cells, taps, pad in zip(map, kernel, padding, strict=True)
            )
        if fits:
            break
    groups = random.choice((1, 1, 2, 3, 8))
    depthwise = groups > 1 and random.random() < 0.6
    inputs, outputs = (1, 1) if depthwise else (random.choice((1, 2, 3, 16)), random.choice((1, 2, 3, 16)))
    layouts = ("plain", "last", "sliced", "expanded", "transposed")
    return Drawn(
        dims=dims,
        batch=random.choice((0, 1, 1, 2, 3)),
        channels=(groups * inputs, groups * outputs, groups),
        map=map,
        kernel=kernel,
        stride=stride,
        padding=padding,
        beyond=beyond,
        bias=random.random() < 0.7,
        maps=random.choice(("plain", *layouts)),
        weights=random.choice(("plain", *layouts)),
        dtype=random.choice(("float32", "float32", "float64")),
        seed=random.randrange(2**31),
    )


def run(cases: int, seed: int) -> Iterator[Case]:
    """Random convolutions by every method against torch's in float64 of a map padded beforehand, forked, then changed.

    Output and every gradient; kernels often larger than the map, all layouts, strides, paddings and groups, transposed
    or not. What is returned is changed in place at the end. The oracle in plain loops, which would take hours, is what
    torch's own is compared with in the tests.
    """
    drawn = random.Random(seed)
    problems = [draw(drawn) for _ in range(cases)]
    for first in range(0, cases, CASES_OF_A_CHILD):
        yield from in_child(problems[first : first + CASES_OF_A_CHILD])


def in_child(problems: list[Drawn]) -> Iterator[Case]:
    """What a forked process finds of problems; where it dies, its end is the fault of the one that it was at."""
    rest = problems
    while rest:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _report(rest, reading, writing)
        os.close(writing)
        done = -1
        with os.fdopen(reading, "rb") as pipe:
            while True:
                try:
                    at, found = pickle.load(pipe)
                except EOFError:
                    break
                done = at
                yield from found
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        # It may have been an earlier one that wrote where it must not.
        at = min(done + 1, len(rest) - 1)
        yield Case("process", str(rest[at]), f"the process ended with status {status}, after {done + 1} of {len(rest)}")
        rest = rest[at + 1 :]


def _report(problems: list[Drawn], reading: int, writing: int) -> None:
    status = 1
    try:
        os.close(reading)
        import torch

        torch.set_num_threads(1)
        with os.fdopen(writing, "wb") as pipe:
            for at, problem in enumerate(problems):
                pickle.dump((at, list(attempt(problem))), pipe)
                pipe.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def attempt(problem: Drawn) -> Iterator[Case]:
    """A case for each method that can run the problem."""
    from torchdcls.ops.conv import METHOD_NAMES, select
    from torchdcls.ops.conv.methods import named
    from torchdcls.ops.conv.posing import pose

    leaves = tensors(problem)
    bias = leaves.get("bias")
    if problem.beyond is None:
        _, posed = pose(leaves["input"], leaves["weight"], bias, problem.stride, problem.padding, problem.channels[2])
    else:
        assert not isinstance(problem.padding, str)
        sizes = problem.stride, problem.padding, problem.channels[2], problem.beyond
        _, posed = pose(leaves["input"], leaves["weight"], bias, *sizes, output="transpose")
    # Torch's own gradients refuse some weights that are not contiguous.
    whole = {name: leaf.contiguous() for name, leaf in leaves.items()}
    truth = answers(lambda leaves: torchs(problem, leaves), {name: leaf.double() for name, leaf in whole.items()})
    plain = answers(lambda leaves: torchs(problem, leaves), whole)
    for method in METHOD_NAMES:
        if method == "triton" or (method != "auto" and select.unsupported_reason(named(method), posed) is not None):
            continue
        kind = f"{method}, {problem.dims}-D{', transposed' if problem.beyond is not None else ''}"
        try:
            made = answers(lambda leaves, method=method: ours(problem, leaves, method), leaves, in_place=True)
        except Exception as error:
            yield Case(kind, str(problem), f"{type(error).__name__}: {error}")
            continue
        yield Case(kind, str(problem), *compared(made, plain, truth))


def tensors(problem: Drawn) -> dict[str, Any]:
    """Input, weight and bias as they lie in memory."""
    import torch

    numbers = torch.Generator().manual_seed(problem.seed)
    dtype = getattr(torch, problem.dtype)

    def lay(shape: tuple[int, ...], layout: str) -> Any:
        def normal(*sizes: int) -> Any:
            return torch.randn(sizes, generator=numbers, dtype=torch.float64).to(dtype)

        if layout == "last":
            return normal(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
        if layout == "sliced":
            return normal(*shape[:2], *(cells + 3 for cells in shape[2:]))[
                (..., *(slice(1, cells + 1) for cells in shape[2:]))
            ]
        if layout == "expanded":
            return normal(*shape[:-1], 1).expand(shape)
        if layout == "transposed":
            return normal(*reversed(shape)).permute(*reversed(range(len(shape))))
        return normal(*shape)

    inputs, outputs, groups = problem.channels
    first, second = (inputs, outputs // groups) if problem.beyond is not None else (outputs, inputs // groups)
    leaves = {
        "input": lay((problem.batch, inputs, *problem.map), problem.maps),
        "weight": lay((first, second, *problem.kernel), problem.weights),
    }
    return leaves | ({"bias": lay((outputs,), "plain")} if problem.bias else {})


def ours(problem: Drawn, leaves: dict[str, Any], method: str) -> Any:
    """The convolution by a method."""
    from torchdcls.ops.conv import large_kernel_conv, large_kernel_conv_transpose

    options: dict[str, Any] = {"stride": problem.stride, "padding": problem.padding, "groups": problem.channels[2]}
    if problem.beyond is None:
        return large_kernel_conv(**leaves, **options, method=method)  # type: ignore[arg-type]
    return large_kernel_conv_transpose(**leaves, **options, output_padding=problem.beyond, method=method)  # type: ignore[arg-type]


def torchs(problem: Drawn, leaves: dict[str, Any]) -> Any:
    """Torch's own convolution without any padding of torch's: the map is padded before, or what is beyond is cut."""
    import torch.nn.functional as F

    groups, kernel = problem.channels[2], problem.kernel
    if problem.beyond is None:
        pads = [((taps - 1) // 2, taps // 2) for taps in kernel]
        if problem.padding != "same":
            pads = [(cells, cells) for cells in problem.padding]  # type: ignore[misc]
        padded = F.pad(leaves["input"], [cells for pair in reversed(pads) for cells in pair])
        convolve = (F.conv1d, F.conv2d, F.conv3d)[problem.dims - 1]
        return convolve(padded, leaves["weight"], leaves.get("bias"), problem.stride, 0, 1, groups)
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[problem.dims - 1]
    made = transpose(leaves["input"], leaves["weight"], leaves.get("bias"), problem.stride, 0, problem.beyond, groups)
    for axis, cells in enumerate(problem.padding, start=2):
        made = made.narrow(axis, cells, made.shape[axis] - 2 * cells)  # type: ignore[operator]
    return made


def answers(call: Any, leaves: dict[str, Any], in_place: bool = False) -> dict[str, Any]:
    """The output and the gradient to every leaf for a fixed cotangent, of the doubled output."""
    import torch

    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    output = call(leaves)
    output = output.mul_(2) if in_place else output * 2
    numbers = torch.Generator().manual_seed(7)
    cotangent = torch.randn(output.shape, generator=numbers, dtype=torch.float64).to(output.dtype)
    gradients = torch.autograd.grad(output, list(leaves.values()), cotangent)
    return {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}


def compared(made: dict[str, Any], plain: dict[str, Any], truth: dict[str, Any]) -> tuple[str | None, float]:
    """What is wrong, or None, and the error over what is allowed: twice torch's own in the same dtype, and rounding."""
    import torch

    for name, wanted in truth.items():
        if made[name].shape != wanted.shape or made[name].dtype != plain[name].dtype:
            return f"{name}: expected {tuple(wanted.shape)}, {plain[name].dtype}, got {tuple(made[name].shape)}", 0.0

    def worst(given: dict[str, Any]) -> float:
        errors = [0.0]
        for name, wanted in truth.items():
            if wanted.numel():
                error = (given[name].double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)
                errors.append(float("inf") if error.isnan() else error.item())
        return max(errors)

    unit = torch.finfo(plain["output"].dtype).eps
    doubles = plain["output"].dtype == torch.float64
    allowed = ROUNDING_UNITS * unit if doubles else 2 * worst(plain) + UNITS_BEYOND_TORCHS * unit
    ratio = worst(made) / allowed
    return (f"errs {ratio:.3g} times what is allowed" if ratio > 1 else None), ratio
