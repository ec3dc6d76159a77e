"""The pictures of a comparison of delays, drawn from its results and its examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchdcls.delays import SynapticDelays

from ...runs.writer import write_whole
from ..config import LEARNED
from ..report import save_figures
from .findings import by_speaker, chosen_runs, finished_methods
from .result import DigitsResult
from .task import Trained

_NEURONS = 4
_MARKERS = "osD^vPX*"


def save_example(folder: Path, method: str, lr: float, trained: Trained, spikes: Tensor, digit: Tensor) -> None:
    """Writes what pictures show of a run: delays over training, synapses, and its spikes for a recording.

    Args:
        folder: The run folder.
        method: The delays of the network.
        lr: Its learning rate.
        trained: The run.
        spikes: (inputs, time), the recording.
        digit: The digit that is said there.
    """
    network = trained.network
    example = {"input": spikes, "digit": digit}
    with torch.no_grad():
        layered = spikes[None].float()
        for layer in range(len(network.norms)):
            layered = network.fired(layered, layer)
            example[f"layer{layer + 1}"] = layered[0] > 0
    if trained.delays is not None:
        first = network.delays[0]
        assert isinstance(first, SynapticDelays)
        example |= {"delays": trained.delays, "delay": first.delay.detach(), "weight": first.weight.detach()}
    path = _example_path(folder, method, lr)
    path.parent.mkdir(exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in example.items()}
    write_whole(path, lambda unfinished: save_file(whole, str(unfinished)))


def draw_pictures(folder: Path, result: DigitsResult) -> list[Path]:
    """Draws what there is so far; returns the files."""
    if not finished_methods(result):
        return []
    figures = {"accuracy.png": accuracy_figure(result)}
    assert result.config.speakers is not None
    first, max_delay = result.config.speakers[0], result.config.max_delay
    chosen = {run.method: run.lr for run in chosen_runs(result).values() if (run.speaker, run.seed) == (first, 0)}
    # Examples are for pictures alone: a comparison whose examples were deleted does without.
    paths = {method: _example_path(folder, method, lr) for method, lr in chosen.items()}
    examples = {method: load_file(path) for method, path in paths.items() if path.exists()}
    learned: dict[str, Mapping[str, Tensor]] = {method: examples[method] for method in LEARNED if method in examples}
    if learned:
        figures["delays.png"] = delays_figure(learned, max_delay)
        figures["fields.png"] = fields_figure(learned, max_delay)
    if examples:
        method = "gaussian" if "gaussian" in examples else next(iter(examples))
        figures["raster.png"] = raster_figure(method, examples[method], first)
    return save_figures(folder, figures)


def accuracy_figure(result: DigitsResult) -> Any:
    """Accuracy of each method: a mark for each speaker who was left out and is done, and a bar for their mean."""
    from matplotlib.figure import Figure

    accuracies = {method: by_speaker(result, method) for method in finished_methods(result)}
    methods = list(accuracies)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for column, accuracy in enumerate(accuracies.values()):
        mean = sum(accuracy.values()) / len(accuracy)
        axes.bar(column, mean, width=0.75, color="0.88", zorder=0)
        axes.text(column, 1, f"{mean:.1f}", ha="center", va="bottom", fontsize="small")
    for number, speaker in enumerate(accuracies[methods[0]]):
        marker, color = _MARKERS[number % len(_MARKERS)], f"C{number % 10}"
        values = [accuracy[speaker] for accuracy in accuracies.values()]
        axes.plot(range(len(methods)), values, label=speaker, linewidth=0.8, markersize=5, marker=marker, color=color)
    axes.set_xticks(range(len(methods)), methods)
    axes.set_xlabel("delays")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 100)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(title="left out", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_title("Spoken digits of a speaker never heard")
    return figure


def delays_figure(examples: Mapping[str, Mapping[str, Tensor]], max_delay: int) -> Any:
    """Histograms of delays over training, a panel for each method."""
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_delays

    figure = Figure(figsize=(2.6 * len(examples) + 0.8, 3.2), layout="constrained")
    panels = figure.subplots(1, len(examples), squeeze=False, sharey=True)[0]
    images = []
    for axes, (method, example) in zip(panels, examples.items(), strict=True):
        images.append(draw_delays(axes, example["delays"], max_delay))
        axes.set_title(method, fontsize="medium")
        axes.set_xlabel("epoch")
        axes.label_outer()
    most = max(image.get_clim()[1] or 0.0 for image in images)
    for image in images:
        image.set_clim(0, most)
    figure.colorbar(images[-1], ax=panels, label="share of delays (%)")
    figure.suptitle("Delays of the second layer over training")
    return figure


def fields_figure(examples: Mapping[str, Mapping[str, Tensor]], max_delay: int) -> Any:
    """Receptive fields of some neurons of the first layer: a row for each method."""
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_delay_field

    figure = Figure(figsize=(2.1 * _NEURONS + 0.6, 2.7 * len(examples) + 0.5), layout="constrained")
    grid = figure.subplots(len(examples), _NEURONS, squeeze=False, sharex=True, sharey=True)
    for row, (method, example) in zip(grid, examples.items(), strict=True):
        # Those whose synapses are strongest: they are the ones that learned most.
        strongest = example["weight"].abs().sum((1, 2)).argsort(descending=True)[:_NEURONS].sort().values
        for axes, neuron in zip(row, strongest.tolist(), strict=False):
            draw_delay_field(axes, example["delay"][neuron], example["weight"][neuron], max_delay)
            bands = len(example["delay"][neuron]) // 2
            axes.axhline(bands - 0.5, color="0.5", linewidth=0.8)
            axes.set_title(f"{method}, neuron {neuron}", fontsize="small")
            axes.set_ylabel("input: rises, then falls")
            axes.label_outer()
    figure.suptitle("Synapses after training (red excites, blue inhibits; area: |weight|)")
    return figure


def raster_figure(method: str, example: Mapping[str, Tensor], speaker: str) -> Any:
    """A recording as spikes, and the spikes of the two hidden layers."""
    from matplotlib.figure import Figure

    from torchdcls.plots import draw_raster

    names = {"input": "input: rises of 40 mel bands, then falls", "layer1": "first layer", "layer2": "second layer"}
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for axes, (name, title) in zip(panels, names.items(), strict=True):
        spikes = example[name]
        half = len(spikes) // 2 if name == "input" else 0
        if half:
            draw_raster(axes, spikes[:half], color="#cc3311")
            draw_raster(axes, spikes[half:], first=half, color="#0077bb")
            axes.axhline(half - 0.5, color="0.5", linewidth=0.8)
        else:
            draw_raster(axes, spikes)
        axes.set_title(f"{title} ({100 * float(spikes.float().mean()):.1f} % of neurons and steps)", fontsize="medium")
        axes.label_outer()
    panels[-1].set_xlabel("time (steps of 10 ms)")
    figure.suptitle(f"The digit {int(example['digit'])}, said by {speaker}, in a network with {method} delays")
    return figure


def _example_path(folder: Path, method: str, lr: float) -> Path:
    return folder / "examples" / f"{method}-{lr:g}.safetensors"
