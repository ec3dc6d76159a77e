"""State dicts of SNN-delays: read by name, and a network that computes the same."""

import itertools
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from DCLS.construct.modules import Dcls1d as TheirDcls1d
from torch import nn

from torchdcls.delays import SynapticDelays, from_snn_delays, rounded_delays

WINDOW, RIGHT = 25, 12


class Theirs(nn.Module):
    """Their network without its neurons: padded DCLS layers with batch norms, in one Sequential."""

    def __init__(self, version):
        super().__init__()
        sizes = 8, 6, 6, 3
        layers = []
        for inside, outside in itertools.pairwise(sizes):
            layers.append(TheirDcls1d(inside, outside, 1, dilated_kernel_size=WINDOW, bias=False, version=version))
            layers.append(nn.BatchNorm1d(outside))
            nn.init.uniform_(layers[-2].P, -(WINDOW // 2), WINDOW // 2)
            if version != "v1":
                nn.init.constant_(layers[-2].SIG, 3.0)
        self.model = nn.Sequential(*layers)

    def forward(self, input):
        for layer in self.model:
            input = layer(F.pad(input, (WINDOW - 1, RIGHT)) if isinstance(layer, TheirDcls1d) else input)
        return input


class Ours(nn.Module):
    def __init__(self, interpolation):
        super().__init__()
        sizes = 8, 6, 6, 3
        layers = []
        for inside, outside in itertools.pairwise(sizes):
            layers.append(SynapticDelays(inside, outside, WINDOW - 1, tail=RIGHT, interpolation=interpolation))
            layers.append(nn.BatchNorm1d(outside))
        self.model = nn.Sequential(*layers)

    def forward(self, input):
        return self.model(input)


@pytest.mark.parametrize(("version", "interpolation"), [("gauss", "gaussian"), ("max", "triangle"), ("v1", "bilinear")])
def test_parity(version, interpolation, caplog):
    caplog.set_level(logging.CRITICAL)
    theirs, ours = Theirs(version).double(), Ours(interpolation).double()
    for buffer in theirs.buffers():
        buffer.add_(1)
    ours.load_state_dict(from_snn_delays(theirs.state_dict()))
    input = (torch.rand(2, 8, 40, dtype=torch.float64) < 0.2).double()
    torch.testing.assert_close(ours.eval()(input), theirs.eval()(input), rtol=1e-6, atol=1e-6)


def test_parity_of_their_evaluation(caplog):
    """With positions rounded and the spread gone, as they save and reload it."""
    caplog.set_level(logging.CRITICAL)
    theirs, ours = Theirs("max"), Ours("gaussian")
    ours.load_state_dict(from_snn_delays(theirs.state_dict()))
    with torch.no_grad():
        for layer in theirs.model[::2]:
            layer.P.round_()
            layer.SIG.zero_()
        input = (torch.rand(2, 8, 40) < 0.2).float()
        with rounded_delays(ours):
            torch.testing.assert_close(ours.eval()(input), theirs.eval()(input))


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        ({"0.weight": torch.ones(2, 2)}, ValueError, "state_dict: expected a layer of DCLS, with P, got none"),
        (
            {"0.P": torch.ones(1, 2, 2, 1)},
            ValueError,
            r"state_dict: expected weights .* got None with \(1, 2, 2, 1\) for 0.P",
        ),
        (
            {"0.weight": torch.ones(2, 2, 1), "0.P": torch.ones(2, 2, 2, 1)},
            ValueError,
            r"state_dict: expected weights \(out, in, n\) with P \(1, out, in, n\), as of .*, got \(2, 2, 1\) with",
        ),
        (
            {"weight": torch.ones(2, 2, 1), "P": torch.full((1, 2, 2, 1), math.nan)},
            ValueError,
            "state_dict: expected finite numbers, got NaN or infinity in P",
        ),
        (torch.ones(2), TypeError, "state_dict: expected a mapping from names, got torch.Tensor"),
        ({1: torch.ones(2)}, TypeError, "state_dict: expected a mapping from names, got 1"),
        ({"0.weight": torch.ones(2, 2, 1), "0.P": 3}, TypeError, "0.P: expected a torch.Tensor, got 3"),
        ({"0.weight": [1], "0.P": torch.ones(1, 2, 2, 1)}, TypeError, "weight: expected a torch.Tensor, got list"),
    ],
)
def test_other_state_dicts(state, error, said):
    with pytest.raises(error, match=f"^{said}"):
        from_snn_delays(state)
