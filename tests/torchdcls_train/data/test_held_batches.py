"""Batches of images held in memory: order, augmentation, and what a seed decides on."""

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from torchdcls_train.data.held_batches import HeldBatches
from torchdcls_train.data.image_set import ImageSet
from torchdcls_train.data.in_memory import images_per_epoch

MEAN, STD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (10, 3, 12, 11), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(10))


def passed(batches: HeldBatches) -> list[Tensor]:
    """A pass: images and labels in turn."""
    return [tensor for batch in batches for tensor in (batch.images, batch.labels)]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_without_draws_everything_comes_in_order(images: ImageSet) -> None:
    batches = HeldBatches(images, 4, MEAN, STD)
    got = passed(batches)
    assert [len(labels) for labels in got[1::2]] == [4, 4, 2] and len(batches) == 3
    assert torch.cat(got[1::2]).tolist() == list(range(10))
    expected = (images.images / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert got[0].dtype == torch.float32
    torch.testing.assert_close(torch.cat(got[::2]), expected)


def test_training_shuffles_and_drops_the_rest(images: ImageSet) -> None:
    labels = passed(HeldBatches(images, 4, MEAN, STD, 0))[1::2]
    assert [len(batch) for batch in labels] == [4, 4]
    seen = torch.cat(labels).tolist()
    assert len(set(seen)) == 8 and seen != sorted(seen)


@pytest.mark.parametrize("batch_size", [10, 64])
def test_training_never_has_zero_batches(images: ImageSet, batch_size: int) -> None:
    assert [len(batch) for batch in passed(HeldBatches(images, batch_size, MEAN, STD, 0))[1::2]] == [10]


@pytest.mark.parametrize(("count", "expected"), [(100, 64), (128, 128), (10, 10)])
def test_images_per_epoch_are_those_of_a_pass(count: int, expected: int) -> None:
    images = ImageSet(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    batches = HeldBatches(images, 64, torch.zeros(1), torch.ones(1), 0)
    sizes = [len(batch.labels) for batch in batches]
    assert sum(sizes) == images_per_epoch(images, 64) == expected and len(sizes) == len(batches)


def test_augmentation_is_a_shift_by_at_most_the_padding_or_its_mirror(images: ImageSet) -> None:
    # 11 // 14 is 0; the padding is at least 1.
    padded = torch.nn.functional.pad(images.images, (1, 1, 1, 1))
    seen = set()
    batches = HeldBatches(images, 10, torch.zeros(3), torch.ones(3), 0)
    for _ in range(20):
        for batch in batches:
            assert batch.images.is_contiguous()
            for image, label in zip((batch.images * 255).round().byte(), batch.labels, strict=True):
                moves = {
                    (top, left, mirrored)
                    for top in range(3)
                    for left in range(3)
                    for mirrored in (False, True)
                    if torch.equal(
                        image.flip(-1) if mirrored else image, padded[label, :, top : top + 12, left : left + 11]
                    )
                }
                assert len(moves) == 1
                seen |= moves
    assert len(seen) == 18


def test_same_seed_same_passes_other_seed_others(images: ImageSet) -> None:
    first, again, other = (HeldBatches(images, 4, MEAN, STD, seed) for seed in (3, 3, 4))
    one, two = passed(first), passed(first)
    assert not equal(one, two)
    assert equal(one, passed(again)) and equal(two, passed(again))
    assert not equal(one, passed(other))


def test_the_global_generator_is_left_alone_and_has_no_say(images: ImageSet) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = passed(HeldBatches(images, 4, MEAN, STD, 0))
    assert torch.equal(torch.get_rng_state(), before)

    torch.manual_seed(2)
    second = []
    for batch in HeldBatches(images, 4, MEAN, STD, 0):
        second += [batch.images, batch.labels]
        torch.rand(5)  # a model's dropout between two batches
    assert equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_scaled_as_by_torchvision(channels: int) -> None:
    """Bit for bit, strides included: torch takes the strides of one channel for a memory format."""
    mean, std = MEAN[:channels], STD[:channels]
    pixels = torch.randint(256, (10, channels, 28, 30), dtype=torch.uint8, generator=Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(10))
    scale = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean.tolist(), std.tolist())])
    (plain,) = HeldBatches(images, 10, mean, std)
    (moved,) = HeldBatches(images, 10, mean, std, 5)
    assert torch.equal(plain.images, scale(pixels))
    assert moved.images.stride() == plain.images.stride() == torch.empty(pixels.shape).stride()


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, float("nan")])
def test_batch_size_is_checked(images: ImageSet, batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"batch_size: expected"):
        HeldBatches(images, batch_size, MEAN, STD)


def test_mean_and_std_are_checked(images: ImageSet) -> None:
    for mean in (MEAN[:1], MEAN[None], torch.tensor([0.1, float("nan"), 0.3])):
        with pytest.raises(ValueError, match=r"mean: expected 3 finite numbers, one per channel"):
            HeldBatches(images, 4, mean, STD)
    with pytest.raises(ValueError, match=r"std: expected 3 finite numbers, one per channel"):
        HeldBatches(images, 4, MEAN, STD[:2])
    with pytest.raises(ValueError, match=r"std: expected positive numbers"):
        HeldBatches(images, 4, MEAN, STD - 0.5)
