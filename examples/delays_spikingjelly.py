"""Learned delays with SpikingJelly: delay layers between multi-step neurons, for whole sequences or parts.

SpikingJelly's neurons in multi-step mode take (time, batch, neurons). Delay layers with `time_first=True` do the same,
so both stand in a `torch.nn.Sequential`. The neurons keep their voltages until `functional.reset_net`. Delay layers
return the spikes that are still delayed as a state, so a long recording can be fed in parts.

The images are fed row by row, one row a time step. To compare two rows, the earlier one has to arrive later: the
network learns by how much to delay it.

    pip install spikingjelly
    python examples/delays_spikingjelly.py

Data: the 7,000 images of Fashion-MNIST that come with torchdcls.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from torchdcls import param_groups
from torchdcls.delays import DelayLayer, DendriticDelays, SigmaSchedule, SynapticDelays, rounded_delays
from torchdcls_train.data import load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MAX_DELAY = 14  # time steps


def network(hidden: int = 64) -> nn.Sequential:
    """(time, batch, 28) -> (time, batch, 10)."""
    model = nn.Sequential(
        SynapticDelays(28, hidden, MAX_DELAY, time_first=True, bias=True),
        neuron.LIFNode(decay_input=False, v_threshold=0.5, surrogate_function=surrogate.ATan(), detach_reset=True),
        DendriticDelays(hidden, 10, MAX_DELAY, kernel_count=4, time_first=True, bias=True),
    )
    functional.set_step_mode(model, "m")
    return model


def forward(model: nn.Sequential, input: Tensor) -> Tensor:
    functional.reset_net(model)
    return model(input)


def in_parts(model: nn.Sequential, input: Tensor, length: int) -> Tensor:
    """The same for a sequence in parts."""
    functional.reset_net(model)
    states = [None] * len(model)
    outputs = []
    for part in input.split(length):
        for index, layer in enumerate(model):
            if isinstance(layer, DelayLayer):
                part, states[index] = layer.stream(part, states[index])
            else:
                part = layer(part)  # neurons of spikingjelly keep their states themselves
        outputs.append(part)
    return torch.cat(outputs)


def rows(images: Tensor) -> Tensor:
    """(n, 1, 28, 28) of bytes -> (28 time steps, n, 28), from 0 to 1."""
    return images.squeeze(1).transpose(0, 1).float() / 255


def accuracy(model: nn.Sequential, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (forward(model, rows(images)).amax(0).argmax(-1) == labels).float().mean().item() * 100


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=6000, help="number of training images")
    parser.add_argument("--out", type=Path, default=Path("delays_spikingjelly.png"), help="the picture")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    data = load_data("embedded")
    images, labels = data.train.images[: options.images], data.train.labels[: options.images]
    model = network()
    start = model[0].delay.detach().clone()
    optimizer = torch.optim.AdamW(param_groups(model, lr=5e-3, weight_decay=0.01, position_lr_scale=10.0))
    sigma = SigmaSchedule(model, start=MAX_DELAY / 2, end=0.23, epochs=max(1, options.epochs - 1))
    for epoch in range(options.epochs):
        for chosen in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(forward(model, rows(images[chosen])).amax(0), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        sigma.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")

    test = data.test.images, data.test.labels
    score = accuracy(model, *test)
    with rounded_delays(model):  # whole time steps, for hardware
        rounded = accuracy(model, *test)
    moved = (model[0].delay.detach() - start).abs().mean()
    print(f"Test accuracy {score:.1f} %, with delays rounded to whole steps {rounded:.1f} %.")
    print(f"Delays moved by {moved:.1f} steps on average.")

    # A loaded copy computes the same, and the network can be fed in parts.
    copy = network()
    copy.load_state_dict(model.state_dict())
    few = rows(test[0][:8])
    with torch.no_grad():
        whole = forward(model, few)
        torch.testing.assert_close(forward(copy, few), whole)
        torch.testing.assert_close(in_parts(model, few, length=10), whole, rtol=1e-3, atol=1e-4)
        functional.reset_net(model)
        spikes = model[:2](few)
    print(f"A loaded copy and {len(few)} steps in parts of 10 give the same outputs.")

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].imshow(few[:, 0], cmap="gray", aspect="auto")
    axes[0].set(title="input: a row a time step", xlabel="neuron", ylabel="time step")
    axes[1].imshow(spikes[:, 0] > 0, cmap="gray_r", aspect="auto", interpolation="nearest")
    axes[1].set(title="spikes of the hidden neurons", xlabel="neuron", ylabel="time step")
    delay, weight = model[2].delay.detach(), model[2].weight.detach().norm(dim=1)
    for number, name in enumerate(data.classes):
        axes[2].scatter(delay[number], [name] * delay.shape[1], s=100 * weight[number] / weight.max())
    axes[2].set(title="dendritic delays, by weight", xlabel="time steps")
    figure.savefig(options.out, dpi=100)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
