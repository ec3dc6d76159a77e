"""Learned delays with norse: delay layers between norse's neurons, for whole sequences or single time steps.

norse has the time axis first, (time, batch, neurons), and its neurons take and return their states. Delay layers do the
same with `time_first=True`.

The images are fed row by row, one row a time step. To compare two rows, the earlier one has to arrive later: the
network learns by how much to delay it.

    pip install norse
    python examples/delays_norse.py

Data: the 7,000 images of Fashion-MNIST that come with torchdcls.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import norse.torch as norse
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls import param_groups
from torchdcls.delays import AxonalDelays, SigmaSchedule, SynapticDelays, rounded_delays
from torchdcls_train.data import load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MAX_DELAY = 14  # time steps


class Network(nn.Module):
    """28 rows of pixels in, 10 leaky integrators out."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.first = SynapticDelays(28, hidden, MAX_DELAY, time_first=True, bias=True)
        settings = {"tau_mem_inv": 300.0, "v_th": 0.3, "alpha": 10.0}
        self.neurons = norse.LIFBoxCell(
            norse.LIFBoxParameters(**{name: torch.tensor(value) for name, value in settings.items()})
        )
        self.second = AxonalDelays(hidden, 10, MAX_DELAY, time_first=True, bias=True)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """(time, batch, 28) -> outputs (time, batch, 10) and the hidden spikes (time, batch, hidden)."""
        state, spikes = None, []
        for current in self.first(input):
            spike, state = self.neurons(current, state)
            spikes.append(spike)
        hidden = torch.stack(spikes)
        return self.second(hidden), hidden

    def step(self, input: Tensor, states: Sequence[Any] = (None, None, None)) -> tuple[Tensor, Sequence[Any]]:
        """One time step, (batch, 28) -> (batch, 10), and the states for the next one."""
        first, neurons, second = states
        current, first = self.first.step(input, first)
        spike, neurons = self.neurons(current, neurons)
        output, second = self.second.step(spike, second)
        return output, (first, neurons, second)


def rows(images: Tensor) -> Tensor:
    """(n, 1, 28, 28) of bytes -> (28 time steps, n, 28), from 0 to 1."""
    return images.squeeze(1).transpose(0, 1).float() / 255


def accuracy(model: Network, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(rows(images))[0].amax(0).argmax(-1) == labels).float().mean().item() * 100


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=6000, help="number of training images")
    parser.add_argument("--out", type=Path, default=Path("delays_norse.png"), help="the picture")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    data = load_data("embedded")
    images, labels = data.train.images[: options.images], data.train.labels[: options.images]
    model = Network()
    start = model.first.delay.detach().clone()
    optimizer = torch.optim.AdamW(param_groups(model, lr=5e-3, weight_decay=0.01, position_lr_scale=10.0))
    sigma = SigmaSchedule(model, start=MAX_DELAY / 2, end=0.23, epochs=max(1, options.epochs - 1))
    for epoch in range(options.epochs):
        for chosen in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(rows(images[chosen]))[0].amax(0), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        sigma.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")

    test = data.test.images, data.test.labels
    score = accuracy(model, *test)
    with rounded_delays(model):  # whole time steps, for hardware
        rounded = accuracy(model, *test)
    moved = (model.first.delay.detach() - start).abs().mean()
    print(f"Test accuracy {score:.1f} %, with delays rounded to whole steps {rounded:.1f} %.")
    print(f"Delays moved by {moved:.1f} steps on average.")

    # A loaded copy computes the same, and the network can be fed one time step at a time.
    copy = Network()
    copy.load_state_dict(model.state_dict())
    few = rows(test[0][:8])
    with torch.no_grad():
        whole, spikes = model(few)
        torch.testing.assert_close(copy(few)[0], whole)
        outputs, states = [], (None, None, None)
        for row in few:
            output, states = model.step(row, states)
            outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs), whole, rtol=1e-3, atol=1e-4)
    print(f"A loaded copy and a stream of {len(few)} single steps give the same outputs.")

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].imshow(few[:, 0], cmap="gray", aspect="auto")
    axes[0].set(title="input: a row a time step", xlabel="neuron", ylabel="time step")
    axes[1].imshow(spikes[:, 0] > 0, cmap="gray_r", aspect="auto", interpolation="nearest")
    axes[1].set(title="spikes of the hidden neurons", xlabel="neuron", ylabel="time step")
    bins = torch.arange(MAX_DELAY + 2).numpy() - 0.5
    axes[2].hist([start.flatten(), model.first.delay.detach().flatten()], bins=bins, label=["at the start", "learned"])
    axes[2].set(title="synaptic delays", xlabel="time steps", ylabel="synapses")
    axes[2].legend()
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
