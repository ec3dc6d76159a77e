"""The convolution of one layer, float32: against torch's 7x7, against DCLS, and method by method.

The layers are the depthwise ones of ConvNeXt-T's four stages. Torch's side is `F.conv2d` in the memory format in which
it is the faster. `auto` is tried on random shapes that its rule was not fitted on.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdcls import Dcls1d, large_kernel_conv2d
from torchdcls.ops.conv import METHOD_NAMES, MethodName, large_kernel_conv
from torchdcls.ops.conv.methods import METHODS, named
from torchdcls.ops.conv.select import reason_against, unsupported_reason

from .memory import in_a_process, peak_of_this_process
from .shapes import FIT_SEED, Shape, draw_shapes
from .timing import Timings, check_parity, compare_in_turns, comparison_rows, time_in_turns, turns_note

SUMMARY = "one layer's convolution against torch's, against DCLS 0.1.1, and method by method"
PACKAGES: tuple[str, ...] = ("torch", "DCLS", "torchdcls")

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# Another seed than the fit's, and than those whose outcome was looked at while the rule was made.
AUTO_SHAPES, AUTO_SEED = 60, FIT_SEED + 5
# Kernel sizes of the picture, on the map of the first stage.
SIZES = (3, 5, 7, 11, 15, 19, 23, 31, 39, 51, 63)
PARITY_TOLERANCE = 1e-11
# What stands in the parity check for the shapes that are timed: every number of axes, depthwise to dense.
PARITY_SHAPES = (
    Shape(2, 4, 4, 4, (14, 14), (23, 23), True),
    Shape(2, 4, 4, 4, (7, 7), (13, 13), False),
    Shape(2, 4, 4, 4, (20, 20), (7, 7), True),
    Shape(2, 6, 4, 2, (12, 9), (5, 11), True),
    Shape(2, 4, 4, 4, (100,), (31,), False),
    Shape(2, 3, 5, 1, (60,), (15,), False),
    Shape(2, 4, 4, 4, (6, 7, 8), (5, 5, 5), True),
    Shape(1, 3, 2, 1, (6, 5, 4), (3, 3, 3), False),
)
# Slower methods are not timed where one call takes longer. Unit: seconds.
LONGEST = 2.0


@dataclass(frozen=True)
class Layer:
    """A depthwise layer on a square map, against torch's of a kernel size, or against this package's."""

    channels: int
    side: int
    kernel: int = 23
    batch: int = 4
    against: int = 7
    dtype: torch.dtype = torch.float32
    by_torch: bool = True
    training: bool = True
    channels_last: bool = True

    @property
    def map(self) -> tuple[int, ...]:
        return self.batch, self.channels, self.side, self.side

    def __str__(self) -> str:
        what = "output and gradients" if self.training else "output"
        whose = "F.conv2d" if self.by_torch else "torchdcls"
        layout = "" if self.channels_last else ", contiguous"
        sizes = f"{self.kernel}x{self.kernel} on {self.map}{layout}"
        return f"{what} of {sizes}, against {self.against}x{self.against} of {whose}"


STAGES = ((96, 56), (192, 28), (384, 14), (768, 7))
_NUMBERED = tuple(enumerate(STAGES, start=1))
PROBLEMS: dict[str, object] = {
    **{f"stage {n}, batch {b}": Layer(*sizes, batch=b) for b in (4, 16) for n, sizes in _NUMBERED},
    **{f"stage {n}, inference": Layer(*sizes, training=False) for n, sizes in _NUMBERED},
    **{f"stage {n}, contiguous": Layer(*sizes, channels_last=False) for n, sizes in _NUMBERED},
    **{f"stage {n}, 7x7": Layer(*sizes, kernel=7) for n, sizes in _NUMBERED},
    "larger kernel": Layer(96, 56, 51, against=23, by_torch=False),
    "sound": Shape(1, 64, 64, 64, (4000,), (501,), False),
    "volume": Shape(1, 64, 64, 64, (12, 24, 24), (5, 11, 11), True),
    "delays": "Dcls1d 512 to 512, one element, 31 taps, 100 steps, batch 32, against DCLS 0.1.1",
    "auto": f"{AUTO_SHAPES} random shapes, each by every method",
    "large map": "forward of a 101x101 kernel on (1, 64, 2048, 2048)",
    "kernel sizes": f"{', '.join(map(str, SIZES))} on (4, 96, 56, 56), each by every method",
}


def verify(names: Sequence[str]) -> None:
    """Checks in float64 that every method's output and gradients are torch's, and those of delays DCLS's.

    Raises:
        ParityError: They are not; the message names the shape.
    """
    for shape in PARITY_SHAPES:
        problem, input, _, _ = shape.problem()
        input, weight = input.double().requires_grad_(), torch.randn(shape.weight_shape).double().requires_grad_()
        wanted = _answers(_torchs_own(shape, input, weight), input, weight)
        methods: list[Any] = [*METHOD_NAMES]
        for method in methods:
            if method != "auto" and unsupported_reason(named(method), problem) is not None:
                continue
            got = _answers(_by(method, shape, input, weight), input, weight)
            _check(f"{shape}, {method}", got, wanted, ("input", "weight"))
    if "delays" in names:
        ours, theirs = (layer.double() for layer in _delay_layers(4))
        theirs.load_state_dict({"weight": ours.weight, "P": ours.position, "SIG": ours.sigma})
        spikes = torch.randn(2, 4, 50, dtype=torch.float64, requires_grad=True)
        got = _answers(lambda: ours(spikes), spikes, ours.weight, ours.position, ours.sigma)
        wanted = _answers(lambda: theirs(spikes), spikes, theirs.weight, theirs.P, theirs.SIG)
        _check("delays", got, wanted, ("input", "weight", "position", "sigma"))


def _answers(run: Callable[[], Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    output = run()
    return output.detach(), *torch.autograd.grad(output.square().sum(), leaves)


def _check(what: str, got: Sequence[Tensor], wanted: Sequence[Tensor], leaves: Sequence[str]) -> None:
    parts = ["output", *(f"gradient of {leaf}" for leaf in leaves)]
    for part, one, other in zip(parts, got, wanted, strict=True):
        check_parity(f"{what}: {part}", one, other, PARITY_TOLERANCE)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    result: dict[str, Any] = {"comparisons": []}
    for name in names:
        problem = PROBLEMS[name]
        if isinstance(problem, Layer | Shape) or name == "delays":
            if isinstance(problem, Layer):
                comparison = _layer(problem, arguments.turns, after_turn)
            elif isinstance(problem, Shape):
                sides = _sides(problem)
                comparison = compare_in_turns(
                    sides["auto"], sides["torch"], turns=arguments.turns, seconds=0, after_turn=after_turn
                )
            else:
                comparison = _delays(arguments.turns, after_turn)
            result["comparisons"].append({"name": name, "problem": str(problem), **comparison.to_json()})
        elif name == "large map":
            result["large_map"] = {"problem": problem, **in_a_process("benchmarks.conv", "run_large_map")}
        elif name == "auto":
            drawn = {shape: {"shape": shape.to_json()} for shape in draw_shapes(AUTO_SHAPES, AUTO_SEED)}
            result["auto"] = _by_every_method(drawn, arguments.turns, after_turn)
        else:
            sized = {Shape(4, 96, 96, 96, (56, 56), (size, size), True): {"kernel": size} for size in SIZES}
            result["sizes"] = _by_every_method(sized, arguments.turns, after_turn, least_calls=1, longest=math.inf)
    return result


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    named = [{**entry, "problem": f"{entry['name']}: {entry['problem']}"} for entry in result["comparisons"]]
    return comparison_rows(["layer", "torchdcls", "other"], named)


def note(result: Mapping[str, Any]) -> str:
    text = f"T{turns_note(result)[1:]}"
    if "large_map" in result:
        large = result["large_map"]
        text += (
            f" The {large['problem']}, 1 GiB in and 1 GiB out, took {large['seconds']:.0f} s and "
            f"{large['peak_bytes'] / 2**30:.1f} GiB of memory in all."
        )
    if "auto" in result:
        summary = auto_summary(result["auto"])
        text += (
            f" On {summary['shapes']} random shapes, `auto` was within 1.15 times the best single method on "
            f"{summary['within']:.0%}, at worst {summary['worst']:.2f} times; against torch's own convolution it took "
            f"at worst {summary['worst_against_torch']:.2f} times, and was more than 1.05 times on "
            f"{summary['slower_than_torch']} of them; the median was {summary['median_against_torch']:.2f} times."
        )
    return text


def auto_summary(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How `auto` compares with the best method of each shape and with torch's own convolution; medians of turns."""
    to_best, to_torch = [], []
    for entry in entries:
        times = {name: statistics.median(turns) for name, turns in entry["ms"].items()}
        auto, torchs = times.pop("auto"), times["torch"]
        to_best.append(auto / min(times.values()))
        to_torch.append(auto / torchs)
    return {
        "shapes": len(entries),
        "within": sum(ratio <= 1.15 for ratio in to_best) / len(to_best),
        "worst": max(to_best),
        "worst_against_torch": max(to_torch),
        "slower_than_torch": sum(ratio > 1.05 for ratio in to_torch),
        "median_against_torch": statistics.median(to_torch),
    }


def run_large_map() -> dict[str, float]:
    """Seconds of a forward pass over a large map, and the most memory that this process has held."""
    input, weight = torch.randn(1, 64, 2048, 2048), torch.randn(64, 1, 101, 101)
    start = time.perf_counter()
    with torch.no_grad():
        large_kernel_conv2d(input, weight, padding="same", groups=64)
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak_of_this_process()}


def _layer(layer: Layer, turns: int, after_turn: Callable[[], None]) -> Timings:
    made = trained if layer.training else inferred
    own = torch.channels_last if layer.channels_last else torch.contiguous_format
    run = made(ours, *tensors(layer, layer.kernel, own))
    if not layer.by_torch:
        other = made(ours, *tensors(layer, layer.against, own))
        return compare_in_turns(run, other, turns=turns, after_turn=after_turn)
    formats = [torch.contiguous_format, torch.channels_last]
    sides = {str(format): made(torchs, *tensors(layer, layer.against, format)) for format in formats}
    first = time_in_turns(sides, turns=1, seconds=0, least_calls=2)
    fastest = min(sides, key=lambda name: first[name][0])
    return compare_in_turns(run, sides[fastest], turns=turns, after_turn=after_turn)


def ours(input: Tensor, weight: Tensor) -> Tensor:
    """The convolution of a depthwise layer."""
    return large_kernel_conv2d(input, weight, None, 1, weight.shape[-1] // 2, len(weight))


def torchs(input: Tensor, weight: Tensor) -> Tensor:
    """The same by torch's own."""
    return F.conv2d(input, weight, None, 1, weight.shape[-1] // 2, 1, len(weight))


def trained(
    convolve: Callable[[Tensor, Tensor], Tensor], input: Tensor, weight: Tensor, gradient: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    """A function that gives the output of a convolution and the gradients of its inputs."""

    def run() -> tuple[Tensor, ...]:
        output = convolve(input, weight)
        return output.detach(), *torch.autograd.grad(output, (input, weight), gradient)

    return run


def inferred(
    convolve: Callable[[Tensor, Tensor], Tensor], input: Tensor, weight: Tensor, _: Tensor
) -> Callable[[], Tensor]:
    """A function that gives the output of a convolution alone."""

    def run() -> Tensor:
        with torch.no_grad():
            return convolve(input, weight)

    return run


def tensors(
    layer: Layer, kernel: int, memory_format: torch.memory_format, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight and gradient of the output of a layer with kernels of a size."""
    options: dict[str, Any] = {"dtype": layer.dtype, "device": device}
    input, gradient = (torch.randn(layer.map, **options).contiguous(memory_format=memory_format) for _ in range(2))
    weight = torch.randn(layer.channels, 1, kernel, kernel, **options)
    return input.requires_grad_(), weight.requires_grad_(), gradient


def _delays(turns: int, after_turn: Callable[[], None]) -> Timings:
    ours, theirs = _delay_layers(512)
    spikes = F.pad((torch.rand(32, 512, 100) < 0.1).float(), (30, 0)).requires_grad_()

    def run(layer: torch.nn.Module) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(spikes).sum(), (spikes, *layer.parameters()))

    return compare_in_turns(run(ours), run(theirs), turns=turns, seconds=0, after_turn=after_turn)


def _delay_layers(neurons: int) -> tuple[Any, Any]:
    from DCLS.construct.modules import Dcls1d as Theirs

    ours = Dcls1d(neurons, neurons, 1, dilated_kernel_size=31, bias=False)
    return ours, Theirs(neurons, neurons, 1, dilated_kernel_size=31, bias=False, version="gauss")


def _by_every_method(
    shapes: Mapping[Shape, Mapping[str, Any]],
    turns: int,
    after_turn: Callable[[], None],
    least_calls: int = 3,
    longest: float = LONGEST,
) -> list[dict[str, Any]]:
    """The shapes' entries with the milliseconds of every method's turns."""
    entries: list[dict[str, Any]] = [{**entry, "ms": {}} for entry in shapes.values()]
    # One turn goes over all shapes, so that each shape's turns are spread over the whole time.
    for turn in range(turns):
        for shape, entry in zip(shapes, entries, strict=True):
            sides = _sides(shape)
            if turn:
                sides = {name: side for name, side in sides.items() if name in entry["ms"]}
            elif longest < math.inf:
                sides = {n: side for n, side in sides.items() if n in ("torch", "auto") or _seconds(side) < longest}
            for name, seconds in time_in_turns(sides, turns=1, seconds=0.03, least_calls=least_calls).items():
                entry["ms"].setdefault(name, []).append(seconds[0] * 1e3)
        after_turn()
    return entries


def _sides(shape: Shape) -> dict[str, Callable[[], object]]:
    problem, input, _, gradient = shape.problem()
    input, weight = input.requires_grad_(), torch.randn(shape.weight_shape, requires_grad=True)
    able = [method.name for method in METHODS if reason_against(method, problem) is None]
    methods: list[Any] = ["auto", *able]

    def graded(convolve: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(convolve(), (input, weight), gradient)

    sides = {method: graded(_by(method, shape, input, weight)) for method in methods}
    return {"torch": graded(_torchs_own(shape, input, weight)), **sides}


def _torchs_own(shape: Shape, input: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    return partial(CONVOLUTIONS[len(shape.map)], input, weight, None, 1, shape.padding, 1, shape.groups)


def _by(method: MethodName, shape: Shape, input: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    return partial(large_kernel_conv, input, weight, None, 1, shape.padding, shape.groups, method=method)


def _seconds(run: Callable[[], object]) -> float:
    (times,) = time_in_turns({"": run}, turns=1, seconds=0, least_calls=1).values()
    return times[0]
