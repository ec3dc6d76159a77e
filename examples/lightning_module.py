"""Train DCLS layers with Lightning: parameter groups, an annealed sigma, and a checkpoint that is loaded again.

The network is a small ConvMixer with `Dcls2d` layers of 17x17 cells. Lightning needs two things: `param_groups` in
`configure_optimizers`, and a callback that steps `SigmaSchedule` and stores its state in the checkpoint.

    pip install lightning
    python examples/lightning_module.py

Data: the 7,000 images of Fashion-MNIST that come with torchdcls.
"""

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchdcls import Dcls2d, SigmaSchedule, param_groups
from torchdcls.plots import draw_positions
from torchdcls_train.data import ImageSet, load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KERNEL = 17


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = Dcls2d(
            *(channels, channels, 12),
            padding="same",
            dilated_kernel_size=KERNEL,
            groups=channels,
            position_init=("uniform", 3),
        )
        self.first, self.second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        input = input + self.first(F.gelu(self.spatial(input)))
        return self.second(F.gelu(self.mix(input)))


class Classifier(lightning.LightningModule):
    def __init__(self, channels: int = 32, blocks: int = 2, classes: int = 10, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 2, stride=2),
            *(Block(channels) for _ in range(blocks)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean() * 100)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(param_groups(self, lr=self.hparams["lr"], weight_decay=0.01))
        rates = [group["lr"] for group in optimizer.param_groups]  # positions have a learning rate of their own
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class AnnealSigma(Callback):
    """Makes elements narrow, epoch by epoch. Its state is in the checkpoints, so that a run can resume."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.stored: dict[str, Any] | None = None
        self.schedule: SigmaSchedule | None = None

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.schedule = SigmaSchedule(module, self.start, self.end, max(1, trainer.max_epochs - 1))
        if self.stored is not None:
            self.schedule.load_state_dict(self.stored)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.schedule is None else self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stored = state_dict


def loader(data: ImageSet, shuffle: bool) -> DataLoader:
    images = data.images.float() / 255
    return DataLoader(TensorDataset(images, data.labels), batch_size=100, shuffle=shuffle)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=6000, help="number of training images")
    parser.add_argument("--out", type=Path, default=Path("lightning_module"), help="folder for checkpoint and picture")
    options = parser.parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")  # images in memory need no worker processes

    lightning.seed_everything(0, verbose=False)
    data = load_data("embedded")
    train = loader(ImageSet(data.train.images[: options.images], data.train.labels[: options.images]), shuffle=True)
    test = loader(data.test, shuffle=False)
    model = Classifier()
    start = [block.spatial.position.detach().clone() for block in model.network if isinstance(block, Block)]
    checkpoint = ModelCheckpoint(options.out)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        callbacks=[AnnealSigma(start=2.0, end=0.23), checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train, test)
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"{trainer.global_step} steps, test accuracy {accuracy:.1f} %.")

    loaded = Classifier.load_from_checkpoint(checkpoint.best_model_path).eval()
    images = next(iter(test))[0]
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model.eval()(images))
    sigma = loaded.network[1].spatial.sigma.mean()
    print(f"The loaded checkpoint gives the same outputs. Its sigma is {sigma:.2f}, annealed from 2.")

    figure, axes = plt.subplots(1, len(start), figsize=(10, 4.6), layout="constrained")
    blocks = [block for block in loaded.network if isinstance(block, Block)]
    for number, (axis, block, began) in enumerate(zip(axes, blocks, start, strict=True)):
        lines = draw_positions(axis, block.spatial.position, block.spatial.weight, (KERNEL, KERNEL), began)
        axis.set_title(f"block {number + 1}: elements and where they started")
        figure.colorbar(lines, ax=axis, label="cells moved")
    figure.savefig(options.out / "positions.png", dpi=100)
    print(f"Picture: {options.out}/positions.png")


if __name__ == "__main__":
    main()
