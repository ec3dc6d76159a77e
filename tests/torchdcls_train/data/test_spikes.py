"""Sound as spikes: tones land in their bands, and levels come back from spikes."""

import math

import pytest
import torch
from torch import Tensor

from torchdcls_train.data.spikes import BANDS, STEPS, mel_filters, mel_levels, send_on_delta, spikes_of

RATE = 8000


def tone(frequency: float, start: float, end: float, seconds: float = 1.0) -> Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return torch.where((time >= start) & (time < end), torch.sin(2 * math.pi * frequency * time), 0.0)


def center_of(band: int) -> float:
    """By the definition of the mel scale. Unit: Hz."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    return float(700 * (10 ** (top * (band + 1) / (BANDS + 1) / 2595) - 1))


@pytest.mark.parametrize("band", [3, 9, 18, 32, 38])
def test_a_tone_is_in_its_band_while_it_lasts(band: int) -> None:
    recording = tone(center_of(band), 0.3, 0.6)
    levels = mel_levels(recording, RATE)
    assert levels.shape == (BANDS, STEPS)
    assert levels[:, 45].argmax() == band
    (spikes,) = spikes_of([recording], RATE)
    # Windows of 32 ms see a tone 16 ms before it starts; a spike a step says how much higher the level is.
    rises, falls = spikes[band], spikes[BANDS + band]
    assert rises[29:32].all() and not rises[:28].any() and not rises[45:].any()
    assert falls[62:66].all() and not falls[:58].any()
    assert spikes[:BANDS].sum(1).argmax() == band
    assert rises.sum() == falls.sum()


def test_filters_cover_all_frequencies_evenly() -> None:
    filters = mel_filters(RATE)
    assert filters.shape == (BANDS, 257) and bool((filters >= 0).all())
    centers = filters.argmax(1)
    assert bool((centers.diff() > 0).all())
    # Between the first and the last center two neighbors add up to 1.
    inside = filters[:, centers[0] + 1 : centers[-1]].sum(0)
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_levels_come_back_from_spikes_up_to_delta() -> None:
    """Where they change by less than delta a step."""
    step = torch.arange(STEPS) / STEPS
    levels = torch.stack([3 * torch.sin(6 * step) ** 2, 2 * step])
    delta = torch.tensor([0.25, 0.1])
    spikes = send_on_delta(levels, delta)
    assert spikes.shape == (4, STEPS) and spikes.dtype == torch.bool
    sent = (delta[:, None] * (spikes[:2].float() - spikes[2:].float())).cumsum(1)
    assert bool(((sent - levels).abs() <= delta[:, None] + 1e-6).all())
    assert not spikes[3].any() and not (spikes[:2] & spikes[2:]).any()


def test_loudness_does_not_count_and_silence_is_silent() -> None:
    loud, quiet, silent = tone(700, 0.2, 0.5), 0.01 * tone(700, 0.2, 0.5), torch.zeros(RATE)
    spikes = spikes_of([loud, quiet, silent], RATE)
    assert spikes.shape == (3, 2 * BANDS, STEPS)
    assert torch.equal(spikes[0], spikes[1]) and spikes[0].any() and not spikes[2].any()
    assert not mel_levels(silent, RATE).any()


def test_each_recording_is_by_itself() -> None:
    """Or speakers of the test would decide about those of the training."""
    some = [tone(700, 0.2, 0.5), tone(1500, 0.1, 0.9, 1.7), tone(300, 0, 0.05, 0.1)]
    together = spikes_of(some, RATE)
    for alone, recording in zip(together, some, strict=True):
        assert torch.equal(spikes_of([recording], RATE)[0], alone)
