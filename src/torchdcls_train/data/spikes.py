"""Sound as spikes: a mel filter bank, and send-on-delta of each band."""

import torch
from torch import Tensor

BANDS, STEPS = 40, 100
# Unit: samples, at 8,000 a second: steps of 10 ms, windows of 32 ms.
_HOP, _WINDOW, _FFT = 80, 256, 512
# Energies more than this below the loudest one are silence. Unit: natural logarithm, 40 dB.
_RANGE = 9.21
# Change of a band's level that sends a spike, over the standard deviation of the recording's levels.
_DELTA = 0.5


def mel_filters(rate: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale from 0 to half the sampling rate: (40, 257)."""
    top = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, float(top), BANDS + 2) / 2595) - 1)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequency = torch.linspace(0, rate / 2, _FFT // 2 + 1)
    return torch.minimum((frequency - low) / (center - low), (high - frequency) / (high - center)).clamp_min(0)


def mel_levels(samples: Tensor, rate: int) -> Tensor:
    """Logarithms of energies in mel bands above -40 dB of the loudest one: (40, 100), bands by steps of 10 ms.

    Samples (samples,) of more than 100 steps are cut, those of fewer are followed by silence.
    """
    length = STEPS * _HOP
    padded = torch.nn.functional.pad(samples[:length], (0, max(0, length - len(samples))))
    spectrum = torch.stft(padded, _FFT, _HOP, _WINDOW, torch.hann_window(_WINDOW), center=True, return_complex=True)[
        :, :STEPS
    ]
    energy = mel_filters(rate) @ spectrum.abs().square()
    # Where nothing is heard all levels are 0.
    return (energy / energy.max().clamp_min(1e-12)).log().add(_RANGE).clamp_min(0)


def send_on_delta(levels: Tensor, delta: Tensor) -> Tensor:
    """Spikes where a level has moved away from what was sent before: one to a step, which moves that by `delta`.

    Args:
        levels: (..., bands, steps), which start from 0.
        delta: Broadcasts to (..., bands), positive.

    Returns:
        (..., 2 * bands, steps) bool: the channels of rises, then those of falls.
    """
    # Counted, not added up: rounding would decide whether a level that falls back to 0 is sent as such.
    count = torch.zeros_like(levels[..., 0])
    spikes = torch.zeros((*levels.shape[:-2], 2, *levels.shape[-2:]), dtype=torch.bool)
    for step, level in enumerate(levels.unbind(-1)):
        rises, falls = level >= (count + 1) * delta, level <= (count - 1) * delta
        count += rises.to(levels.dtype) - falls.to(levels.dtype)
        spikes[..., 0, :, step], spikes[..., 1, :, step] = rises, falls
    return spikes.flatten(-3, -2)


def spikes_of(samples: list[Tensor], rate: int) -> Tensor:
    """Recordings, (samples,) each, as spikes (recordings, 80, 100) bool; a silent one has none.

    Each recording's own loudness and spread of levels set its scale.
    """
    levels = torch.stack([mel_levels(recording, rate) for recording in samples])
    delta = _DELTA * levels.std((1, 2), keepdim=True)[..., 0].clamp_min(1e-3)
    return send_on_delta(levels, delta)
