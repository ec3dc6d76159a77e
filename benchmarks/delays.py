"""Layers of learned delays against what they replace: DCLS 0.1.1, a dense kernel, a whole window a step; float32.

Spikes are drawn at random, 5 % of them active. The network is that of SNN-delays for spoken digits (arXiv:2306.17670)
with its neurons written out, on spikes of the rate of SHD's.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdcls.delays import AxonalDelays, RecurrentDelays, SynapticDelays, rounded_delays

from .memory import saved_bytes
from .timing import check_parity, compare_in_turns, compare_problems, comparison_rows, turns_note

SUMMARY = "layers of learned delays against DCLS 0.1.1, dense kernels and whole windows"
PACKAGES: tuple[str, ...] = ("torch", "DCLS", "torchdcls")

NEURONS, MAX_DELAY, STEPS, BATCH, RATE = 512, 30, 100, 32, 0.05
# The network of SNN-delays on SHD, and the spikes of a binned recording that SHD has on average, a neuron and step.
WIDTHS, NETWORK_DELAY, NETWORK_BATCH, SAMPLES, NETWORK_RATE = (140, 256, 256, 20), 24, 256, 8156, 0.03
EPOCH = -(-SAMPLES // NETWORK_BATCH)  # training steps
# Of the neurons' voltage, a step of 10 ms; and the slope of the surrogate.
DECAY, SLOPE, DROPOUT = 1 - 10 / 10.05, 5.0, 0.4


@dataclass(frozen=True)
class DelayProblem:
    """What is done, by which layer, and what it is compared with."""

    layer: str
    doing: str
    against: str

    def __str__(self) -> str:
        return f"{self.layer}, {self.doing}, against {self.against}"


PROBLEMS = {
    "axonal": DelayProblem("axonal", "output and gradients", "F.conv1d"),
    "synaptic": DelayProblem("synaptic", "output and gradients", "DCLS"),
    "rounded": DelayProblem("synaptic", "rounded", "DCLS"),
    "memory": DelayProblem("synaptic", "saved for backward", "DCLS"),
    "step": DelayProblem("synaptic", "a step of a stream", "a window"),
    "recurrent": DelayProblem("synaptic, fed back", "output and gradients", "a loop"),
    "network": DelayProblem("SHD network", "an epoch", "DCLS"),
}

Run = Callable[[], object]
Sides = tuple[Run, Run]


def verify(names: Sequence[str]) -> None:
    """Checks that both sides compute the same: the output, and the gradients that both have.

    Raises:
        ParityError: They do not; the message names the problem.
    """
    for name in names:
        if name == "memory":  # of the layers that "synaptic" compares
            continue
        if name == "network":
            ours, theirs = networks()
            # Of each layer: where a voltage is near the threshold, rounding decides whether there is a spike.
            for width, own, other in zip(WIDTHS[:-1], ours.delays, theirs.delays, strict=True):
                spikes = _spikes(4, width)
                one, wanted = (_evaluated(layer, spikes) for layer in (own, other))
                check_parity(f"{name}: the output of a layer of both", one, wanted, 1e-4)
            continue
        made, wanted_results = (_flat(side()) for side in _sides(name))
        # An axonal layer and a dense kernel have the output and the input in common.
        for number, (one, wanted) in enumerate(zip(made, wanted_results, strict=False)):
            if one.shape == wanted.shape and not (name == "axonal" and number > 1):
                check_parity(f"{name}: result {number} of both sides", one, wanted, 1e-4)


def measure(names: Sequence[str], arguments: argparse.Namespace, after_turn: Callable[[], None]) -> dict[str, Any]:
    def compare(name: str) -> dict[str, Any]:
        if name == "memory":
            for _ in range(arguments.turns):
                after_turn()
            return _saved()
        found = compare_in_turns(
            *_sides(name), turns=arguments.turns, seconds=0.05, least_calls=1, after_turn=after_turn
        ).to_json()
        if name == "network":
            found |= {key: found[key] * EPOCH for key in ("candidate_ms", "baseline_ms")}
        return found

    return compare_problems(names, PROBLEMS, compare)


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    return comparison_rows(["learned delays", "torchdcls", "other"], result["problems"])


def note(result: Mapping[str, Any]) -> str:
    return (
        f"{NEURONS} to {NEURONS} neurons, windows of {MAX_DELAY + 1} steps, {STEPS} steps with spikes in {RATE:.0%}, "
        f"batch {BATCH} (of a stream 1). The network is {'-'.join(map(str, WIDTHS))}, with windows of "
        f"{NETWORK_DELAY + 1} steps, batch {NETWORK_BATCH} and spikes in {NETWORK_RATE:.0%}; an epoch is {EPOCH} times "
        "a training step. A loop adds what spikes come to later to a buffer, step by step. T"
        f"{turns_note(result)[1:]}"
    )


def _flat(made: object) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)  # type: ignore[call-overload]  # a tuple of tensors


def _sides(name: str) -> Sides:
    torch.manual_seed(0)
    spikes = _spikes(1 if name == "step" else BATCH, NEURONS)
    match name:
        case "axonal":
            layer = AxonalDelays(NEURONS, NEURONS, MAX_DELAY)
            kernel = layer.kernel().detach().requires_grad_()
            return _training(layer, spikes, [*layer.parameters()]), _training(
                lambda input: F.conv1d(F.pad(input, (MAX_DELAY, 0)), kernel), spikes, [kernel]
            )
        case "synaptic":
            ours, theirs = _layers()
            own = [ours.weight, ours.position, *([] if ours.sigma is None else [ours.sigma])]
            others = [theirs.weight, theirs.P, theirs.SIG]
            return _training(ours, spikes, own), _training(_causal(theirs), spikes, others)
        case "rounded":
            ours, theirs = _layers()
            with torch.no_grad():
                # As SNN-delays rounds: their positions, and a spread of one step alone.
                theirs.P.copy_(theirs.P.round())
                theirs.SIG.zero_()
            theirs.DCK.version = "max"
            return partial(_rounded, ours.eval(), spikes), partial(_evaluated, _causal(theirs.eval()), spikes)
        case "step":
            return _step_sides(spikes)
        case "recurrent":
            delays = SynapticDelays(NEURONS, NEURONS, MAX_DELAY)
            fed_back, learned = RecurrentDelays(delays, _leaky), [*delays.parameters()]
            return _training(lambda input: fed_back(input)[0], spikes, learned), _training(
                partial(_loop, delays), spikes, learned
            )
        case _:
            own_network, their_network = networks()
            return _network_step(own_network), _network_step(their_network)


def _spikes(batch: int, neurons: int, rate: float = RATE) -> Tensor:
    return (torch.rand(batch, neurons, STEPS) < rate).float()


def _theirs(inside: int, outside: int, steps: int) -> nn.Module:
    from DCLS.construct.modules import Dcls1d

    logging.getLogger().setLevel(logging.ERROR)  # it warns at each layer
    layer: nn.Module = Dcls1d(inside, outside, 1, dilated_kernel_size=steps, bias=False, version="gauss")
    return layer


def _copy(ours: SynapticDelays, theirs: Any) -> None:
    with torch.no_grad():
        for own, other in ((ours.weight, theirs.weight), (ours.position, theirs.P), (ours.sigma, theirs.SIG)):
            assert own is not None
            other.copy_(own)


def _layers() -> tuple[SynapticDelays, Any]:
    ours = SynapticDelays(NEURONS, NEURONS, MAX_DELAY)
    theirs = _theirs(NEURONS, NEURONS, MAX_DELAY + 1)
    _copy(ours, theirs)
    return ours, theirs


def _causal(layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda input: layer(F.pad(input, (MAX_DELAY, 0)))


def _training(forward: Callable[[Tensor], Tensor], spikes: Tensor, parameters: Sequence[Tensor]) -> Run:
    # Output and gradients, that of the input too.
    leaf = spikes.clone().requires_grad_()
    probe = torch.randn(BATCH, NEURONS, STEPS, generator=torch.Generator().manual_seed(1))

    def run() -> object:
        output = forward(leaf)
        return output, *torch.autograd.grad(output, (leaf, *parameters), probe)

    return run


def _evaluated(forward: Callable[[Tensor], Tensor], spikes: Tensor) -> Tensor:
    with torch.no_grad():
        return forward(spikes)


def _rounded(layer: SynapticDelays, spikes: Tensor) -> Tensor:
    with rounded_delays(layer):
        return _evaluated(layer, spikes)


def _step_sides(spikes: Tensor) -> Sides:
    # The last step of a stream, after all before it: its output, or that of a window which ends there.
    layer = SynapticDelays(NEURONS, NEURONS, MAX_DELAY).eval()
    now, window = spikes[..., -1], spikes[..., -MAX_DELAY - 1 :]
    with torch.inference_mode():
        state = None
        for before in spikes[..., :-1].unbind(-1):
            _, state = layer.step(before, state)

    def step() -> object:
        with torch.inference_mode():
            return layer.step(now, state)[0]

    def again() -> object:
        with torch.inference_mode():
            return layer(window)[..., -1]

    return step, again


def _leaky(current: Tensor, voltage: Tensor | None) -> tuple[Tensor, Tensor]:
    # Smooth, so that rounding decides nothing.
    voltage = current if voltage is None else torch.add(current, voltage, alpha=DECAY)
    return voltage.tanh(), voltage


def _loop(delays: SynapticDelays, input: Tensor) -> Tensor:
    """Each step adds to a buffer of all that is due later, as DelRec does (its kernel is made once here)."""
    taps = delays.kernel().flip(-1).permute(1, 2, 0)  # (in, lags, out)
    due = input.new_zeros(len(input), *taps.shape[1:])
    outputs, voltage = [], None
    for current in input.unbind(-1):
        made, voltage = _leaky(current + due[:, 0], voltage)
        outputs.append(made)
        due = (made @ taps.flatten(1)).view_as(due) + F.pad(due[:, 1:], (0, 0, 0, 1))
    return torch.stack(outputs, -1)


def _saved() -> dict[str, Any]:
    ours, theirs = _layers()
    spikes = _spikes(BATCH, NEURONS).requires_grad_()
    candidate = saved_bytes(lambda: ours(spikes), [spikes, *ours.parameters()])
    baseline = saved_bytes(lambda: _causal(theirs)(spikes), [spikes, *theirs.parameters()])
    return {"candidate_bytes": candidate, "baseline_bytes": baseline, "ratio": candidate / baseline}


class _Spikes(torch.autograd.Function):
    """Spikes of leaky neurons over all steps, (steps, batch, neurons), with an arctan surrogate; a spike resets."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor) -> Tensor:
        voltages, spikes = torch.empty_like(currents), torch.empty_like(currents)
        voltage = torch.zeros_like(currents[0])
        for now, current in enumerate(currents):
            torch.add(current, voltage, alpha=DECAY, out=voltages[now])
            torch.ge(voltages[now], 1, out=spikes[now])
            voltage = torch.where(spikes[now].bool(), 0.0, voltages[now])
        ctx.save_for_backward(voltages, spikes)
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        voltages, spikes = ctx.saved_tensors
        # Of the spike in the voltage before it; the reset is detached, as theirs is.
        made: Tensor = gradients[0] * (SLOPE / 2) / (1 + (torch.pi / 2 * SLOPE * (voltages - 1)).square())
        kept = (1 - spikes) * DECAY
        for now in range(len(made) - 2, -1, -1):
            made[now].addcmul_(made[now + 1], kept[now])
        return made


class Network(nn.Module):
    """SNN-delays' network: delays, batch norm, neurons and dropout, twice; delays and voltages that are read."""

    def __init__(self, delays: Sequence[nn.Module]) -> None:
        super().__init__()
        self.delays = nn.ModuleList(delays)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in WIDTHS[1:-1])

    def forward(self, spikes: Tensor) -> Tensor:
        """Class scores (batch, classes) of spikes (batch, neurons, steps)."""
        *hidden, read = self.delays
        for delay, norm in zip(hidden, self.norms, strict=True):
            fired = _Spikes.apply(norm(delay(spikes)).movedim(-1, 0).contiguous())  # type: ignore[no-untyped-call]
            spikes = F.dropout(fired, DROPOUT, self.training).movedim(0, -1)
        scores: Tensor = F.softmax(read(spikes), 1).sum(-1)
        return scores


class _Padded(nn.Module):
    """A layer of DCLS between silence, as SNN-delays pads."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, spikes: Tensor) -> Tensor:
        """As the layer, of a longer sequence."""
        padded: Tensor = self.layer(F.pad(spikes, (NETWORK_DELAY, NETWORK_DELAY // 2)))
        return padded


def networks() -> tuple[Network, Network]:
    """Ours and one of DCLS, with the same parameters; sigmas do not learn, as in SNN-delays."""
    torch.manual_seed(0)
    ours, theirs = [], []
    for inside, outside in pairwise(WIDTHS):
        own = SynapticDelays(inside, outside, NETWORK_DELAY, sigma_init=NETWORK_DELAY // 2, tail=NETWORK_DELAY // 2)
        other = _theirs(inside, outside, NETWORK_DELAY + 1)
        _copy(own, other)
        assert own.sigma is not None
        own.sigma.requires_grad_(False)
        other.SIG.requires_grad_(False)
        ours.append(own)
        theirs.append(_Padded(other))
    return Network(ours), Network(theirs)


def _network_step(network: Network) -> Run:
    torch.manual_seed(0)
    spikes, labels = _spikes(NETWORK_BATCH, WIDTHS[0], NETWORK_RATE), torch.randint(0, WIDTHS[-1], (NETWORK_BATCH,))
    places = [each for name, each in network.named_parameters() if name.endswith(("position", "P"))]
    others = [each for name, each in network.named_parameters() if not name.endswith(("position", "P", "sigma", "SIG"))]
    optimizer = torch.optim.Adam([{"params": places, "lr": 0.1}, {"params": others, "lr": 1e-3}])

    def step() -> object:
        loss = F.cross_entropy(network(spikes), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return optimizer.step()

    return step
