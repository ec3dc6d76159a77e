"""Tables of results in Markdown, how sure a mean over seeds in them is, and what they say of the small models."""

import math
import statistics
from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the header first, as Markdown: the first column to the left, the others to the right."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def half_interval(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of the confidence interval of the mean (Student's t), for two values or more."""
    from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]

    return float(t.ppf((1 + confidence) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def mean_and_interval(values: Sequence[float], least: int = 2) -> str:
    """The mean in words, with half its 95 % interval where there are so many values."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < least else f"{mean} ± {half_interval(values):.2f}"


# The models of comparisons that are no others' (`torchdcls_train.comparison.small`). Isotropic ones, as the authors'
# own for CIFAR-10, which is the second: channels and blocks.
CONVMIXERS = {"convmixer": (32, 3), "convmixer-256-16": (256, 16)}
DEEP_MODELS = ("convnext", "convformer")
SMALL_MODELS = (*CONVMIXERS, *DEEP_MODELS)
# What elements that search for taps see (`torchdcls_train.comparison.positions`), in words.
INPUTS = {"edges": "edges of images", "images": "images"}


def model_title(name: str) -> str:
    """What a reader calls the model of a comparison."""
    return {"convmixer-256-16": "ConvMixer-256/16"}.get(name, f"Small {name}" if name in SMALL_MODELS else name)


def stem_stride(image_size: int, cells: int = 32) -> int:
    """Pixels of an image along each axis that a cell stands for, so that there are about `cells` of them."""
    return next((step for step in (1, 2) if image_size <= 1.25 * cells * step), 4)
