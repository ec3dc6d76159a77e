"""Pictures of the delays that a layer has learned, and of spikes."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import PowerNorm
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .. import _checks

_NEGATIVE, _POSITIVE = "#0077bb", "#cc3311"


def draw_delays(axes: Axes, delays: Tensor, max_delay: int, moments: Sequence[float] | None = None) -> AxesImage:
    """Draws histograms of delays over training side by side: a column for each moment, whose color is their share.

    Args:
        axes: Where to draw.
        delays: (moments, ...), such as `layer.delay` before training and after each epoch. Unit: time steps.
        max_delay: The largest delay. A bin is a step wide, around each whole delay.
        moments: When each is, such as epochs, evenly spaced; by default 0, 1, ...

    Returns:
        The image, for a color bar. Unit: percent of the delays.

    Raises:
        ValueError: No delays, some beyond the window or NaN, or not as many of them as of moments.
        TypeError: `delays` is not a tensor.
    """
    _check_delays("delays", delays, max_delay)
    if delays.numel() == 0:
        raise ValueError(f"delays: expected at least one moment with a delay, got shape {tuple(delays.shape)}")
    rows = delays.detach().float().cpu().flatten(1)
    times = list(range(len(rows)) if moments is None else moments)
    if len(times) != len(rows):
        raise ValueError(f"moments: expected {len(rows)}, as many as of delays, got {len(times)}")
    # Halves go up, or a delay of 0.5 counts with 0 and one of 1.5 with 2.
    bins = (rows + 0.5).floor().long().clamp(0, max_delay)
    counts = torch.stack([row.bincount(minlength=max_delay + 1) for row in bins])
    share = 100 * counts.T / rows.shape[1]
    half = (times[-1] - times[0]) / (len(times) - 1) / 2 if len(times) > 1 else 0.5
    image = axes.imshow(
        share.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        # The ends of the window may hold many times what the others do.
        norm=PowerNorm(0.5, 0, float(share.max())),
        extent=(times[0] - half, times[-1] + half, -0.5, max_delay + 0.5),
    )
    axes.set_ylabel("delay (steps)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return image


def draw_delay_field(axes: Axes, delay: Tensor, weight: Tensor, max_delay: int) -> PathCollection:
    """Draws the receptive field of a neuron: a dot for each synapse, at its delay and input.

    Red dots excite and blue ones inhibit; the area is the weight's magnitude.

    Args:
        axes: Where to draw.
        delay: (inputs,) or (inputs, kernel_count), such as `layer.delay[neuron]`. Unit: time steps.
        weight: The same shape, such as `layer.weight[neuron]`.
        max_delay: The largest delay.

    Returns:
        The dots.

    Raises:
        ValueError: The shapes differ, or are others, or delays are beyond the window or NaN.
        TypeError: An argument is not a tensor.
    """
    _check_delays("delay", delay, max_delay)
    _checks.tensor("weight", weight)
    if delay.shape != weight.shape or delay.dim() not in (1, 2):
        raise ValueError(
            "delay: expected (inputs,) or (inputs, kernel_count), and weight of the same shape, "
            f"got {tuple(delay.shape)} and {tuple(weight.shape)}"
        )
    inputs = torch.arange(len(delay)).reshape(-1, *[1] * (delay.dim() - 1)).expand(delay.shape)
    strength = weight.detach().float().cpu().flatten()
    area = 1 + 30 * strength.abs() / strength.abs().max().clamp_min(1e-12)
    dots = axes.scatter(
        delay.detach().float().cpu().flatten().numpy(),
        inputs.flatten().numpy(),
        s=area.numpy(),
        c=[_POSITIVE if value > 0 else _NEGATIVE for value in strength.tolist()],
        alpha=0.75,
        linewidths=0,
    )
    axes.set_xlim(-0.5, max_delay + 0.5)
    axes.set_ylim(-0.5, len(delay) - 0.5)
    axes.set_xlabel("delay (steps)")
    axes.set_ylabel("input")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    return dots


def draw_raster(axes: Axes, spikes: Tensor, first: int = 0, color: str = "black") -> PathCollection:
    """Draws a raster of spikes: a mark for each, neurons upward and time to the right.

    Args:
        axes: Where to draw. Several rasters in the same one lie above each other by `first`.
        spikes: (neurons, time); a spike is what is not 0.
        first: The row of the first neuron.
        color: The color of the marks.

    Returns:
        The marks.

    Raises:
        ValueError: `spikes` has another number of axes.
        TypeError: `spikes` is not a tensor.
    """
    _checks.tensor("spikes", spikes)
    if spikes.dim() != 2:
        raise ValueError(f"spikes: expected (neurons, time), got shape {tuple(spikes.shape)}")
    neuron, step = spikes.detach().cpu().nonzero(as_tuple=True)
    marks = axes.scatter(step.numpy(), (neuron + first).numpy(), s=4, c=color, marker="|", linewidths=0.8)
    low = -0.5 if first == 0 else axes.get_ylim()[0]
    axes.set_ylim(low, first + len(spikes) - 0.5)
    axes.set_xlim(-0.5, spikes.shape[1] - 0.5)
    axes.set_xlabel("time (steps)")
    axes.set_ylabel("neuron")
    return marks


def _check_delays(name: str, delays: Tensor, max_delay: int) -> None:
    _checks.tensor(name, delays)
    _checks.integer("max_delay", max_delay, 0)
    outside = ~((delays >= 0) & (delays <= max_delay))
    if outside.any():
        found = delays[outside][0].item()
        raise ValueError(f"{name}: expected delays from 0 to max_delay={max_delay} steps, got {found:g}")
