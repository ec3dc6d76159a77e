"""Writing a model for use elsewhere, and checking what was written."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import ge
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .. import _checks
from .._extras import require
from .._files import whole_file
from ..conversion import FuseReport, fuse
from ..conversion.report import by_axis
from ..nn import DclsLayer
from . import onnx_file
from .agreement import Check, Reference
from .configuration import Configuration
from .copies import copied
from .errors import ExportError, reason
from .program import axis_names, least_sizes, read_program, run_program, trace, write_program
from .report import ExportReport, Format
from .weights import load, write_weights

DynamicSize = Literal["auto"] | bool
Positions = Literal["keep", "round"]

# Larger sizes are multiples of the same power of two, up to that by which image models divide.
_LARGEST_DIVISOR = 32
_OF_THE_MODEL = "model: "  # how an error begins that another size may not have


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: Format,
    example: Tensor | None = None,
    dynamic_size: DynamicSize = "auto",
    fused: bool = True,
    positions: Positions = "keep",
    opset: int | None = None,
    configuration: Configuration | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a model to a file, and compares the file's outputs with the model's.

    The model is not changed: a copy on the CPU, in evaluation mode, is written. The file appears only if its outputs
    agree with the model's up to rounding: at most ten times the difference of the model from itself in float64, plus
    some rounding units.

    Args:
        model: A model that takes one tensor (batch, channels, *sizes) of up to three sizes.
        path: The file, whose name ends in `to`.
        to: "onnx", for onnxruntime and other programs; "pt2", for torch.export; "safetensors", weights with DCLS layers
            kept, for `load`.
        example: An input, of any batch size. Not needed for "safetensors".
        dynamic_size: Whether the file takes other sizes than the example's. "auto": if the model allows it, else the
            report has the reason. True: yes, or raise an error. False: no.
        fused: Replace DCLS layers by plain convolutions. False is for "pt2" alone.
        positions: "round" moves elements to the nearest cell when layers are fused, see `torchdcls.fuse`.
        opset: ONNX's version of operators, 20 by default.
        configuration: How to make the model and prepare its inputs, put into the file as text.
        overwrite: Replace an existing file.
        progress: Called with the name of each step.

    Returns:
        A report of files and comparisons. `print` shows it.

    Raises:
        ValueError: An argument does not fit. No file is written or changed.
        ExportError: The model cannot be written, or the file's outputs differ. No file is written or changed.
        ModuleNotFoundError: A package is missing; the message says how to install it.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from torchdcls import Dcls1d
        >>> from torchdcls.deployment import export
        >>> model = nn.Sequential(Dcls1d(2, 4, 3, padding="same", dilated_kernel_size=7), nn.ReLU())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export(model, f"{folder}/model.pt2", to="pt2", example=torch.randn(1, 2, 32))
        >>> report.input
        ('batch', 2, 'length')
    """
    _checks.module("model", model)
    path, say = _checks.path(path), progress or (lambda step: None)
    _checks.flags(fused=fused, overwrite=overwrite)
    configuration = Configuration() if configuration is None else configuration
    _checks.of_type("configuration", configuration, Configuration, "a Configuration")
    _check_arguments(to, dynamic_size, fused, positions, opset)
    check_path(path, to, overwrite)
    if to == "onnx":
        require("an ONNX file", "export")
    if example is not None:
        example = _checked(example, to)
    elif to != "safetensors":
        raise ValueError(f"example: expected an input of the model for {to!r}, got None")
    configuration.to_text()  # what cannot be written is refused before anything is computed
    copy = copied(model).requires_grad_(False).eval()
    if to == "safetensors":
        # Flags are no part of the file.
        say("writing weights")
        return _export_weights(copy, path, example, configuration)
    assert example is not None
    say("computing the expected outputs")
    copy = copy.cpu()
    _try(copy, example)
    plain, fuse_report = _fused(copy, example, positions) if fused else (copy, None)
    reference = Reference(plain if positions == "round" else copy)
    sizes, note = _expected(reference, example, dynamic_size)
    reference.error()
    say("tracing the model")
    opset = (opset or onnx_file.DEFAULT_OPSET) if to == "onnx" else None
    with whole_file(path) as unfinished:
        writer = _Writer(plain, example, reference, unfinished, opset, configuration.with_format(), say)
        free, notes, checks = writer.write(sizes, note, dynamic_size)
        files = tuple((path.with_name(file.name), file.stat().st_size) for file in sorted(unfinished.parent.iterdir()))
    shape = tuple(free.get(axis, size) for axis, size in enumerate(example.shape))
    return ExportReport(path, to, files, opset, shape, fuse_report, notes, checks)


def check_path(path: Path, to: Format, overwrite: bool) -> None:
    """Raises an error if nothing can be written to a path.

    Raises:
        ValueError: The name has another ending, the folder is missing, or the file exists.
    """
    if path.suffix != f".{to}":
        raise ValueError(f"path: expected a name that ends in .{to}, got '{path}'")
    if not path.parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that exists, got '{path}'; make '{path.parent}' first")
    if path.is_dir():
        raise ValueError(f"path: expected a file, got '{path}', which is a folder")
    if path.exists() and not overwrite:
        raise ValueError(f"path: expected a new file, got '{path}', which exists; give another, or overwrite it")


def _check_arguments(to: object, dynamic_size: object, fused: object, positions: str, opset: int | None) -> None:
    _checks.one_of("to", to, get_args(Format))
    _checks.one_of("positions", positions, get_args(Positions))
    if dynamic_size != "auto" and not isinstance(dynamic_size, bool):
        wrong = ValueError if isinstance(dynamic_size, str) else _checks.WrongTypeError
        raise wrong(f"dynamic_size: expected 'auto', True or False, got {dynamic_size!r}")
    if opset is not None:
        if to != "onnx":
            raise ValueError(f"opset: expected none, as {to!r} has no opsets, got {opset!r}")
        expected = f"{onnx_file.OPSETS[0]} to {onnx_file.OPSETS[-1]}"
        _checks.of_type("opset", opset, int, expected)
        if opset not in onnx_file.OPSETS:
            raise ValueError(f"opset: expected {expected}, got {opset!r}; {onnx_file.DEFAULT_OPSET} is the default")
    if not fused and to == "onnx":
        raise ValueError("fused: expected True, as ONNX has no DCLS layers, got False")
    if positions == "round" and (to == "safetensors" or not fused):
        raise ValueError("positions: expected 'keep' where DCLS layers are kept, got 'round'")


def _checked(example: Tensor, to: Format) -> Tensor:
    """The example, on the CPU."""
    _checks.tensor("example", example)
    if not example.is_floating_point() or not 2 <= example.dim() <= 5 or 0 in example.shape:
        raise ValueError(
            "example: expected a floating-point tensor (batch, channels, *sizes) with up to three sizes, got "
            f"{example.dtype} of shape {tuple(example.shape)}"
        )
    if to == "onnx" and example.dtype not in onnx_file.DTYPES:
        raise ValueError(
            f"example: expected float32, float16 or float64 for ONNX, got {example.dtype}; use model.float()"
        )
    return example.detach().cpu()


def _fused(model: nn.Module, example: Tensor, positions: Positions) -> tuple[nn.Module, FuseReport | None]:
    """A copy with plain convolutions, or the model itself where there is nothing to fuse."""
    if not any(isinstance(module, DclsLayer) for module in model.modules()):
        return model, None
    plain = copied(model)
    if isinstance(plain, DclsLayer):
        plain = nn.Sequential(plain).eval()
    return plain, fuse(
        plain,
        positions="exact" if positions == "keep" else "round",
        example=example if positions == "round" else None,
    )


def _expected(reference: Reference, example: Tensor, dynamic_size: DynamicSize) -> tuple[list[tuple[int, ...]], str]:
    """Computes the expected outputs for several batch sizes, and for several sizes where the model takes them.

    Returns:
        Sizes that the model takes, the example's first; and why there are no others, where some were asked for.
    """
    own = tuple(example.shape[2:])
    for batch in (1, 3):
        try:
            reference.add(_input(example, batch, own))
        except Exception as error:
            raise ExportError(
                f"model: expected one that takes any batch size, got {reason(error)} for {batch}"
            ) from None
    if not own or not dynamic_size:
        return [own], ""
    first, second = _larger(own, 1), _larger(own, 2)
    sizes = [first, (second[0], *first[1:])]  # not square
    try:
        for batch, size in zip((3, 1), sizes, strict=True):
            reference.add(_input(example, batch, size))
    except Exception as error:
        return [own], f"the model itself takes no other size, such as {by_axis(first)} ({reason(error)})"
    return [own, *sizes], ""


# The names of the free axes, sentences about them, and the comparisons.
_Written = tuple[dict[int, str], tuple[str, ...], tuple[Check, ...]]


@dataclass(frozen=True)
class _Writer:
    """Traces a model, writes the program to a file, and compares both with the model."""

    model: nn.Module
    example: Tensor
    reference: Reference  # with the expected outputs
    path: Path
    opset: int | None  # None for a file of torch.export
    text: str  # the configuration
    say: Callable[[str], None]

    def write(self, sizes: list[tuple[int, ...]], note: str, dynamic_size: DynamicSize) -> _Written:
        """Writes with free sizes where there are several; if any part of it fails, with the example's.

        Args:
            sizes, note: As `_expected` returns them.
            dynamic_size: As in `export`.
        """
        if len(sizes) > 1:
            try:
                return self._written(sizes)
            except ExportError as error:
                if dynamic_size is True and not str(error).startswith(_OF_THE_MODEL):
                    raise
                note = _after_name(error)
        if note and dynamic_size is True:
            raise ExportError(f"dynamic_size: expected a model that can be written for all sizes, but {note}")
        free, notes, checks = self._written(sizes[:1])
        return free, (f"the size is fixed at {by_axis(sizes[0])}: {note}",) if note else notes, checks

    def _written(self, sizes: list[tuple[int, ...]]) -> _Written:
        several = len(sizes) > 1
        names = axis_names(self.example.dim())
        free = names if several else {0: names[0]}
        # A program keeps the limits under which it was traced. ONNX has none, so that the largest input is traced,
        # in which no axis has size 1.
        program = trace(self.model, _input(self.example, 2, sizes[0 if self.opset is None else -1]), free)
        least = least_sizes(program) if several else sizes[0]
        taken = [size for size in sizes if self.opset is None or all(map(ge, size, least))]
        try:
            self.reference.check(run_program(program.module()), "the program that torch.export makes", taken)
        except ExportError as error:
            but = "" if several else "expected one that torch.export follows for any batch size, but "
            raise ExportError(f"{_OF_THE_MODEL}{but}{_after_name(error)}") from None
        self.say("writing and checking the file")
        for file in self.path.parent.iterdir():  # of an earlier attempt
            file.unlink()
        if self.opset is not None:
            onnx_file.write_onnx(program, self.path, opset=self.opset, free=free, text=self.text)
            return free, (), self.reference.check(onnx_file.run_onnx(self.path), "the ONNX file", sizes)
        write_program(program, self.path, self.text)
        notes = (f"sizes from {by_axis(least)} up",) if several else ()
        run = run_program(read_program(self.path))
        return free, notes, self.reference.check(run, "torch.export's file", sizes)


def _after_name(error: ExportError) -> str:
    return str(error).removeprefix(_OF_THE_MODEL)


def _export_weights(model: nn.Module, path: Path, example: Tensor | None, configuration: Configuration) -> ExportReport:
    checks: tuple[Check, ...] = ()
    with whole_file(path) as unfinished:
        write_weights(model, unfinished, configuration)
        if example is not None:
            _try(model.cpu(), example)
            reference = Reference(model)
            _expected(reference, example, False)
            restored = load(unfinished, None if configuration.model else copied(model)).eval()
            checks = reference.check(run_program(restored), "the file's model")
        files = ((path, unfinished.stat().st_size),)
    return ExportReport(path, "safetensors", files, checks=checks)


def _larger(sizes: tuple[int, ...], steps: int) -> tuple[int, ...]:
    """Sizes that are larger by `steps` halves, and divisible by the same power of two as the given ones."""
    larger = []
    for size in sizes:
        divisor = min(size & -size, _LARGEST_DIVISOR)
        larger.append(size + steps * divisor * -(-size // (2 * divisor)))
    return tuple(larger)


def _input(example: Tensor, batch: int, sizes: tuple[int, ...]) -> Tensor:
    """Random numbers with the example's mean and standard deviation; the same in every call."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((batch, example.shape[1], *sizes), generator=generator, dtype=torch.float64)
    spread = example.double().std() if example.numel() > 1 else torch.tensor(1.0)
    return (values * spread.clamp_min(1e-3) + example.double().mean()).to(example.dtype)


def _try(model: nn.Module, example: Tensor) -> None:
    try:
        with torch.no_grad():
            model(example)
    except Exception as error:
        raise ValueError(
            f"example: expected an input that the model takes, got {example.dtype} of shape {tuple(example.shape)} "
            f"({reason(error)})"
        ) from None
