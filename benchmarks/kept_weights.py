"""What kept weights are worth after a conversion: table, sentences, picture of `benchmarks.fine_tuning`'s results."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchdcls.profiles import Interpolation
from torchdcls_results import half_interval, mean_and_interval

BASELINE = "7x7"
EVALUATIONS_AN_EPOCH = 4


@dataclass(frozen=True)
class Arm:
    """One way to continue with the trained 7x7 model; without an interpolation, as it is."""

    interpolation: Interpolation | None = None
    init: Literal["keep", "random"] = "keep"

    @property
    def name(self) -> str:
        """What records call it."""
        return BASELINE if self.interpolation is None else f"{self.interpolation}, {self.init}"

    @property
    def title(self) -> str:
        """What readers call it."""
        weights = {"keep": "warm start", "random": "new weights"}[self.init]
        return BASELINE if self.interpolation is None else f"{self.interpolation}, {weights}"


ARMS = (Arm(), *(Arm(shape, init) for shape in ("bilinear", "gaussian") for init in ("keep", "random")))


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table, the header first: an arm at each rate, accuracies as means over seeds."""
    epochs, every = result["settings"]["fine_tuning_epochs"], EVALUATIONS_AN_EPOCH
    titles = ["at the start", *(f"after epoch {epoch}" for epoch in range(1, epochs + 1))]
    table = [["layers, weights", "learning rate", "elements", "residual", *titles]]
    named = {arm.name: arm for arm in ARMS}
    for (name, lr), runs in _by_arm(result).items():
        count, residuals = runs[0]["kernel_count"], [run["residual"] for run in runs]
        table.append(
            [
                named[name].title,
                f"{lr:g}",
                "-" if count is None else str(count),
                "-" if residuals[0] is None else f"{statistics.mean(residuals):.2f}",
                *(
                    mean_and_interval([run["test_accuracy"][epoch * every] for run in runs])
                    for epoch in range(epochs + 1)
                ),
            ]
        )
    return table


def note(result: Mapping[str, Any]) -> str:
    """How the table came about, and what kept weights are worth, as sentences."""
    settings, data = result["settings"], result["data"]
    before = mean_and_interval([run["trained_test_accuracy"] for run in result["runs"]])
    sentences = [
        f"Small {settings['model']} on {data['name']} ({data['train_images']:,} training and {data['test_images']:,} "
        f"test images), trained for {settings['epochs']} epochs with 7x7 layers to {before} %, converted to "
        f"{settings['dilated_kernel_size']}x{settings['dilated_kernel_size']} at no more parameters, and trained for "
        f"{settings['fine_tuning_epochs']} more. Test accuracy in percent, ± half the 95 % interval of the mean over "
        f"{len(result['runs'])} seeds. A warm start (`init='keep'`) fits elements to the 7x7 kernels; new weights "
        "(`init='random'`) are random. The residual is what a warm start loses of the 7x7 kernels, as a share of their "
        "norm."
    ]
    for arm in ARMS:
        if arm.init == "keep" and arm.interpolation is not None:
            for lr in settings["rates"]:
                sentences.append(_kept_against_random(result, arm, lr))
    return " ".join(sentences)


def _kept_against_random(result: Mapping[str, Any], arm: Arm, lr: float) -> str:
    by_arm, other = _by_arm(result), Arm(arm.interpolation, "random").name
    ends = [[run["test_accuracy"][-1] for run in by_arm[name, lr]] for name in (arm.name, other)]
    differences = [kept - random for kept, random in zip(*ends, strict=True)]
    mean = statistics.mean(differences)
    opening = (
        f"Warm start against new weights, {arm.interpolation}, learning rate {lr:g}: {mean:+.2f} points at the end"
    )
    if len(differences) < 2:
        return f"{opening}, one seed."
    half = half_interval(differences)
    shown = "not significant" if abs(mean) <= half else "better" if mean > 0 else "worse"
    return f"{opening}, 95 % interval {mean - half:+.2f} to {mean + half:+.2f}, paired: {shown}."


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Test accuracy by epoch of fine-tuning, a panel a rate, a line an arm with the range of its seeds."""
    from matplotlib.figure import Figure

    from torchdcls.plots import line_styles

    rates = result["settings"]["rates"]
    figure = Figure(figsize=(4.6 * len(rates), 4.2), layout="constrained")
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for axes, lr in zip(panels, rates, strict=True):
        for arm, style in zip(ARMS, line_styles(len(ARMS)), strict=True):
            curves = [run["test_accuracy"] for run in _by_arm(result)[arm.name, lr]]
            columns = list(zip(*curves, strict=True))
            epochs = [index / EVALUATIONS_AN_EPOCH for index in range(len(columns))]
            dashes = "--" if arm.init == "random" else "-"
            axes.plot(epochs, list(map(statistics.mean, columns)), linestyle=dashes, label=arm.title, **style)
            lowest, highest = list(map(min, columns)), list(map(max, columns))
            axes.fill_between(epochs, lowest, highest, color=style["color"], alpha=0.12, linewidth=0)
        axes.set(xlabel="epochs of fine-tuning", title=f"learning rate {lr:g}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    panels[-1].legend(title="layers, weights: mean\nand range of seeds", fontsize=8, handlelength=3.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _by_arm(result: Mapping[str, Any]) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in result["runs"]:
        for entry in run["fine_tuned"]:
            found.setdefault((entry["arm"], entry["lr"]), []).append(entry)
    return found
