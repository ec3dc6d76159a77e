"""The settings of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from torchdcls import _checks
from torchdcls.profiles import INTERPOLATIONS, Interpolation

from ..settings import MAX_IMAGE_PIXELS, setting

Layers = Literal["7x7", Interpolation]
LAYERS: tuple[Layers, ...] = get_args(Layers)
BASELINE: Layers = "7x7"

Inputs = Literal["edges", "images"]
Start = Literal["narrow", "spread"]
StudentName = Literal["bilinear", "triangle", "triangle-2", "gaussian", "gaussian-1", "gaussian-3", "gaussian-annealed"]

Delays = Literal["none", "fixed", Interpolation, "dense"]
LEARNED = INTERPOLATIONS


@dataclass(frozen=True)
class CompareConfig:
    """Settings of `torchdcls compare images`; each is an option of it, with the help that stands beside it."""

    UNRECORDED: ClassVar = ("data_dir", "out")

    model: str = setting(
        "convmixer",
        "'convmixer', a shallow network of 3 blocks and 32 channels; 'convmixer-256-16', the authors' for CIFAR-10; "
        "'convnext' or 'convformer' at a small size; or one of timm's names, such as convformer_s18",
    )
    data: str = setting(
        "embedded",
        "'embedded' (6,000 images of Fashion-MNIST, in the package), 'fashion-mnist' (all of it), 'cifar10', or the "
        "path of a folder with train/ and test/ (or val/), one folder per class",
    )
    data_dir: Path | None = setting(
        None,
        "where the files of 'fashion-mnist' or 'cifar10' are (default: Debian's package of the first, or a download)",
    )
    image_size: int | None = setting(
        None, "pixels per side (default: 28 for Fashion-MNIST, 32 for CIFAR-10, 64 for a folder)"
    )
    max_image_pixels: int = setting(
        MAX_IMAGE_PIXELS,
        "an image with more pixels counts as unreadable, and is not decoded (default: Pillow's limit)",
    )
    methods: Sequence[Layers] = setting(
        LAYERS, "layers to compare: 7x7, the model's own and the baseline, and interpolations of DCLS layers instead"
    )
    seeds: int | None = setting(
        None,
        "number of seeds, 0, 1, ...; at least 3 for a verdict (default: 6 with convmixer, 1 with others and --quick)",
    )
    epochs: int | None = setting(
        None, "passes over the training images (default: 4 with convmixer, 6 with others, 2 with --quick)"
    )
    train_images: int | None = setting(
        None,
        "use only this many training images, the same number from each class (default: all, and 2,000 with --quick)",
    )
    quick: bool = setting(False, "a short run to check that everything works; its accuracies mean nothing")
    dilated_kernel_size: int = setting(17, "height and width of the DCLS kernels")
    kernel_count: int | None = setting(
        None, "elements per kernel (default: the most that need no more parameters than the 7x7 model)"
    )
    position_radius: float = setting(
        3.0,
        "positions start uniformly within this many cells of the center along each axis; 0 for the papers' start "
        "(normal, standard deviation 0.5), from which a short run has no time to spread",
    )
    sigma_init: float | None = setting(
        None, "where sigmas of triangle and gaussian start, in cells (default: the papers' 0 and 0.23)"
    )
    batch_size: int = setting(64, "images per step")
    lr: float | None = setting(
        None,
        "base learning rate of AdamW; positions and sigmas get 5 times the learning rate (default: 0.01 with "
        "convmixer, 0.004 with others)",
    )
    weight_decay: float = setting(0.05, "weight decay; not applied to biases, norms, positions and sigmas")
    label_smoothing: float = setting(0.1, "label smoothing of the training loss")
    warmup_epochs: float = setting(1.0, "epochs of linear warm-up before cosine decay, at most a quarter of the epochs")
    out: Path | None = setting(
        None, "folder of the run; rerun with the same one to resume (default: runs/compare-DATE-TIME)"
    )
    device: str = setting("auto", "'cpu', 'cuda', ..., or 'auto' for a GPU where there is one")
    threads: int | None = setting(None, "CPU threads (default: torch's, or 1 if other processes use the CPU)")

    def checked(self) -> "CompareConfig":
        """The same settings with `seeds`, `epochs`, `lr` and `train_images` filled in.

        Raises:
            ValueError: A setting is out of range; the message names its argument.
        """
        from .small import check_model  # timm takes seconds, and `--help` does without

        check_model(self.model)
        _check_each_once("methods", self.methods, LAYERS)
        _check_counts(self, "batch_size", "dilated_kernel_size", "max_image_pixels")
        _check_counts(self, "seeds", "epochs", "train_images", "kernel_count", "threads")
        _check_finite(self, "lr", "sigma_init", "weight_decay", "position_radius", "warmup_epochs")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number from 0 to below 1, got {self.label_smoothing!r}")
        seeds, epochs, lr = (6, 4, 1e-2) if self.model == "convmixer" else (1, 6, 4e-3)
        return replace(
            self,
            seeds=self.seeds or (1 if self.quick else seeds),
            epochs=self.epochs or (2 if self.quick else epochs),
            lr=lr if self.lr is None else self.lr,
            train_images=self.train_images or (2000 if self.quick else None),
        )


@dataclass(frozen=True)
class PositionsConfig:
    """Settings of `torchdcls compare positions`; each is an option of it, with the help that stands beside it."""

    UNRECORDED: ClassVar = ("out",)

    inputs: Sequence[Inputs] = setting(
        get_args(Inputs),
        "inputs of the kernels: the embedded images of Fashion-MNIST, which are smooth, or their edges (the "
        "Laplacian), which vary from cell to cell",
    )
    starts: Sequence[Start] = setting(
        get_args(Start),
        "where elements start: narrow is the papers' (normal, standard deviation 0.5 cells), spread is uniform within "
        "--reach cells of the center along each axis",
    )
    students: Sequence[StudentName] = setting(
        get_args(StudentName),
        "interpolations to compare: triangle and gaussian start at the papers' sigma, names with a number at that "
        "sigma in cells; gaussian-annealed does not learn sigma, but lowers it from 3 to 0 by a schedule",
    )
    seeds: int | None = setting(None, "number of seeds, 0, 1, ... (default: 4, and 1 with --quick)")
    kernels: int = setting(24, "kernels of a seed, each an independent trial")
    taps: int = setting(6, "taps of a kernel, and elements that learn to find them")
    reach: float = setting(9.0, "taps are within this many cells of the center")
    dilated_kernel_size: int = setting(23, "height and width of kernels, odd")
    updates: int | None = setting(None, "updates of a run (default: 400, and 200 with --quick)")
    batch_size: int = setting(2, "images per update, for each kernel")
    lr: float = setting(0.05, "learning rate of AdamW for weights, with cosine decay to 0")
    position_lr_scale: float = setting(5.0, "learning rate of positions and sigmas over that of weights")
    quick: bool = setting(False, "a short run to check that everything works")
    out: Path | None = setting(
        None, "folder of the run; rerun with the same one to resume (default: runs/positions-DATE-TIME)"
    )
    threads: int = setting(1, "CPU threads; more do not help if other processes use the CPU, as steps are small")

    def checked(self) -> "PositionsConfig":
        """The same settings with `seeds` and `updates` filled in.

        Raises:
            ValueError: A setting is out of range; the message names its argument.
        """
        for name, choices in (("inputs", Inputs), ("starts", Start), ("students", StudentName)):
            _check_each_once(name, getattr(self, name), get_args(choices))
        _check_counts(self, "kernels", "taps", "dilated_kernel_size", "batch_size", "threads", "seeds", "updates")
        if self.dilated_kernel_size % 2 == 0:
            raise ValueError(f"dilated_kernel_size: expected an odd size, got {self.dilated_kernel_size}")
        if not 0 < self.reach <= self.dilated_kernel_size // 2:
            raise ValueError(
                f"reach: expected more than 0 and at most {self.dilated_kernel_size // 2} cells, half the kernel size, "
                f"got {self.reach!r}"
            )
        _check_finite(self, "lr", "position_lr_scale")
        return replace(
            self,
            seeds=self.seeds or (1 if self.quick else 4),
            updates=self.updates or (200 if self.quick else 400),
        )


@dataclass(frozen=True)
class DigitsConfig:
    """Settings of `torchdcls compare digits`; each is an option of it, with the help that stands beside it."""

    # A run that is resumed may have others.
    UNRECORDED: ClassVar = ("data_dir", "out", "threads")

    data_dir: Path | None = setting(
        None,
        "the archive of the Free Spoken Digit Dataset, or a folder with its recordings (default: a download of 16 MB)",
    )
    methods: Sequence[Delays] = setting(
        get_args(Delays),
        "delays of synapses: none; fixed, drawn at random; learned, by each interpolation; or dense: a weight for each "
        "delay, in a network that is narrower, so that it has no more parameters",
    )
    speakers: Sequence[str] | None = setting(
        None, "speakers to leave out of training and test on, in turn (default: all, and two with --quick)"
    )
    seeds: int = setting(1, "number of seeds, 0, 1, ...")
    lrs: Sequence[float] = setting(
        (0.01, 0.025, 0.06),
        "largest learning rates to try; the run with the best accuracy on held-out recordings of the training "
        "speakers counts",
    )
    epochs: int | None = setting(None, "passes over the training recordings (default: 8, and 2 with --quick)")
    train_recordings: int | None = setting(
        None, "use only this many training recordings of each speaker and digit (default: all, and 10 with --quick)"
    )
    hidden: int = setting(64, "neurons of each of two hidden layers")
    max_delay: int = setting(24, "largest delay, in steps of 10 ms")
    batch_size: int = setting(50, "recordings per step")
    quick: bool = setting(False, "a short run to check that everything works; its accuracies mean nothing")
    out: Path | None = setting(
        None,
        "folder of the run; rerun with the same one to resume (default: runs/digits-DATE-TIME)",
    )
    threads: int = setting(1, "CPU threads; more do not help if other processes use the CPU, as steps are small")

    def checked(self) -> "DigitsConfig":
        """The same settings with `epochs`, `train_recordings` and with `quick` a single learning rate filled in.

        Raises:
            ValueError: A setting is out of range; the message names its argument.
        """
        _check_each_once("methods", self.methods, get_args(Delays))
        _check_each_once("lrs", self.lrs)
        if self.speakers is not None:
            _check_each_once("speakers", self.speakers)
        _check_counts(self, "seeds", "hidden", "max_delay", "threads", "epochs", "train_recordings")
        _checks.integer("batch_size", self.batch_size, 2)
        for lr in self.lrs:
            if not 0 < lr < float("inf"):
                raise ValueError(f"lrs: expected finite numbers above 0, got {lr!r}")
        return replace(
            self,
            lrs=self.lrs[len(self.lrs) // 2 :][:1] if self.quick else self.lrs,
            epochs=self.epochs or (2 if self.quick else 8),
            train_recordings=self.train_recordings or (10 if self.quick else None),
        )


@dataclass(frozen=True)
class CompareAllConfig:
    """Settings that all comparisons have; each is an option of `torchdcls compare` alone."""

    quick: bool = setting(False, "short runs to check that everything works")
    out: Path | None = setting(None, "folder of the run (default: runs/compare-DATE-TIME)")
    threads: int | None = setting(None, "CPU threads (default: those of each comparison)")


def _check_each_once(name: str, chosen: Sequence[Any], choices: Sequence[str] = ()) -> None:
    for choice in chosen if choices else ():
        _checks.one_of(name, choice, choices)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"{name}: expected each once, at least one, got {' '.join(map(str, chosen))!r}")


def _check_counts(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) is not None:
            _checks.integer(name, getattr(config, name), 1)


def _check_finite(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
