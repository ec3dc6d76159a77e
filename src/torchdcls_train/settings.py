"""The settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torchdcls import _checks
from torchdcls.deployment.export import DynamicSize, Positions
from torchdcls.deployment.report import Format

Precision = Literal["float32", "bfloat16"]
Loss = Literal["cross-entropy", "binary"]
Weights = Literal["auto", "model", "ema"]

# Where Pillow warns; three bytes a pixel make 256 MiB of it.
MAX_IMAGE_PIXELS = 89_478_485
# The data sets that have a name: all others are paths.
NAMED = ("embedded", "fashion-mnist", "cifar10")


_WEIGHTS = (
    "'model' for the trained weights, 'ema' for their average, or 'auto': the better of both in the run's last "
    "validation"
)


def setting(default: Any, help: str) -> Any:
    """A field of a settings class, with the help that stands beside its option."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; each is an option of `torchdcls train`, with the help that stands beside it.

    What a run computes depends on these alone, not on the number of processes: `batch_size` is that of all processes
    together, and each `micro_batch` of it has random numbers of its own.
    """

    model: str = setting("convnext_tiny_dcls_gaussian", "name of a model of timm or torchdcls")
    model_args: Mapping[str, Any] | None = setting(None, "more arguments of the model, such as {depths: [2, 2, 6, 2]}")
    num_classes: int | None = setting(None, "number of classes (default: as many as the data have)")
    drop_path: float = setting(0.0, "stochastic depth: rate of the last layer")

    data: str = setting(
        "",
        "what to train on, required here or in --config: a folder with train/ and val/ (or validation/ or test/), "
        "one folder per class; 'embedded', 'fashion-mnist' or 'cifar10'; 'wds/FOLDER' for WebDataset shards; "
        "'hfds/NAME' or 'hfids/NAME' for a dataset of Hugging Face, on disk or streamed",
    )
    data_dir: Path | None = setting(None, "where the files of a named dataset are (default: its usual place)")
    train_split: str | None = setting(None, "the split to train on (default: train)")
    val_split: str | None = setting(None, "the split to validate on (default: val, validation or test)")
    train_images: int | None = setting(
        None,
        "use only this many training images, the same number from each class, or the first ones of shards (default: "
        "all); required if the data do not state their number, such as shards without an index",
    )
    val_images: int | None = setting(None, "use only this many validation images, likewise")
    input_key: str | None = setting(None, "field or extension of images in shards and datasets (default: timm's)")
    target_key: str | None = setting(None, "field of class numbers in shards and datasets (default: timm's)")
    max_unreadable: float = setting(0.01, "share of unreadable images at which a run stops")
    max_image_pixels: int = setting(
        MAX_IMAGE_PIXELS,
        "an image with more pixels counts as unreadable, and is not decoded (default: Pillow's limit)",
    )
    image_size: int = setting(224, "height and width of training and validation images in pixels")
    crop_pct: float | None = setting(None, "share of a validation image that the crop takes (default: the model's)")
    workers: int | None = setting(
        None,
        "processes that read images, for each training process; 0 reads in the training process (default: as many as "
        "it has cores, at most 8)",
    )

    scale: tuple[float, float] = setting((0.08, 1.0), "range of the random crop's share of the image's area")
    ratio: tuple[float, float] = setting((3 / 4, 4 / 3), "range of the random crop's aspect ratio")
    hflip: float = setting(0.5, "probability of a mirrored image")
    color_jitter: float | None = setting(None, "strength of color jitter; no effect with auto_augment")
    auto_augment: str | None = setting(None, "timm's augmentation policy, such as rand-m9-mstd0.5-inc1")
    random_erasing: float = setting(0.0, "probability that a rectangle is erased")
    mixup: float = setting(0.0, "alpha of mixup; 0 for none")
    cutmix: float = setting(0.0, "alpha of cutmix; 0 for none")
    label_smoothing: float = setting(0.0, "label smoothing of the training loss")
    loss: Loss = setting(
        "cross-entropy", "the training loss: cross-entropy, or binary (of each class against the rest)"
    )

    epochs: int = setting(300, "passes over the training images")
    batch_size: int = setting(4096, "images per update, of all processes together")
    micro_batch: int = setting(
        128, "images that a process takes at once; gradients of batch_size images are accumulated"
    )
    optimizer: str = setting("adamw", "timm's name of the optimizer")
    lr: float = setting(4e-3, "base learning rate at a batch of lr_batch images")
    lr_batch: int | None = setting(4096, "the learning rate is lr * batch_size / lr_batch; null: it is lr")
    min_lr: float = setting(1e-6, "learning rate at the end of the cosine")
    warmup_epochs: float = setting(20.0, "epochs of linear warm-up")
    cosine_after_warmup: bool = setting(
        False, "start the cosine after the warm-up (as ConvNeXt's authors), not together with it (as timm)"
    )
    weight_decay: float = setting(0.05, "weight decay; not applied to biases, norms, positions and sigmas")
    clip_grad: float | None = setting(None, "clip the norm of the gradient of all parameters to this number")
    ema: float | None = setting(None, "decay of an exponential moving average of the weights, which is validated too")

    position_lr_scale: float = setting(5.0, "learning rate of positions and sigmas over the base learning rate")
    clamp_positions: bool = setting(False, "move positions back onto the grid after each update (bilinear)")
    repulsion_from: int | None = setting(
        None, "first epoch with the repulsion loss, counted from 0 (the papers' bilinear models: 20)"
    )

    precision: Precision = setting("bfloat16", "precision of the forward pass: bfloat16 by autocast, or float32")
    channels_last: bool = setting(True, "use the channels_last memory format")
    compile: bool | None = setting(None, "compile the model with torch.compile (default: on GPUs alone)")
    device: str = setting("auto", "'cpu', 'cuda', ..., or 'auto' for a GPU where there is one")
    threads: int | None = setting(None, "CPU threads of each process (default: torch's)")
    seed: int = setting(0, "seed of weights, order, augmentation and all other random numbers")

    out: Path | None = setting(None, "folder of the run (default: runs/NAME, named by the recipe or the model)")
    resume: str | None = setting(
        None, "'auto' resumes the run in the folder, if there is one; or the path of a checkpoint"
    )
    initial_checkpoint: str | None = setting(
        None,
        "start a new run from the weights of this file or URL: a checkpoint, an exported safetensors file, or a state "
        "dict",
    )
    reset_head: bool = setting(False, "with initial_checkpoint: start with a new classifier, for other classes")
    checkpoint_every: int | None = setting(None, "updates between checkpoints (default: one after each epoch)")
    log_every: int = setting(50, "updates between lines of metrics.jsonl")
    tensorboard: bool = setting(True, "write TensorBoard's files where it is installed")

    def __post_init__(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            ValueError: A setting is out of range; the message begins with its name.
        """
        for name in ("scale", "ratio"):
            # Files have lists.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in self.model_args or ():
            if not isinstance(name, str) or not name.isidentifier():
                wants = "; YAML needs a space after the colon: {depths: [2, 2]}" if ":" in str(name) else ""
                raise ValueError(f"model_args: expected names of arguments, got {name!r}{wants}")
        if self.reset_head and self.initial_checkpoint is None:
            raise ValueError("reset_head: expected false without an initial_checkpoint, got true; give both")
        counts = (
            "max_image_pixels image_size epochs batch_size micro_batch log_every num_classes train_images val_images"
        )
        _checks.settings(self, _checks.count, *counts.split(), "lr_batch", "threads", "checkpoint_every")
        _checks.settings(self, partial(_checks.integer, minimum=0), "workers", "seed")
        rates = ("lr", "min_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix", "position_lr_scale")
        _checks.settings(self, _checks.at_least_0, *rates)
        _checks.settings(self, _checks.share, "drop_path", "label_smoothing", "ema")
        for name in ("hflip", "random_erasing", "max_unreadable"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)!r}")
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected two positive numbers, the smaller first, got {low} and {high}")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct: expected a number above 0, at most 1, got {self.crop_pct!r}")
        if self.clip_grad is not None and not 0 < self.clip_grad < float("inf"):
            raise ValueError(f"clip_grad: expected a positive number or null, got {self.clip_grad!r}")
        _checks.one_of("precision", self.precision, get_args(Precision))
        _checks.one_of("loss", self.loss, get_args(Loss))
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: expected less than epochs, {self.epochs}, got {self.warmup_epochs!r}")
        if (self.mixup or self.cutmix) and self.micro_batch % 2 != 0:
            raise ValueError(
                f"micro_batch: expected an even number, as mixup and cutmix mix pairs, got {self.micro_batch}"
            )
        if self.batch_size % self.micro_batch != 0:
            raise ValueError(f"micro_batch: expected a divisor of batch_size {self.batch_size}, got {self.micro_batch}")

    @property
    def scaled_lr(self) -> float:
        """The base learning rate of this batch size."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch


@dataclass(frozen=True)
class EvalConfig:
    """What to score a checkpoint on; defaults are those of its run."""

    data: str | None = setting(None, "data as for torchdcls train (default: that of the run)")
    data_dir: Path | None = setting(None, "where the files of a named dataset are")
    val_split: str | None = setting(None, "the split to score")
    weights: Weights = setting("auto", _WEIGHTS)
    max_image_pixels: int | None = setting(None, "an image with more pixels counts as unreadable")
    image_size: int | None = setting(None, "height and width of images in pixels")
    crop_pct: float | None = setting(None, "share of an image that the crop takes")
    micro_batch: int | None = setting(None, "images at once")
    workers: int | None = setting(None, "processes that read images")
    device: str = setting("auto", "'cpu', 'cuda', ..., or 'auto' for a GPU where there is one")
    threads: int | None = setting(None, "CPU threads (default: torch's)")


@dataclass(frozen=True)
class ExportConfig:
    """How to write a checkpoint for other programs; defaults are those of its run."""

    to: str | None = setting(  # what it may be is checked below, in one sentence
        None,
        "what to write, required: onnx (for onnxruntime and others), pt2 (torch.export), or safetensors "
        "(weights, DCLS layers kept, for torchdcls.deployment.load)",
    )
    out: Path | None = setting(None, "the file (default: beside the checkpoint)")
    overwrite: bool = setting(False, "replace an existing file")
    weights: Weights = setting("auto", _WEIGHTS)
    image_size: int | None = setting(None, "height and width of images in pixels")
    dynamic_size: DynamicSize = setting(
        "auto", "whether onnx and pt2 take other image sizes too: true, false, or auto: if the model allows it"
    )
    opset: int | None = setting(None, "ONNX's version of operators, 18 to 25 (default: 20)")
    positions: Positions = setting("keep", "round moves each element of DCLS layers to its nearest cell")
    fused: bool = setting(True, "write DCLS layers as plain convolutions; false is for pt2 alone")

    def __post_init__(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            ValueError: A setting is missing or out of range; the message begins with its name.
        """
        _checks.one_of("to", self.to, get_args(Format))
        _checks.settings(self, _checks.count, "image_size")


SETTINGS = tuple(entry.name for entry in fields(TrainConfig))
