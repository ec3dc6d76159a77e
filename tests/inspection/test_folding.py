"""Receptive fields of networks that fold an axis into another, take it apart and put it together, against gradients."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from torchdcls.inspection import ReceptiveField, receptive_field

# A step takes (batch, channels, time, height, width) and returns the same, of other sizes.
Step = Callable[[Tensor], Tensor]
SHAPE = (2, 2, 13, 17, 16)
CHANNELS = 2


class Steps(nn.Module):
    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images


def weights(*shape: int) -> Tensor:
    """Positive ones, so that no two ways to a pixel cancel."""
    return torch.rand(shape, dtype=torch.float64) + 0.5


def extent(output: Tensor, images: Tensor, cell: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last pixel along each axis of the map that change a cell of the output."""
    (gradient,) = torch.autograd.grad(output[(slice(None), slice(None), *cell)].sum(), images, retain_graph=True)
    ends = []
    for axis in range(2, images.dim()):
        others = [place for place in range(images.dim()) if place != axis]
        reached = gradient.abs().amax(others).nonzero().flatten().tolist() or [0, -1]  # padding alone has none
        ends.append((reached[0], reached[-1]))
    return ends


def check(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[ReceptiveField, int]:
    """Holds what is claimed against the gradients of cells; and how many of these show the claim in full.

    A cell reads at most as many pixels as claimed, and fewer only at the borders.
    """
    images = (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()
    field = receptive_field(model, images.detach())
    if field.unknown:
        assert (field.local, field.exact) == (None, False)
        return field, 0
    output = model(images)
    decided = 0
    middle = tuple(n // 2 for n in output.shape[2:])
    corner = (middle[0], *[0] * (len(middle) - 1))
    for cell in (middle, tuple(max(place - 1, 0) for place in middle), corner):
        for size, pixels, (first, last) in zip(shape[2:], field.size, extent(output, images, cell), strict=True):
            reached = last - first + 1
            if not reached:
                continue
            if pixels is None:
                assert reached >= size - 3, (field, cell)  # a stride may leave pixels over
                continue
            missing = pixels - reached
            assert missing >= 0, (field, cell)
            if field.exact and cell != corner:
                assert not missing or missing > first or missing > size - 1 - last, (field, cell)
                decided += not missing
    return field, decided


def frame_filter(size: int = 3) -> Step:
    weight = weights(CHANNELS, CHANNELS, size, size)
    return lambda frames: functional.conv2d(frames, weight, padding=size // 2)


def over_time(images: Tensor, size: int = 3) -> Tensor:
    return functional.conv3d(images, weights(CHANNELS, CHANNELS, size, 1, 1), padding=(size // 2, 0, 0))


def folded(images: Tensor) -> Tensor:
    frames = frame_filter(7)(images.transpose(1, 2).flatten(0, 1))
    return frames.unflatten(0, (images.shape[0], images.shape[2])).transpose(1, 2)


def viewed(images: Tensor) -> Tensor:
    batch, channels, time, height, width = images.shape
    frames = images.permute(2, 0, 1, 3, 4).reshape(-1, channels, height, width)
    return frame_filter(7)(frames).view(time, batch, channels, height, width).permute(1, 2, 0, 3, 4)


def unbound(images: Tensor) -> Tensor:
    layer = frame_filter(7)
    return torch.stack([layer(frame) for frame in images.unbind(2)], 2)


def indexed(images: Tensor) -> Tensor:
    layer = frame_filter(7)
    return torch.stack([layer(images[:, :, time]) for time in range(images.shape[2])], 2)


def sliced(images: Tensor) -> Tensor:
    layer = frame_filter(7)
    return torch.cat([layer(images[:, :, time])[:, :, None] for time in range(images.shape[2])], 2)


def chunked(images: Tensor) -> Tensor:
    weight = weights(CHANNELS, CHANNELS, 1, 7, 7)
    return torch.cat([functional.conv3d(part, weight, padding=(0, 3, 3)) for part in images.chunk(3, 2)], 2)


def mapped(images: Tensor) -> Tensor:
    return torch.vmap(frame_filter(7), 2, 2)(images)


def batch_taken_apart(images: Tensor) -> Tensor:
    time = images.shape[2]
    rows = frame_filter(7)(images.transpose(1, 2).flatten(0, 1)).split(time)
    return torch.stack(rows, 0).transpose(1, 2)


def frames_one_by_one(images: Tensor) -> Tensor:
    """Of the folded batch each frame by its number, and the first film's put together again."""
    layer = frame_filter(7)
    frames = images.transpose(1, 2).flatten(0, 1).unbind(0)
    return torch.stack([layer(frame[None]) for frame in frames[: images.shape[2]]], 2)


def frames_as_channels(images: Tensor) -> Tensor:
    """Each frame filtered by itself, as groups of channels."""
    batch, channels, time, *size = images.shape
    weight = weights(time * channels, channels, 7, 7)
    frames = functional.conv2d(images.transpose(1, 2).flatten(1, 2), weight, padding=3, groups=time)
    return frames.view(batch, time, channels, *size).transpose(1, 2)


def frames_as_depthwise_channels(images: Tensor) -> Tensor:
    count = images.shape[1] * images.shape[2]
    weight = weights(count, 1, 7, 7)
    return functional.conv2d(images.flatten(1, 2), weight, padding=3, groups=count).view(images.shape)


def backwards(images: Tensor) -> Tensor:
    layer = frame_filter(7)
    return torch.stack([layer(frame) for frame in reversed(images.unbind(2))], 2)


def neighbours(images: Tensor) -> Tensor:
    layer, frames = frame_filter(7), images.unbind(2)
    return torch.stack([layer(one + other) for one, other in zip(frames, frames[2:], strict=False)], 2)


def shifted(images: Tensor) -> Tensor:
    """Half of the channels come a frame late, as in temporal shift modules."""
    zeros = torch.zeros_like(images[:, :1, :1])
    late = torch.cat([zeros, images[:, :1, :-1]], 2)
    return folded(torch.cat([late, images[:, 1:]], 1))


def frames_as_batch(images: Tensor) -> Tensor:
    """Frames laid end to end along the batch, and a view."""
    batch, channels, time, *size = images.shape
    frames = frame_filter(7)(torch.cat(list(images.unbind(2)), 0))
    return frames.view(time, batch, channels, *size).permute(1, 2, 0, 3, 4)


def frames_as_batch_in_chunks(images: Tensor) -> Tensor:
    frames = frame_filter(7)(torch.cat(list(images.unbind(2)), 0))
    return torch.stack(frames.chunk(images.shape[2], 0), 2)


def filtered_frames_as_batch(images: Tensor) -> Tensor:
    layer = frame_filter(7)
    frames = torch.cat([layer(images[:, :, time]) for time in range(images.shape[2])], 0)
    return torch.stack(frames.split(images.shape[0], 0), 2)


def reshaped_in_chunks(images: Tensor) -> Tensor:
    frames = frame_filter(7)(images.permute(2, 0, 1, 3, 4).reshape(-1, images.shape[1], *images.shape[3:]))
    return torch.stack(frames.chunk(images.shape[2], 0), 2)


def frames_as_groups(images: Tensor) -> Tensor:
    """Frames laid end to end along the channels, and taken apart there."""
    time = images.shape[2]
    weight = weights(time * CHANNELS, CHANNELS, 7, 7)
    frames = functional.conv2d(torch.cat(list(images.unbind(2)), 1), weight, padding=3, groups=time)
    return torch.stack(frames.chunk(time, 1), 2)


FOLLOWED = {
    "frames as batch": (frames_as_batch, (3, 7, 7)),
    "frames as batch, in chunks": (frames_as_batch_in_chunks, (3, 7, 7)),
    "filtered frames as batch": (filtered_frames_as_batch, (3, 7, 7)),
    "reshaped, in chunks": (reshaped_in_chunks, (3, 7, 7)),
    "frames as groups": (frames_as_groups, (3, 7, 7)),
    "folded": (folded, (3, 7, 7)),
    "viewed": (viewed, (3, 7, 7)),
    "unbound": (unbound, (3, 7, 7)),
    "indexed": (indexed, (3, 7, 7)),
    "sliced": (sliced, (3, 7, 7)),
    "chunked": (chunked, (3, 7, 7)),
    "mapped": (mapped, (3, 7, 7)),
    "batch taken apart": (batch_taken_apart, (3, 7, 7)),
    "frames one by one": (frames_one_by_one, (3, 7, 7)),
    "frames as channels": (frames_as_channels, (3, 7, 7)),
    "frames as depthwise channels": (frames_as_depthwise_channels, (3, 7, 7)),
    "backwards": (backwards, (3, 7, 7)),
    "neighbours": (neighbours, (5, 7, 7)),
    "shifted": (shifted, (4, 7, 7)),
}


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("name", FOLLOWED)
def test_folding_and_taking_apart_are_followed(name: str, batch: int) -> None:
    step, size = FOLLOWED[name]
    field, decided = check(Steps(step, over_time), (batch, *SHAPE[1:]))
    assert (field.size, field.local, field.exact, field.whole) == (size, size, True, ())
    assert decided
    alone, _ = check(Steps(step), (batch, *SHAPE[1:]))
    assert (alone.size, alone.exact) == ((size[0] - 2, *size[1:]), True)


def two_of_many(images: Tensor) -> Tensor:
    """Frames 0, 1 and 3 along the batch: not those of a map, one after the other."""
    frames = torch.cat([images[:, :, time] for time in (0, 1, 3)], 0)
    return torch.stack(frame_filter(3)(frames).chunk(3, 0), 2)


def of_unequal_batches(images: Tensor) -> Tensor:
    frames = torch.cat([images[:, :, 0], images[:1, :, 1]], 0)
    return torch.stack(frame_filter(3)(frames).chunk(frames.shape[0], 0), 2)


def one_branch_of_two(images: Tensor) -> Tensor:
    return torch.cat([images, folded(images)], 1)[:, :CHANNELS].relu()


def one_batch_of_two(images: Tensor) -> Tensor:
    return torch.cat([images, folded(images)], 0).chunk(2, 0)[0].relu()


def one_depthwise_branch_of_two(images: Tensor) -> Tensor:
    both = torch.cat([images, folded(images)], 1)
    return functional.conv3d(both, weights(2 * CHANNELS, 1, 1, 1, 1), groups=2 * CHANNELS).relu().unbind(1)[0][:, None]


def later_frames_filtered(images: Tensor) -> Tensor:
    return torch.cat([images[:, :, :7], folded(images[:, :, 7:])], 2)


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize(
    ("step", "size"),
    [
        (two_of_many, (1, 3, 3)),
        (of_unequal_batches, (1, 3, 3)),
        (one_branch_of_two, (1, 1, 1)),
        (one_batch_of_two, (1, 1, 1)),
        (one_depthwise_branch_of_two, (1, 1, 1)),
    ],
)
def test_parts_are_told_from_what_lay_beside_them(step: Step, size: tuple[int, ...], batch: int) -> None:
    field, decided = check(Steps(step), (batch, *SHAPE[1:]))
    assert (field.size, field.exact) == (size, True)
    assert decided


@pytest.mark.parametrize("batch", [2, 3])
def test_cells_that_read_less_are_not_exact(batch: int) -> None:
    field, _ = check(Steps(later_frames_filtered), (batch, *SHAPE[1:]))
    assert str(field) == "at most 1 x 7 x 7"


@pytest.mark.parametrize("batch", [1, 2])
def test_time_before_channels(batch: int) -> None:
    """(time, batch, channels, ...) and (batch, time, channels, ...): channels are an axis then, read as a whole."""
    layer = frame_filter(7)
    field, _ = check(
        Steps(lambda images: layer(images.flatten(0, 1)).unflatten(0, images.shape[:2])), (5, batch, 2, 17, 16)
    )
    assert (field.size, str(field)) == ((None, 7, 7), "whole x 7 x 7")
    field, _ = check(
        Steps(lambda images: torch.stack([layer(frame) for frame in images.unbind(1)], 1)), (batch, 5, 2, 17, 16)
    )
    assert field.size == (None, 7, 7)


def test_an_axis_that_is_pooled_before_others_are_read() -> None:
    layer = frame_filter(7)
    field = receptive_field(Steps(lambda images: layer(images.mean(2))), torch.rand(SHAPE, dtype=torch.float64))
    assert (field.size, str(field)) == ((None, 7, 7), "whole x 7 x 7")
    # Of some frames alone it is these.
    field = receptive_field(
        Steps(lambda images: layer(images[:, :, 2:6].mean(2))), torch.rand(SHAPE, dtype=torch.float64)
    )
    assert (field.size, field.whole) == ((4, 7, 7), ())
    field = receptive_field(Steps(lambda images: layer(images[:, :, -1])), torch.rand(SHAPE, dtype=torch.float64))
    assert (field.size, field.exact) == ((1, 7, 7), True)


def test_axes_pooled_one_by_one_are_a_vector_after_all() -> None:
    layer = frame_filter(7)
    frames = torch.rand(1, 2, 17, 16, dtype=torch.float64)
    assert receptive_field(Steps(lambda images: layer(images).mean(-1).mean(-1)), frames).size == (7, 7)
    strip = weights(2, 2, 3)
    field = receptive_field(Steps(lambda images: functional.conv1d(layer(images).mean(-1), strip).mean(-1)), frames)
    assert field.size == (9, None)


def into_zeros(images: Tensor) -> Tensor:
    output = torch.zeros(images.shape, dtype=images.dtype)
    for time in range(1, images.shape[2]):
        output[:, :, time] = images[:, :, time - 1]
    return output.relu()


def written_flat(images: Tensor) -> Tensor:
    output = torch.zeros(images.shape, dtype=images.dtype)
    output.flatten().copy_(over_time(images).flatten())
    return output[:, :, 1:].relu()


def read_before_written(images: Tensor) -> Tensor:
    output = images.clone()
    later = output[:, :, 1:]
    output.add_(over_time(images))
    return later.relu()


def of_the_same_memory(images: Tensor) -> Tensor:
    return over_time(over_time(images).data)


def running_sum(images: Tensor) -> Tensor:
    frames = [images[:, :, 0]]
    for frame in images.unbind(2)[1:]:
        frames.append(frames[-1] * 0.5 + frame)
    return torch.stack(frames, 2)


def first_frame_added(images: Tensor) -> Tensor:
    return images + images[:, :, 0, None]


@pytest.mark.parametrize(
    ("step", "size", "exact"),
    [
        (into_zeros, (1, 1, 1), True),
        (written_flat, (3, 1, 1), True),
        (read_before_written, (3, 1, 1), True),
        (running_sum, (13, 1, 1), False),
        (first_frame_added, (13, 1, 1), False),
    ],
)
def test_what_is_written_into_memory_is_followed(step: Step, size: tuple[int, ...], exact: bool) -> None:
    field, decided = check(Steps(step))
    assert (field.size, field.exact) == (size, exact)
    assert bool(decided) is exact


def by_numpy(images: Tensor) -> Tensor:
    return torch.from_numpy(over_time(images).numpy()[:, :, ::-1].copy())


def by_spectra(images: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(images))


def by_other_numbers(images: Tensor) -> Tensor:
    return images.view(torch.int32).mul(1).view(torch.float64)


def by_places(images: Tensor) -> Tensor:
    return images[:, :, torch.tensor([0, 2, 1])]


@pytest.mark.parametrize("step", [by_numpy, by_spectra, by_other_numbers, by_places])
def test_what_is_not_followed_is_unknown(step: Step) -> None:
    field = receptive_field(Steps(step), torch.rand(SHAPE, dtype=torch.float64))
    assert field.unknown
    assert (field.local, field.exact, str(field)[:9]) == (None, False, "not known")


def test_another_object_with_the_same_memory_is_the_same_tensor() -> None:
    assert receptive_field(Steps(of_the_same_memory), torch.rand(SHAPE, dtype=torch.float64)).size == (5, 1, 1)


def test_each_query_reads_what_its_keys_read() -> None:
    """Attention along the width: keys that were filtered along the height count there."""
    weight = weights(2, 2, 5, 1)

    def attend(images: Tensor) -> Tensor:
        keys = functional.conv2d(images, weight, padding=(2, 0))
        query, key = (tensor.permute(0, 2, 3, 1) for tensor in (images, keys))
        return functional.scaled_dot_product_attention(query, key, key).permute(0, 3, 1, 2)

    field, _ = check(Steps(attend), (1, 2, 17, 16))
    assert field.size == (5, None)


def random_step(draw: random.Random) -> tuple[str, Step]:
    axis = draw.randrange(2, 5)
    size, stride = draw.choice([1, 2, 3]), draw.choice([1, 1, 2])
    kernel = [draw.choice([1, 1, 2, 3]) for _ in range(3)]
    taps = weights(CHANNELS, CHANNELS, *kernel)
    amount = draw.randrange(1, 3)
    layer = frame_filter(3)
    strip = weights(CHANNELS, CHANNELS, size)

    def pad(mode: str) -> Step:
        pads = [amount, 0, 0, amount, 1, 1]
        return lambda images: functional.pad(images, pads, mode=mode)

    def rows(images: Tensor) -> Tensor:
        """A filter along one axis, the two others folded into the batch."""
        moved = images.movedim((1, axis), (3, 4))
        lines = functional.conv1d(moved.flatten(0, 2), strip, padding=size // 2, stride=stride)
        return lines.unflatten(0, moved.shape[:3]).movedim((3, 4), (1, axis))

    def by_loop(images: Tensor) -> Tensor:
        return torch.stack([layer(part) for part in images.unbind(axis)], axis)

    def by_slices(images: Tensor) -> Tensor:
        parts = images.split(amount, axis)
        if draw_reversed:
            parts = parts[::-1]
        return torch.cat([part * 2 for part in parts], axis)

    def windows_by_hand(images: Tensor) -> Tensor:
        frames = images.unbind(axis)
        count = len(frames) - size + 1
        return torch.stack([sum(frames[start : start + size]) for start in range(0, count, stride)], axis)

    def along_batch(images: Tensor) -> Tensor:
        """Parts of an axis laid end to end along the batch or the channels, and taken apart again."""
        parts = images.unbind(axis) if by_one else images.split(1, axis)
        parts = parts[::-1] if draw_reversed else parts
        if along == 0:
            parts = torch.cat([part * 2 for part in parts], 0)
            parts = layer(parts) if by_one else parts
        else:
            parts = torch.cat(parts, 1)
        parts = parts.chunk(images.shape[axis], along) if evenly else parts.split(images.shape[along] * amount, along)
        if not evenly:  # some at once
            parts = [part for some in parts for part in some.split(images.shape[along], along)]
        return torch.stack(parts, axis) if by_one else torch.cat(parts, axis)

    def branches(images: Tensor) -> Tensor:
        both = torch.cat([images, folded_with(layer, images)], along)
        return both.chunk(2, along)[amount - 1] + 1

    def by_halves(images: Tensor) -> Tensor:
        half = max(images.shape[axis] // 2, 1)
        one, other = images.narrow(axis, 0, half), images.narrow(axis, half, half)
        return torch.cat(torch.cat([one, other], along).mul(2).chunk(2, along), axis)

    along, by_one, evenly = draw.randrange(2), draw.random() < 0.5, draw.random() < 0.5
    draw_reversed = draw.random() < 0.3
    pool = [draw.choice([1, 2, 3]) for _ in range(3)]
    steps: dict[str, Step] = {
        "conv3d": lambda images: functional.conv3d(
            images, taps, stride=stride, padding=[n // 2 for n in kernel], dilation=amount
        ),
        "avg_pool": lambda images: functional.avg_pool3d(images, pool, stride=[max(n - 1, 1) for n in pool]),
        "rows": rows,
        "loop": by_loop,
        "parts": by_slices,
        "along batch": along_batch,
        "along batch again": along_batch,
        "branches": branches,
        "halves": by_halves,
        "windows by hand": windows_by_hand,
        "vmap": lambda images: torch.vmap(layer, axis, axis)(images),
        "fold": lambda images: folded_with(layer, images),
        "channels": channels_of_frames,
        "permute": lambda images: images.permute(4, 3, 2, 1, 0).mul(2).permute(4, 3, 2, 1, 0),
        "flip": lambda images: images.flip(axis),
        "roll": lambda images: images.roll(amount, axis),
        "zeros": pad("constant"),
        "replicate": pad("replicate"),
        "reflect": pad("reflect"),
        "circular": pad("circular"),
        "slice": lambda images: images.narrow(axis, 1, images.shape[axis] - 2)[:, :, ::amount],
        "nearest": lambda images: functional.interpolate(images, scale_factor=2, mode="nearest"),
        "trilinear": lambda images: functional.interpolate(images, scale_factor=(1, 2, 1), mode="trilinear"),
        "residual": lambda images: folded_with(layer, images).add_(images),
        "cat": lambda images: torch.cat([images, images.flip(1)], 1)[:, :CHANNELS] + 1,
        "late": lambda images: torch.cat([torch.zeros_like(images[:, :, :1]), images[:, :, :-1]], 2),
        "mean": lambda images: images * images.mean(axis, keepdim=True),
        "some": lambda images: images + images.narrow(axis, 0, 2).mean(axis, keepdim=True),
        "linear": lambda images: torch.einsum("bcthw,dc->bdthw", images, taps[..., 0, 0, 0]),
        "memory": lambda images: images.detach() if not images.requires_grad else images,
        "mixed up": lambda images: images.transpose(3, 4).reshape(images.shape) if amount == 1 else images.mul(3),
    }
    return draw.choice(list(steps.items()))


def folded_with(layer: Step, images: Tensor) -> Tensor:
    frames = layer(images.transpose(1, 2).flatten(0, 1))
    return frames.view(images.shape[0], images.shape[2], *frames.shape[1:]).transpose(1, 2)


def channels_of_frames(images: Tensor) -> Tensor:
    batch, channels, time, *size = images.shape
    frames = images.transpose(1, 2).flatten(1, 2)
    frames = functional.conv2d(frames, weights(time * channels, channels, 3, 1), padding=(1, 0), groups=time)
    return frames.view(batch, time, channels, *size).transpose(1, 2)


def test_random_networks_claim_what_gradients_show() -> None:
    """And none of them is unknown."""
    draw = random.Random(20)
    torch.manual_seed(20)
    counts: Counter[str] = Counter()
    for number in range(60):
        chosen = [random_step(draw) for _ in range(draw.randrange(1, 4))]
        names = ", ".join(name for name, _ in chosen)
        model = Steps(*[step for _, step in chosen])
        try:
            field, decided = check(model)
        except RuntimeError as error:  # a map that got too small for the next step
            assert "size" in str(error) or "pad" in str(error), names
            counts["too small"] += 1
            continue
        except AssertionError as error:
            raise AssertionError(f"network {number}: {names}: {error}") from error
        counts["unknown" if field.unknown else "decided" if decided else "open"] += 1
    assert counts["decided"] >= 40, counts
    assert counts["unknown"] == 0, counts
