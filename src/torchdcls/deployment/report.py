"""The result of an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..conversion import FuseReport
from ..conversion.fuse import moved_onto_the_grid
from ..conversion.report import by_axis, counted
from .agreement import Check

Format = Literal["onnx", "pt2", "safetensors"]


@dataclass(frozen=True)
class ExportReport:
    """The result of `torchdcls.deployment.export`; `print` shows it.

    Attributes:
        path: The file.
        to: Its format.
        files: All files, with their sizes in bytes: ONNX weights of more than 1.5 GiB are in a second one.
        opset: ONNX's version of operators, None for the other formats.
        input: Shape of the input, with names for the axes whose sizes are free; None for safetensors.
        fused: Report of `torchdcls.fuse`; None if DCLS layers were kept, or there are none.
        notes: Remarks, such as why sizes are fixed.
        checks: Comparisons of the file with the model.
    """

    path: Path
    to: Format
    files: tuple[tuple[Path, int], ...]
    opset: int | None = None
    input: tuple[int | str, ...] | None = None
    fused: FuseReport | None = None
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    def __str__(self) -> str:
        size = sum(count for _, count in self.files)
        kind = {"onnx": f"ONNX, opset {self.opset}", "pt2": "torch.export", "safetensors": "weights"}[self.to]
        lines = [f"{self.path}: {kind}, {_bytes(size)}"]
        lines += [f"  beside it: {path.name}, {_bytes(count)}" for path, count in self.files if path != self.path]
        if self.input is not None:
            lines.append(f"  input ({', '.join(map(str, self.input))})")
        if self.fused is not None:
            line = f"  {counted(len(self.fused.fused), 'DCLS layer')} fused into plain convolutions"
            if self.fused.output_difference is not None:
                line += f", which changed the output by {self.fused.output_difference:.2g} of its norm"
            lines.append(line)
            if self.fused.clamped:
                lines.append(f"  {moved_onto_the_grid(self.fused.clamped)}")
        lines += [f"  {note}" for note in self.notes]
        lines += [
            f"  {by_axis(check.shape)}: largest difference from the model {check.difference:.2g} "
            f"(allowed {check.tolerance:.2g})"
            for check in self.checks
        ]
        return "\n".join(lines)


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
