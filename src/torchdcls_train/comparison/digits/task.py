"""Which digit is spoken: training on some speakers, and the test on one that was never heard."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from torchdcls.delays import SigmaSchedule, SynapticDelays, rounded_delays
from torchdcls.optim import param_groups

from ...data.random_numbers import generators_kept, seed_generators, seed_of
from ...trainer import NotFiniteError, plain_updates
from ..config import LEARNED, Delays
from .network import DigitNetwork

# Recordings of each speaker and digit that choose the learning rate; the dataset's own test set.
VALIDATION = 5
_WEIGHT_DECAY = 0.01
# Learning rate of delays over that of weights: delays are tens of steps, weights tenths.
POSITION_LR_SCALE = 20.0
# Where sigma ends, as in arXiv:2306.17670, and the share of the epochs in which it falls.
_LAST_SIGMA, _ANNEALED = 0.23, 0.5
_TEST_BATCH = 250


@dataclass(frozen=True, eq=False)
class Spoken:
    """Recordings as spikes.

    Args:
        spikes: (recordings, inputs, time), bool.
        digits: (recordings,) int64.
        speakers: Who speaks each.
        numbers: (recordings,) int64, of the recording among those of its speaker and digit.
    """

    spikes: Tensor
    digits: Tensor
    speakers: list[str]
    numbers: Tensor

    def part(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes, float32, and digits of some recordings."""
        return self.spikes[index].float(), self.digits[index]


@dataclass(frozen=True, eq=False)
class Fold:
    """Numbers of the recordings to train on, to choose by, and to test with: all of the speaker who is left out."""

    train: Tensor
    validation: Tensor
    test: Tensor


def fold_without(spoken: Spoken, speaker: str, train_recordings: int | None = None) -> Fold:
    """The fold that leaves a speaker out, with at most so many training recordings of each other speaker and digit."""
    left_out = torch.tensor([name == speaker for name in spoken.speakers])
    validation = spoken.numbers < VALIDATION
    train = ~validation
    if train_recordings is not None:
        train = train & (spoken.numbers < VALIDATION + train_recordings)
    parts = train & ~left_out, validation & ~left_out, left_out
    return Fold(*(part.nonzero().flatten() for part in parts))


@dataclass(frozen=True)
class Trained:
    """A trained network, and the scores of `DigitsRun`; `seconds` are those of training alone.

    Args:
        delays: Those of the second layer before training and after each epoch, (epochs + 1, out, in), or None.
    """

    network: DigitNetwork
    validation: float
    validation_loss: float
    test: float
    test_rounded: float | None
    seconds: float
    delays: Tensor | None = field(repr=False)


def train_network(
    method: Delays,
    spoken: Spoken,
    fold: Fold,
    *,
    widths: tuple[int, int, int, int],
    max_delay: int,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    on_recordings: Callable[[int], None] = lambda recordings: None,
) -> Trained:
    """Trains a network by AdamW, the learning rate rising to `lr` and falling again.

    Args:
        method: Its delays.
        widths: Neurons of the input and of each layer.
        max_delay: The largest delay. Unit: steps.
        batch_size: Recordings of an update; those that are left over in an epoch are left out.
        lr: Largest learning rate of weights.
        seed: Of initial values, dropout, and the order of recordings, which is the same for all methods.
        on_recordings: Called with their number after each update.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    inputs, digits = spoken.part(fold.train)
    batch_size = min(batch_size, len(digits))
    updates = len(digits) // batch_size
    with generators_kept():
        seed_generators(seed_of("digits", seed))
        network = DigitNetwork(method, widths, max_delay)
        optimizer = torch.optim.AdamW(param_groups(network, lr, _WEIGHT_DECAY, POSITION_LR_SCALE))
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * updates)
        sigma = None
        if method == "gaussian":
            sigma = SigmaSchedule(network, None, _LAST_SIGMA, max(1, round(_ANNEALED * epochs)))

        def loss(batch: Tensor) -> Tensor:
            return F.nll_loss(network(inputs[batch]), digits[batch])

        order = Generator().manual_seed(seed_of("digits", seed, "order") % 2**63)
        delays = [_delays(network, method)]
        seconds = 0.0
        for epoch in range(epochs):
            started = time.perf_counter()
            batches = torch.split(torch.randperm(len(digits), generator=order)[: updates * batch_size], batch_size)
            try:
                for _ in plain_updates(optimizer, schedule, batches, loss):
                    on_recordings(batch_size)
            except NotFiniteError as error:
                raise FloatingPointError(
                    f"the training loss of {method} with lr {lr:g} is {error.loss} in epoch {epoch + 1}; "
                    "leave out that learning rate"
                ) from None
            if sigma is not None:
                sigma.step()
            seconds += time.perf_counter() - started
            delays.append(_delays(network, method))
    network.eval()
    validation, validation_loss = _scores(network, *spoken.part(fold.validation))
    test, rounded = spoken.part(fold.test), None
    if method in LEARNED:
        with rounded_delays(network):
            rounded = _scores(network, *test)[0]
    return Trained(
        network,
        validation,
        validation_loss,
        _scores(network, *test)[0],
        rounded,
        seconds,
        torch.stack([moment for moment in delays if moment is not None]) if method in LEARNED else None,
    )


@torch.no_grad()
def _scores(network: nn.Module, spikes: Tensor, digits: Tensor) -> tuple[float, float]:
    """Accuracy, in percent, and cross-entropy."""
    logarithms = torch.cat([network(part) for part in torch.split(spikes, _TEST_BATCH)])
    correct = (logarithms.argmax(1) == digits).float().mean()
    return 100 * float(correct), float(F.nll_loss(logarithms, digits))


def _delays(network: DigitNetwork, method: Delays) -> Tensor | None:
    layer = network.delays[1]
    if method not in LEARNED or not isinstance(layer, SynapticDelays):
        return None
    return layer.delay.detach().squeeze(-1).clone()
