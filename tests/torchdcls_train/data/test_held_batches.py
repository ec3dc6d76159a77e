"""Batches of images held in memory: order, augmentation, and what a seed decides on."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from torchdcls_train.data.held_batches import BatchDraws, Draws, HeldBatches, ImageDraws
from torchdcls_train.data.image_set import ImageSet
from torchdcls_train.data.named import images_per_epoch

MEAN, STD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
Seeded = Callable[[int], Draws]


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (10, 3, 12, 11), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(10))


@pytest.fixture(params=[ImageDraws, BatchDraws])
def draws(request: pytest.FixtureRequest) -> Seeded:
    return request.param  # type: ignore[no-any-return]


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


def test_training_shuffles_and_drops_the_rest(images: ImageSet, draws: Seeded) -> None:
    labels = passed(HeldBatches(images, 4, MEAN, STD, draws(0)))[1::2]
    assert [len(batch) for batch in labels] == [4, 4]
    seen = torch.cat(labels).tolist()
    assert len(set(seen)) == 8 and seen != sorted(seen)


@pytest.mark.parametrize("batch_size", [10, 64])
def test_training_never_has_zero_batches(images: ImageSet, draws: Seeded, batch_size: int) -> None:
    assert [len(batch) for batch in passed(HeldBatches(images, batch_size, MEAN, STD, draws(0)))[1::2]] == [10]


@pytest.mark.parametrize(("count", "expected"), [(100, 64), (128, 128), (10, 10)])
def test_images_per_epoch_are_those_of_a_pass(count: int, expected: int, draws: Seeded) -> None:
    images = ImageSet(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    batches = HeldBatches(images, 64, torch.zeros(1), torch.ones(1), draws(0))
    sizes = [len(batch.labels) for batch in batches]
    assert sum(sizes) == images_per_epoch(images, 64) == expected and len(sizes) == len(batches)


def test_augmentation_is_a_shift_by_at_most_the_padding_or_its_mirror(images: ImageSet, draws: Seeded) -> None:
    # 11 // 14 is 0; the padding is at least 1.
    padded = torch.nn.functional.pad(images.images, (1, 1, 1, 1))
    seen = set()
    batches = HeldBatches(images, 10, torch.zeros(3), torch.ones(3), draws(0))
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


def test_same_seed_same_passes_other_seed_others(images: ImageSet, draws: Seeded) -> None:
    first, again, other = (HeldBatches(images, 4, MEAN, STD, draws(seed)) for seed in (3, 3, 4))
    one, two = passed(first), passed(first)
    assert not equal(one, two)
    assert equal(one, passed(again)) and equal(two, passed(again))
    assert not equal(one, passed(other))


def test_the_global_generator_is_left_alone_and_has_no_say(images: ImageSet, draws: Seeded) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = passed(HeldBatches(images, 4, MEAN, STD, draws(0)))
    assert torch.equal(torch.get_rng_state(), before)

    torch.manual_seed(2)
    second = []
    for batch in HeldBatches(images, 4, MEAN, STD, draws(0)):
        second += [batch.images, batch.labels]
        torch.rand(5)  # a model's dropout between two batches
    assert equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [10, 30])
def test_a_comparison_seed_keeps_what_torchs_loader_gave_it(channels: int, count: int) -> None:
    """Bit for bit, strides included: torch takes the strides of one channel for a memory format."""

    class Augmented(Dataset[tuple[Tensor, Tensor]]):
        def __init__(self, seed: int) -> None:
            self.stream = Generator().manual_seed(seed).get_state()
            self.augment = v2.Compose([v2.RandomCrop((28, 30), padding=2), v2.RandomHorizontalFlip()])

        def __len__(self) -> int:
            return count

        def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.stream)
                batch = [(self.augment(pixels[index]), torch.tensor(index)) for index in indices]
                self.stream = torch.get_rng_state()
            return batch

    def normalized(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, labels = zip(*samples, strict=True)
        scale = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean.tolist(), std.tolist())])
        return scale(torch.stack(images)), torch.stack(labels)

    pixels = torch.randint(256, (count, channels, 28, 30), dtype=torch.uint8, generator=Generator().manual_seed(0))
    mean, std = MEAN[:channels], STD[:channels]
    order = Generator().manual_seed(5)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        Augmented(int(torch.randint(2**62, (), generator=order))),
        16,
        shuffle=True,
        drop_last=count >= 16,
        generator=order,
        collate_fn=normalized,
    )
    batches = HeldBatches(ImageSet(pixels, torch.arange(count)), 16, mean, std, ImageDraws(5))
    for _ in range(3):
        expected, got = [tensor for batch in loader for tensor in batch], passed(batches)
        assert equal(expected, got)
        assert [tensor.stride() for tensor in expected] == [tensor.stride() for tensor in got]


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
