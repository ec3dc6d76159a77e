"""Short convolutions as few products, equal to the sum over pairs of steps."""

import pytest
import torch

from torchdcls.delays.blocks import Reach, _products, block_length


def by_definition(neurons, filters, outputs):
    """Each lag by itself; of lag 1 are the last taps."""
    steps, lags = len(neurons), filters.shape[-1]
    sums = neurons.new_zeros(outputs, *neurons.shape[1:-1], len(filters))
    for later in range(outputs):
        for step in range(steps):
            lag = steps + later - step
            if lag <= lags:
                tap = filters[..., lags - lag]
                sums[later] += neurons[step] * tap[:, 0] if tap.shape[1] == 1 else neurons[step] @ tap.T
    return sums


@pytest.mark.parametrize("kind", [(3, 4), (3, 1)])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(
    ("inputs", "outputs", "lags"),
    [(1, 1, 1), (1, 1, 5), (2, 2, 4), (4, 4, 7), (8, 8, 31), (1, 31, 31), (2, 3, 3), (8, 12, 12), (16, 31, 31)],
)
def test_reach(kind, batch, inputs, outputs, lags):
    filters = torch.randn(*kind, lags, dtype=torch.float64)
    reach = Reach(filters, inputs, outputs)
    neurons = torch.randn(inputs, *batch, 4 if kind[1] == 4 else 3, dtype=torch.float64)
    torch.testing.assert_close(reach(neurons, outputs), by_definition(neurons, filters, outputs))
    few, first = neurons[: (inputs + 1) // 2], (outputs + 1) // 2
    torch.testing.assert_close(reach(few, first), by_definition(few, filters, first))


def test_products_are_few():
    """Of 31 lags, a step has 31 pairs; blocks of 16 need as many products for 4 steps."""
    block = block_length(31, 100)
    assert block == 16
    halves = sum(len(_products(half, half, 31)[0]) * block // (2 * half) for half in (1, 2, 4, 8))
    whole = len(_products(block, 31, 31)[0])
    assert 31 * block / (halves + whole) > 3.5
    assert [block_length(*sizes) for sizes in [(1, 9), (2, 9), (3, 9), (31, 1), (31, 5), (61, 99)]] == [
        *(1, 1, 2, 1, 4, 32)
    ]
