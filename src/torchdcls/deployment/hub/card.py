"""The parts of the model card: the table of kernels, and the results in the form of the Hub's model-index."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult
from torch import nn

from ..._checks import number, of_type
from ...conversion import parameter_count
from ...conversion.report import by_axis
from ...conversion.select import stages
from ...nn import DclsLayer
from ...profiles import description

TEMPLATE = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
# Metrics' ids on the Hub, by their names in tables.
_METRICS = {"top-1": "accuracy", "top-5": "accuracy", "acc@1": "accuracy", "acc@5": "accuracy", "miou": "mean_iou"}


@dataclass(frozen=True)
class Result:
    """A score of a model, as the Hub's model-index has it.

    Args:
        dataset: The data's id on the Hub, such as "imagenet-1k".
        metric: The metric's id, such as "accuracy".
        value: The score.
        dataset_name: The data's name for people; None for its id.
        metric_name: The metric's name for people, such as "top-1"; None for its id.
        split: The split that was scored.
        task: The task's id.
    """

    dataset: str
    metric: str
    value: float
    dataset_name: str | None = None
    metric_name: str | None = None
    split: str | None = None
    task: str = "image-classification"

    def entry(self) -> EvalResult:
        """The entry of the model-index."""
        return EvalResult(
            task_type=self.task,
            dataset_type=self.dataset,
            dataset_name=self.dataset_name or self.dataset,
            dataset_split=self.split,
            metric_type=self.metric,
            metric_value=self.value,
            metric_name=self.metric_name or self.metric,
        )


Results = Mapping[str, float] | Sequence[Result]


def as_list(results: Results) -> list[Result]:
    """Results as a list."""
    if not isinstance(results, Mapping):
        for result in results:
            of_type("results", result, Result, "numbers by names of data and metric, or Results")
        return list(results)
    found = []
    for name, value in results.items():
        dataset, space, metric = name.strip().rpartition(" ")
        if not space:
            raise ValueError(f"results: expected names of data and metric, such as 'ImageNet-1k top-1', got {name!r}")
        number("results", value)
        ids = dataset.lower().replace(" ", "-"), _METRICS.get(metric.lower(), metric.lower())
        found.append(Result(*ids, value, dataset_name=dataset, metric_name=metric))
    return found


def kernel_rows(layers: Mapping[str, DclsLayer]) -> list[list[str]]:
    """A row of the table for each kind of layer in each stage."""
    named = stages(layers)
    groups: dict[tuple[str, ...], list[DclsLayer]] = defaultdict(list)
    for name, layer in layers.items():
        look = (
            type(layer).__name__,
            str(layer.out_channels),
            by_axis(layer.dilated_kernel_size),
            str(layer.kernel_count),
            description(layer.interpolation).replace("|", "/"),
            "all" if len(layer.learned_dims) == layer.dims else ", ".join(map(str, layer.learned_dims)),
        )
        groups[named[name], *look].append(layer)
    return [
        [stage, str(len(members)), *kind, f"{parameter_count(nn.ModuleList(members)):,}"]
        for (stage, *kind), members in groups.items()
    ]
