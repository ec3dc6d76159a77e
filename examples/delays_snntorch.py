"""Learned delays with snnTorch: delays between layers, and recurrent delays within a layer.

snnTorch's neurons take one time step, (batch, neurons), and return spikes and membrane potential. The example stacks
them with the time axis first, which delay layers take with `time_first=True`. `RecurrentDelays` wraps a neuron and
feeds its spikes back after learned delays.

The images are fed row by row, one row a time step. To compare two rows, the earlier one has to arrive later: the
network learns by how much to delay it.

    pip install snntorch
    python examples/delays_snntorch.py

Data: the 7,000 images of Fashion-MNIST that come with torchdcls.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import snntorch
import torch
import torch.nn.functional as F
from snntorch import surrogate
from torch import Tensor, nn

from torchdcls import param_groups
from torchdcls.delays import AxonalDelays, RecurrentDelays, SigmaSchedule, SynapticDelays, rounded_delays
from torchdcls_train.data import load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MAX_DELAY = 14  # time steps


class Network(nn.Module):
    """28 pixels of a row in, 10 outputs; the output with the largest value over time is the answer."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.inputs = SynapticDelays(28, hidden, MAX_DELAY, time_first=True, bias=True)
        self.recurrent = RecurrentDelays(
            AxonalDelays(hidden, hidden, MAX_DELAY, time_first=True),
            snntorch.Leaky(beta=0.8, spike_grad=surrogate.fast_sigmoid(slope=5)),
        )
        self.outputs = AxonalDelays(hidden, 10, MAX_DELAY, time_first=True, bias=True)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """(time, batch, 28) -> outputs (time, batch, 10) and the hidden spikes (time, batch, hidden)."""
        self.recurrent.neuron.reset_mem()  # or it continues from the sequence before
        spikes, _ = self.recurrent(self.inputs(input))
        return self.outputs(spikes), spikes

    def stream(self, parts: Sequence[Tensor]) -> Tensor:
        """The same, of a sequence that comes in parts of any length."""
        self.recurrent.neuron.reset_mem()
        first = between = last = None
        outputs = []
        for part in parts:
            current, first = self.inputs.stream(part, first)
            spikes, between = self.recurrent(current, between)
            output, last = self.outputs.stream(spikes, last)
            outputs.append(output)
        return torch.cat(outputs)


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
    parser.add_argument("--out", type=Path, default=Path("delays_snntorch.png"), help="the picture")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    data = load_data("embedded")
    images, labels = data.train.images[: options.images], data.train.labels[: options.images]
    model = Network()
    start = model.recurrent.delays.delay.detach().clone()
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
    moved = (model.recurrent.delays.delay.detach() - start).abs().mean()
    print(f"Test accuracy {score:.1f} %, with delays rounded to whole steps {rounded:.1f} %.")
    print(f"Recurrent delays moved by {moved:.1f} steps on average.")

    # A loaded copy computes the same, and the network can be fed in parts.
    copy = Network()
    copy.load_state_dict(model.state_dict())
    few = rows(test[0][:8])
    with torch.no_grad():
        whole, spikes = model(few)
        torch.testing.assert_close(copy(few)[0], whole)
        torch.testing.assert_close(model.stream(few.split((1, 7, 20))), whole, rtol=1e-3, atol=1e-4)
    print(f"A loaded copy and a stream of {len(few)} steps in parts of 1, 7 and 20 give the same outputs.")

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].imshow(few[:, 0], cmap="gray", aspect="auto")
    axes[0].set(title="input: a row a time step", xlabel="neuron", ylabel="time step")
    axes[1].imshow(spikes[:, 0] > 0, cmap="gray_r", aspect="auto", interpolation="nearest")
    axes[1].set(title="spikes of the hidden neurons", xlabel="neuron", ylabel="time step")
    learned = model.recurrent.delays.delay.detach()
    axes[2].plot([0, MAX_DELAY], [0, MAX_DELAY], color="0.8")
    axes[2].scatter(start, learned, s=12)
    axes[2].set(title="recurrent delays, in time steps", xlabel="at the start", ylabel="learned")
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
