"""Whole delays, for an evaluation or for good."""

import copy
import io
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from cases import needs_kernels
from DCLS.construct.modules import Dcls1d as TheirDcls1d
from torch import nn
from torch.optim.swa_utils import AveragedModel

from torchdcls.delays import AxonalDelays, DendriticDelays, SynapticDelays, round_delays_, rounded_delays

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)


def shifted(layer, input, after=0):
    """Input moved by whole steps in plain loops, weighted and summed."""
    delay = layer.delay.detach().reshape(*layer.position_channels, layer.kernel_count).expand_as(layer.weight)
    padded = F.pad(input, (0, after))
    output = torch.zeros(input.shape[0], layer.out_features, padded.shape[-1], dtype=input.dtype)
    for (outside, inside, element), weight in zip(
        (
            (o, i, k)
            for o in range(layer.out_features)
            for i in range(layer.in_features)
            for k in range(delay.shape[-1])
        ),
        layer.weight.detach().flatten(),
        strict=True,
    ):
        steps = int(delay[outside, inside, element])
        output[:, outside, steps:] += weight * padded[:, inside, : padded.shape[-1] - steps]
    return output


@kinds
@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("kernel_count", [1, 3])
def test_equals_a_shift_by_whole_steps(kind, interpolation, kernel_count):
    layer = kind(3, 4, 6, interpolation=interpolation, kernel_count=kernel_count, tail=2)
    with torch.no_grad():
        layer.position.view(-1)[:2] = torch.tensor([50.0, -50.0])
    input = torch.randn(2, 3, 9)
    for mode in (layer.train, layer.eval):
        mode()
        with torch.no_grad():
            spread = layer(input)
            with rounded_delays(layer):
                assert torch.equal(layer.delay, layer.delay.round())
                assert layer.delay.min() == 0 and layer.delay.max() == 6
                torch.testing.assert_close(layer(input), shifted(layer, input, 2))
                expected = F.conv1d(F.pad(input, (6, 2)), layer.kernel())
                torch.testing.assert_close(layer(input), expected)
            assert torch.equal(layer(input), spread)


@kinds
def test_parity_with_dcls_rounded(kind, caplog):
    """As SNN-delays evaluates: positions rounded, sigma 0, the triangle."""
    caplog.set_level(logging.CRITICAL)
    layer = kind(3, 4, 6)
    theirs = TheirDcls1d(3, 4, 1, dilated_kernel_size=7, bias=False, version="max")
    with torch.no_grad():
        theirs.weight.copy_(layer.weight)
        theirs.P.copy_(layer.position.expand_as(theirs.P).round().clamp(-3, 3))
        theirs.SIG.zero_()
        input = torch.randn(2, 3, 9)
        with rounded_delays(layer):
            torch.testing.assert_close(layer(input), theirs(F.pad(input, (6, 0))))


@kinds
def test_restores_after_an_exception_and_when_nested(kind):
    model = nn.Sequential(kind(3, 4, 6), kind(4, 2, 5))
    input = torch.randn(2, 3, 9)
    before, output = copy.deepcopy(model.state_dict()), model(input)
    with pytest.raises(KeyError), rounded_delays(model):
        with rounded_delays(model[0]):
            rounded = model(input)
        assert torch.equal(model(input), rounded) and not torch.allclose(rounded, output)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        raise KeyError
    assert torch.equal(model(input), output)


@kinds
def test_copies_made_inside_and_averages(kind):
    model = nn.Sequential(kind(3, 4, 6))
    input = torch.randn(2, 3, 9)
    output = model(input)
    average = AveragedModel(model)
    with rounded_delays(average):
        assert not torch.allclose(average(input), output)
        assert torch.equal(model(input), output)
        average.update_parameters(model)
        inside = copy.deepcopy(average)
        file = io.BytesIO()
        torch.save(average, file)
    file.seek(0)
    for one in (average, inside, torch.load(file, weights_only=False)):
        assert torch.equal(one(input), output)


@kinds
def test_weights_learn_inside_and_delays_do_not(kind):
    layer = kind(3, 4, 6)
    with rounded_delays(layer):
        layer(torch.randn(2, 3, 9)).square().sum().backward()
    assert layer.weight.grad.count_nonzero() > 0 and layer.position.grad is None


@kinds
def test_for_good(kind):
    model = nn.Sequential(kind(3, 4, 6))
    with torch.no_grad():
        model[0].position.view(-1)[0] = 50
    input = torch.randn(2, 3, 9)
    with rounded_delays(model):
        expected = model(input)
    round_delays_(model)
    assert torch.equal(model(input), expected) and torch.equal(copy.deepcopy(model)(input), expected)
    assert torch.equal(model[0].position, model[0].position.round()) and model[0].position.abs().max() <= 3
    other = nn.Sequential(kind(3, 4, 6))
    with pytest.raises(RuntimeError, match="delays rounded by round_delays_"):
        other.load_state_dict(model.state_dict())
    round_delays_(other)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(input), expected)


@pytest.mark.parametrize("function", [round_delays_, lambda model: rounded_delays(model).__enter__()])
def test_what_cannot_be_rounded(function):
    with pytest.raises(ValueError, match=r"^model: expected a model with layers of delays, got Linear without any"):
        function(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module"):
        function("model")
    model = nn.Sequential(AxonalDelays(3, 3, 6), AxonalDelays(3, 4, 6))
    with torch.no_grad():
        model[1].position.view(-1)[0] = math.nan
    with pytest.raises(ValueError, match=r"^model: expected finite delays to round, got others in 1"):
        function(model)
    assert not model[0].rounding.is_on


@kinds
def test_nan_is_not_loaded_where_it_would_not_show(kind):
    model = nn.Sequential(kind(3, 4, 6))
    state = copy.deepcopy(model.state_dict())
    state["0.position"].view(-1)[0] = math.nan
    with (
        rounded_delays(model),
        pytest.raises(RuntimeError, match=r"0\.position: expected finite delays for a layer that is rounded, got NaN"),
    ):
        model.load_state_dict(state)
    assert model[0].position.isfinite().all()
    model.load_state_dict(state)
    assert model(torch.randn(2, 3, 9)).isnan().any()


@kinds
@pytest.mark.compiles
def test_compiled(kind):
    layer = kind(3, 4, 6)
    input = torch.randn(2, 3, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(input), layer(input))
        with rounded_delays(layer):
            torch.testing.assert_close(compiled(input), shifted(layer, input))
        torch.testing.assert_close(compiled(input), layer(input))


@needs_kernels
@pytest.mark.parametrize("batch", [(), (1,), (3,), (37,), (0,)], ids=str)
@pytest.mark.parametrize("kernel_count", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_evaluation_delays_rows_instead_of_a_convolution(batch, kernel_count, dtype, monkeypatch):
    """Of synaptic delays; more outputs than one task has, and late spikes."""
    layer = SynapticDelays(5, 67, 6, kernel_count=kernel_count, tail=4, bias=True, dtype=dtype).to(dtype)
    round_delays_(layer)
    input = torch.randn(*batch, 5, 23, dtype=dtype)
    kernel = layer.kernel().detach()
    truth = F.conv1d(F.pad(input.double(), (6, 4)), kernel.double(), layer.bias.double()).detach()
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr("torchdcls.delays.layer.large_kernel_conv", lambda *_, **__: pytest.fail("a convolution"))
        found = layer(input)
        layer.delay = (layer.delay + 1).clamp(max=6)  # which is noticed
        assert not batch or 0 in batch or not torch.allclose(layer(input), found)
        layer.time_first = True
        assert layer(input.movedim(-1, 0)).shape == (27, *batch, 67)
    assert found.dtype == dtype and found.shape == truth.shape
    if found.numel():
        # Of so many terms, each sum is off by at most so many rounding units of what it would be without signs.
        terms = 5 * kernel_count + 1
        largest = F.conv1d(F.pad(input.abs(), (6, 4)), kernel.abs(), layer.bias.abs()).max()
        assert (found - truth).abs().max() <= terms * torch.finfo(dtype).eps / 2 * largest


@needs_kernels
def test_a_convolution_where_gradients_or_a_method_are_asked_for(monkeypatch):
    monkeypatch.setattr("torchdcls.delays.kinds.delayed_sums", lambda *_: pytest.fail("no convolution"))
    layer = SynapticDelays(3, 4, 6)
    round_delays_(layer)
    layer(torch.randn(2, 3, 9)).sum().backward()
    assert layer.weight.grad.count_nonzero()
    with torch.no_grad():
        layer.method = "direct"
        layer(torch.randn(2, 3, 9))
        layer.method = "auto"
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.randn(2, 3, 9)).dtype == torch.bfloat16
        assert torch.func.vmap(layer)(torch.randn(2, 3, 9)).shape == (2, 4, 9)
