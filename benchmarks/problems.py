"""The problems that benchmarks are run on, by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConstructionProblem:
    """The kernels of one stage's depthwise layers: how many, how large, out of how many elements.

    Args:
        channels: Kernels per layer, one per channel.
        dilated_kernel_size: Size of the dense kernel (rows, columns). Unit: cells.
        kernel_count: Elements per kernel.
        layers: How many layers of the model have this shape.
    """

    channels: int
    dilated_kernel_size: tuple[int, int]
    kernel_count: int
    layers: int

    def __str__(self) -> str:
        rows, columns = self.dilated_kernel_size
        return f"{self.channels} channels, {rows}x{columns}, {self.kernel_count} elements, layers: {self.layers}"


# ConvNeXt-T with Gaussian layers: 26 elements are the most at 23x23 that do not exceed the 7x7 model's parameters.
CONSTRUCTION = {
    f"convnext-t-stage-{stage}": ConstructionProblem(channels, (23, 23), 26, layers)
    for stage, (channels, layers) in enumerate([(96, 3), (192, 3), (384, 9), (768, 3)], start=1)
}
