"""Results of conversions, for people and for code to read."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._checks import first_names


@dataclass(frozen=True)
class Replaced:
    """A layer that was replaced.

    Attributes:
        name: The layer.
        stage: Name of the layers it shares positions with.
        channels: Its output channels.
        old_kernel_size: Size of the convolution's kernel.
        new_kernel_size: Size of the new layer's dense kernel.
        residual: Norm of the difference of old and new kernel, centers aligned, over the norm of the old kernel. None
            for random weights.
    """

    name: str
    stage: str
    channels: int
    old_kernel_size: tuple[int, ...]
    new_kernel_size: tuple[int, ...]
    residual: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A convolution that was left alone, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """The result of `torchdcls.convert`.

    Attributes:
        replaced: Layers that were replaced, in the model's order.
        skipped: Convolutions that were left alone, each with the reason.
        kernel_count: Elements per layer, as given or as found by "iso".
        parameters_before: Parameters of the model before. A shared parameter counts once.
        parameters_after: The same after.
        warning: The warning that too little of the kernels could be kept, with a count that is enough; or None.
    """

    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...]
    kernel_count: int
    parameters_before: int
    parameters_after: int
    warning: str | None = None

    @property
    def mean_residual(self) -> float | None:
        """Mean of the layers' residuals; None where weights are random."""
        residuals = [row.residual for row in self.replaced if row.residual is not None]
        return sum(residuals) / len(residuals) if residuals else None

    def __str__(self) -> str:
        lines = [
            f"{counted(len(self.replaced), 'layer')} replaced, {counted(len(self.skipped), 'convolution')} skipped, "
            f"{counted(self.kernel_count, 'element')} per kernel",
            f"parameters: {self.parameters_before:,} before, {self.parameters_after:,} after "
            f"({self.parameters_after - self.parameters_before:+,})",
        ]
        if self.mean_residual is not None:
            lines.append(f"mean residual: {self.mean_residual:.2g}")
        if self.warning is not None:
            lines.append(f"warning: {self.warning}")
        names = [row.name for row in self.replaced] + [row.name for row in self.skipped]
        width = max(map(len, names))
        for row in self.replaced:
            kernels = f"{by_axis(row.old_kernel_size)} -> {by_axis(row.new_kernel_size)}"
            residual = "" if row.residual is None else f", residual {row.residual:.2g}"
            lines.append(f"  {row.name:<{width}}  {kernels}  {row.channels} channels, stage {row.stage}{residual}")
        for skip in self.skipped:
            lines.append(f"  {skip.name:<{width}}  skipped: {skip.reason}")
        return "\n".join(lines)


def mismatch(missing: Sequence[str], foreign: Sequence[str], other: Sequence[str]) -> str:
    """How the tensors of a file differ from a model's: absent, added, of another shape. Empty if they do not."""
    kinds = (("it lacks", missing), ("it also has", foreign), ("shapes differ for", other))
    return "; ".join(f"{words} {first_names(names)}" for words, names in kinds if names)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 layer", "2 layers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by_axis(size: tuple[int, ...]) -> str:
    """A size as in "7x7"."""
    return "x".join(map(str, size))
