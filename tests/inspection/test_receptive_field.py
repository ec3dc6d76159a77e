"""Receptive fields against the textbook's recursion, published numbers, and the gradients of small models."""

from collections.abc import Callable, Sequence

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from torchdcls.inspection import ReceptiveField, receptive_field


def field_of(make: Callable[[], nn.Module], size: int = 224) -> ReceptiveField:
    with torch.device("meta"):
        return receptive_field(make().eval(), torch.empty(1, 3, size, size))


def recursion(layers: Sequence[tuple[int, int]]) -> int:
    """Pixels that a chain of (kernel, stride) sees."""
    seen, jump = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * jump
        jump *= stride
    return seen


# Computing receptive fields of convolutional neural networks (Araujo et al., Distill 2019), but for ResNet-50, whose
# stride is in the 3x3 convolution here and in the 1x1 there: test_resnet50_is_the_recursion has it.
@pytest.mark.parametrize(
    ("name", "pixels"), [("alexnet", 195), ("vgg16", 212), ("inception_v3", 1311), ("resnet18", 435)]
)
def test_published_numbers(name: str, pixels: int) -> None:
    arguments = {"init_weights": False} if name == "inception_v3" else {}
    field = field_of(lambda: torchvision.models.get_model(name, **arguments), 299 if name == "inception_v3" else 224)
    assert (field.size, field.local, field.exact) == ((pixels, pixels), (pixels, pixels), True)
    assert str(field) == f"{pixels:,} x {pixels:,}"


def test_resnet50_is_the_recursion() -> None:
    blocks = [(3, 1)] * 3
    for count in (4, 6, 3):
        blocks += [(3, 2), *[(3, 1)] * (count - 1)]
    assert field_of(lambda: timm.create_model("resnet50")).size == (recursion([(7, 2), (3, 2), *blocks]),) * 2


@pytest.mark.parametrize("module", ["timm", "torchvision"])
def test_convnext_is_the_recursion(module: str) -> None:
    layers = [(4, 4)]
    for stage, count in enumerate((3, 3, 9, 3)):
        layers += ([(2, 2)] if stage else []) + [(7, 1)] * count
    make = timm.create_model if module == "timm" else torchvision.models.get_model
    assert field_of(lambda: make("convnext_tiny")).size == (recursion(layers),) * 2


class Branches(nn.Module):
    """Two ways that meet, one of them through transposed axes, views and slices."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.other = nn.Conv2d(3, 4, (5, 1), stride=2, padding=(2, 0))
        self.mix = nn.Linear(8, 6)

    def forward(self, images: Tensor) -> Tensor:
        both = torch.cat([self.one(images), self.other(images)], 1).permute(0, 2, 3, 1)
        mixed = self.mix(both.reshape(-1, 8)).view(*both.shape[:3], 6).permute(0, 3, 1, 2)
        return nn.functional.pad(mixed, (1, 1, 0, 0))[:, 1:, 1:-1, 1:]


class Cut(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        one, other, _ = images.unbind(1)
        return torch.stack([one, other], 1)[..., ::2, 3:].relu_()


MODELS = {
    "chain": (lambda: nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3)), True),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=4, padding=4), nn.AvgPool2d(2)), True),
    "oblong": (lambda: nn.Conv2d(3, 4, (7, 2), stride=(1, 3), padding=(3, 0)), True),
    "reflected": (lambda: nn.Conv2d(3, 4, 7, padding=3, padding_mode="reflect"), True),
    "branches": (Branches, True),
    "cut": (Cut, True),
    "adaptive": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(5)), True),
    "adaptive, uneven": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(7)), False),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 3, 4, 2, 1)), True),
    "nearest": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Upsample(scale_factor=2)), True),
    "bilinear": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.UpsamplingBilinear2d(scale_factor=3)), True),
    "bicubic": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bicubic")), True),
}


def seen_by(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Rows and columns over which the pixels lie that change some cell in the middle of the output most."""
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    images = images.requires_grad_()
    output = model(images)
    most = [0, 0]
    middle = [size // 2 for size in output.shape[2:]]
    for row in range(middle[0] - 2, middle[0] + 3):
        for column in range(middle[1] - 2, middle[1] + 3):
            (gradient,) = torch.autograd.grad(output[0, :, row, column].sum(), images, retain_graph=True)
            for axis, others in enumerate(((0, 1, 3), (0, 1, 2))):
                cells = gradient.abs().amax(others).nonzero().flatten()
                most[axis] = max(most[axis], int(cells[-1] - cells[0]) + 1)
    return most[0], most[1]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_as_far(name: str) -> None:
    make, exact = MODELS[name]
    model = make().double().eval()
    # Pixels fall towards the middle, so that a maximum is not always at the same side of its window.
    images = 1 + torch.rand(1, 3, 47, 47, dtype=torch.float64)
    field = receptive_field(model, images.detach())
    reached = [0, 0]
    for _ in range(4):  # which pixel is a maximum differs
        found = seen_by(model, 1 + torch.rand(1, 3, 47, 47, dtype=torch.float64))
        reached = [max(pair) for pair in zip(reached, found, strict=True)]
    assert field.exact is exact
    assert not field.unknown and not field.whole
    if exact:
        assert field.size == tuple(reached)
    else:
        assert all(bound >= pixels for bound, pixels in zip(field.size, reached, strict=True))
        assert all(bound <= 2 * pixels + 4 for bound, pixels in zip(field.size, reached, strict=True))
        assert str(field).startswith("at most ")


@pytest.mark.parametrize(
    ("make", "by", "local"),
    [
        (lambda: timm.create_model("efficientnet_b0"), "SqueezeExcite", 851),
        (lambda: timm.create_model("vit_tiny_patch16_224"), "Attention", 16),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224"), "WindowAttention", 224),
        (lambda: timm.create_model("mixer_b16_224"), "Linear", 16),
        (lambda: timm.create_model("poolformer_s12"), "GroupNorm1", 431),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)), "InstanceNorm2d", 3),
        (lambda: timm.create_model("edgenext_small"), "CrossCovarianceAttn", 1672),
        # Each pixel attends to those at the same place of all patches.
        (lambda: timm.create_model("mobilevit_xxs"), "Attention", 267),
    ],
)
def test_what_reads_the_whole_map_makes_it_the_whole_image(make: Callable[[], nn.Module], by: str, local: int) -> None:
    field = field_of(make)
    assert field.size == (None, None)
    assert by in field.whole
    assert field.local == (local, local)
    assert str(field).startswith("whole image (")


def test_pooling_to_a_vector_is_not_the_last_map() -> None:
    field = field_of(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    assert field.size == (3, 3)


def test_one_axis_may_be_whole() -> None:
    class Strip(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * images.mean(2, keepdim=True)

    field = field_of(Strip)
    assert (field.size, str(field)) == ((None, 1), "whole x 1")


class Gated(nn.Module):
    """Weights, and a gate, that are made from the whole image."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.pool = how, nn.AdaptiveMaxPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(images)
        if self.how == "gate":
            return images * pooled.sigmoid()
        return nn.functional.conv2d(images, pooled.reshape(1, 3, 1, 1).expand(4, 3, 1, 1))


@pytest.mark.parametrize("how", ["gate", "weights"])
def test_gates_and_weights_made_of_the_whole_image(how: str) -> None:
    field = field_of(lambda: Gated(how))
    assert (field.size, field.whole) == ((None, None), ("AdaptiveMaxPool2d",))


class Uneven(nn.Module):
    """Channels cut into unequal parts, of which the smaller is read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 5)

    def forward(self, images: Tensor) -> Tensor:
        _, last = images.split([2, 1], 1)
        return self.conv(last.reshape(-1, 1, *last.shape[2:]))


def test_uneven_parts() -> None:
    assert field_of(Uneven).size == (5, 5)


class Windows(nn.Module):
    """Attention within windows of two rows, then a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.unflatten(2, (-1, 2)).permute(0, 2, 4, 3, 1)  # batch, window, column, row, channel
        read = nn.functional.scaled_dot_product_attention(rows, rows, rows)
        return self.conv(read.permute(0, 4, 1, 3, 2).flatten(2, 3))


def test_attention_within_windows() -> None:
    field = field_of(Windows)
    assert (field.size, field.whole, str(field)) == ((4, 3), (), "at most 4 x 3")


class Chosen(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[..., torch.tensor([3, 1, 2])]


class Spectra(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.fft.rfft2(images).abs()


@pytest.mark.parametrize("make", [Chosen, Spectra])
def test_what_is_not_followed_is_not_guessed(make: Callable[[], nn.Module]) -> None:
    field = field_of(make)
    assert field.unknown
    assert field.local is None
    assert str(field).startswith("not known (")


@pytest.mark.parametrize("size", [32, 64])
def test_maps_of_one_cell_know_how_far_the_next_would_be(size: int) -> None:
    layers = [(3, 2)] * 5 + [(3, 1), (5, 1)]
    field = field_of(lambda: nn.Sequential(*(nn.Conv2d(3, 3, k, s, padding=k // 2) for k, s in layers)), size)
    assert (field.size, field.exact) == ((recursion(layers),) * 2, True)


def test_no_map_is_not_known() -> None:
    field = receptive_field(nn.Linear(4, 3), torch.randn(2, 4))
    assert str(field) == "not known (the model returns no feature map)"


def test_one_and_three_axes() -> None:
    assert receptive_field(nn.Conv1d(2, 2, 9, stride=2), torch.randn(1, 2, 40)).size == (9,)
    assert receptive_field(nn.Conv3d(2, 2, (1, 3, 5)), torch.randn(1, 2, 8, 8, 8)).size == (1, 3, 5)
