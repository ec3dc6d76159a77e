"""ConvNeXt-T of torch alone (Liu et al., arXiv:2201.03545), with timm's names: a session has no timm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS, WIDTHS, CLASSES = (3, 3, 9, 3), (96, 192, 384, 768), 1000


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of (batch, channels, height, width)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, input: Tensor) -> Tensor:
        inner = self.norm(self.conv_dw(input).permute(0, 2, 3, 1))
        inner = self.mlp["fc2"](F.gelu(self.mlp["fc1"](inner))) * self.gamma
        output: Tensor = input + inner.permute(0, 3, 1, 2)
        return output


class Stage(nn.Module):
    def __init__(self, before: int, width: int, depth: int) -> None:
        super().__init__()
        halved = [LayerNorm2d(before, eps=1e-6), nn.Conv2d(before, width, 2, stride=2)]
        self.downsample = nn.Sequential(*halved if before != width else [])
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.blocks(self.downsample(input))
        return output


class ConvNeXt(nn.Module):
    """(batch, 3, height, width) to (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, stride=4), LayerNorm2d(WIDTHS[0], eps=1e-6))
        before = (WIDTHS[0], *WIDTHS[:-1])
        self.stages = nn.Sequential(*map(Stage, before, WIDTHS, DEPTHS))
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(WIDTHS[-1], eps=1e-6), "fc": nn.Linear(WIDTHS[-1], CLASSES)})

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head["fc"](self.head["norm"](self.stages(self.stem(images)).mean((2, 3))))
        return output
