"""Small training runs: images, settings, and commands in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from torchdcls_train.runs.checkpoint import load_checkpoint
from torchdcls_train.settings import TrainConfig

# Everything that is random is on: drop path, augmentation, erasing, mixing.
SETTINGS: dict[str, Any] = {
    "model": "convnext_tiny_dcls_bilinear",
    "model_args": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]},
    "drop_path": 0.2,
    "image_size": 32,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "epochs": 2,
    "batch_size": 8,
    "micro_batch": 4,
    "lr": 1e-3,
    "lr_batch": None,
    "warmup_epochs": 0.5,
    "clip_grad": 1.0,
    "ema": 0.9,
    "clamp_positions": True,
    "repulsion_from": 1,
    "precision": "float32",
    "compile": False,
    "device": "cpu",
    "threads": 1,
    "workers": 0,
    "log_every": 1,
    "tensorboard": False,
}


def make_images(folder: Path, train: int = 12, validation: int = 5) -> Path:
    """Two classes of images, dark and bright."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", validation)):
        for name, base in (("bright", 200), ("dark", 40)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = (base + random.integers(-30, 30, (32, 32, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, "data": str(data), "out": out, **changes})


def command(data: Path, out: Path, **changes: Any) -> list[str]:
    """The arguments of `torchdcls` for the same."""
    settings = {**SETTINGS, "data": str(data), "out": str(out), **changes}
    words = ["train"]
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        words.append(f"{option}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def start(words: list[str], *, processes: int = 1) -> subprocess.Popen[str]:
    """Starts `torchdcls` with these arguments, under torchrun where there are several processes."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "torchdcls", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(words: list[str], *, processes: int = 1) -> str:
    """Runs `torchdcls` to its end, which must be a good one, and returns what it printed."""
    with start(words, processes=processes) as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def rows(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics without the rates, which differ from run to run."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if "per_second" not in name} for line in lines]


def last_tensors(out: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(out / "checkpoints" / "last.safetensors").tensors)


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: every line of metrics, and every tensor of the last checkpoint."""
    assert rows(one) == rows(other)
    tensors, others = last_tensors(one), last_tensors(other)
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
