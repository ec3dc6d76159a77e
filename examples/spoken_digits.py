"""Learn delays on real speech: spoken digits as spikes, and a test speaker who is not in the training data.

Mel filters turn a recording into energies of frequency bands. When the energy of a band has risen or fallen by half its
standard deviation, its on or off channel spikes. The network has leaky integrate-and-fire neurons between three layers
with a delay for each synapse. It is trained twice, with fixed random delays and with learned delays.
`torchdcls compare digits` is the careful comparison, with more methods and all speakers.

    python examples/spoken_digits.py --data recordings

Data: the Free Spoken Digit Dataset (Zohar Jackson and others, CC BY-SA 4.0), folder `recordings` of
https://github.com/Jakobovski/free-spoken-digit-dataset. It needs the extra train of torchdcls.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import wavfile
from scipy.signal import stft
from torch import Tensor, nn

from torchdcls import param_groups
from torchdcls.delays import SigmaSchedule, SynapticDelays, rounded_delays

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RATE, BANDS, STEPS, MAX_DELAY = 8000, 40, 80, 25  # a step is 10 ms


def mel_filters(bins: int) -> np.ndarray:
    """(BANDS, bins): triangles, evenly spaced in pitch."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.linspace(0, RATE / 2, bins)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def energies(file: Path) -> np.ndarray:
    """(BANDS, STEPS): the logarithm of each band's energy."""
    _, samples = wavfile.read(file)
    spectrum = np.abs(stft(samples / 32768, RATE, nperseg=256, noverlap=256 - RATE // 100)[2]) ** 2
    bands = np.log(mel_filters(len(spectrum)) @ spectrum + 1e-8)[:, :STEPS]
    return np.pad(bands, ((0, 0), (0, STEPS - bands.shape[1])), mode="edge")


def spikes(bands: Tensor, threshold: Tensor) -> Tensor:
    """(n, BANDS, STEPS) -> spikes (n, 2 * BANDS, STEPS), 0 or 1: first the on channels, then the off channels."""
    level, sent = bands[..., 0], []
    for band in bands.unbind(-1):
        change = (band - level) / threshold
        sent.append(torch.cat((change >= 1, change <= -1), 1))
        level = torch.where(change.abs() >= 1, band, level)
    return torch.stack(sent, -1).float()


class Spike(torch.autograd.Function):
    """A step forward, the derivative of an arc tangent backward."""

    @staticmethod
    def forward(ctx, voltage: Tensor) -> Tensor:
        ctx.save_for_backward(voltage)
        return (voltage > 0).to(voltage)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (voltage,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * voltage) ** 2)


class Lif(nn.Module):
    """Leaky integrate-and-fire neurons, (batch, neurons, time), that lose half of their voltage each step."""

    def forward(self, currents: Tensor) -> Tensor:
        voltage, fired = torch.zeros_like(currents[..., 0]), []
        for current in currents.unbind(-1):
            voltage = 0.5 * voltage + current
            fired.append(Spike.apply(voltage - 1))
            voltage = voltage * (1 - fired[-1].detach())
        return torch.stack(fired, -1)


def network(hidden: int = 64) -> nn.Sequential:
    def layer(inputs: int, outputs: int) -> SynapticDelays:
        return SynapticDelays(inputs, outputs, MAX_DELAY)

    return nn.Sequential(
        *(layer(2 * BANDS, hidden), nn.BatchNorm1d(hidden), Lif(), nn.Dropout(0.25)),
        *(layer(hidden, hidden), nn.BatchNorm1d(hidden), Lif(), nn.Dropout(0.25)),
        layer(hidden, 10),
    )


def logits(model: nn.Module, input: Tensor) -> Tensor:
    return model(input).softmax(1).sum(-1)  # votes of all time steps


def accuracy(model: nn.Module, input: Tensor, digits: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (logits(model, input).argmax(1) == digits).float().mean().item() * 100


def train(model: nn.Module, input: Tensor, digits: Tensor, epochs: int, learn_delays: bool) -> None:
    rate = 50.0 if learn_delays else 0.0
    optimizer = torch.optim.AdamW(param_groups(model, lr=2e-3, weight_decay=1e-5, position_lr_scale=rate))
    rates = [group["lr"] for group in optimizer.param_groups]
    batches = -(-len(input) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, epochs=epochs, steps_per_epoch=batches)
    sigma = SigmaSchedule(model, start=MAX_DELAY / 2, end=0.23, epochs=max(1, epochs - 2)) if learn_delays else None
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(input)).split(64):
            loss = F.cross_entropy(logits(model, input[chosen]), digits[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if sigma is not None:
            sigma.step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with DIGIT_SPEAKER_NUMBER.wav")
    parser.add_argument("--left-out", default="george", help="the speaker to test on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("spoken_digits.png"), help="the picture")
    options = parser.parse_args(arguments)
    files = sorted(options.data.glob("*_*_*.wav"))
    heard = torch.tensor([file.name.split("_")[1] != options.left_out for file in files])
    if not files or heard.all() or not heard.any():
        parser.error(f"{options.data}: expected recordings of {options.left_out} and of others, got {len(files)} files")

    bands = torch.from_numpy(np.stack([energies(file) for file in files])).float()
    digits = torch.tensor([int(file.name[0]) for file in files])
    input = spikes(bands, bands[heard].std((0, 2)) / 2)
    print(
        f"{int(heard.sum())} training recordings, {int((~heard).sum())} test recordings of {options.left_out}; "
        f"{input.mean() * 100:.1f} % of inputs spike at a time step."
    )
    for learn_delays in (False, True):
        torch.manual_seed(0)
        model = network()
        start = model[0].delay.detach().clone()
        began = time.perf_counter()
        train(model, input[heard], digits[heard], options.epochs, learn_delays)
        took = time.perf_counter() - began
        score = accuracy(model, input[~heard], digits[~heard])
        with rounded_delays(model):
            rounded = accuracy(model, input[~heard], digits[~heard])
        moved = (model[0].delay.detach() - start).abs().mean() * 10
        print(
            f"{'learned' if learn_delays else 'fixed random'} delays, {took:.0f} s: test accuracy {score:.1f} %, "
            f"rounded {rounded:.1f} %; delays of the first layer moved by {moved:.0f} ms on average."
        )

    with torch.no_grad():
        hidden = model[:3](input[~heard][:1])[0]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    raster = {"cmap": "gray_r", "aspect": "auto", "interpolation": "nearest", "origin": "lower"}
    axes[0].imshow(input[~heard][0], **raster)
    axes[0].set(title=f"spikes of a {digits[~heard][0]}", xlabel="step of 10 ms", ylabel="on and off channels")
    axes[1].imshow(hidden, **raster)
    axes[1].set(title="spikes of the first layer", xlabel="step of 10 ms", ylabel="neuron")
    neuron = int(hidden.sum(-1).argmax())
    delay, weight = model[0].delay.detach()[neuron, :, 0], model[0].weight.detach()[neuron, :, 0]
    largest = float(weight.abs().max())
    shown = axes[2].scatter(10 * delay, range(2 * BANDS), c=weight, cmap="RdBu", vmin=-largest, vmax=largest, s=14)
    axes[2].set(title=f"synapses of neuron {neuron}", xlabel="delay, ms", ylabel="on and off channels")
    figure.colorbar(shown, ax=axes[2], label="weight")
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
