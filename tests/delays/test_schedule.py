"""How wide elements spread, epoch by epoch."""

import math

import pytest
import torch
from torch import nn

from torchdcls import Dcls1d, Dcls2d, DclsTranspose3d, param_groups
from torchdcls.delays import AxonalDelays, SigmaSchedule, SynapticDelays


def sigmas(layer, schedule, epochs):
    found = []
    for _ in range(epochs):
        assert (layer.sigma == layer.sigma.flatten()[0]).all()
        found.append(layer.sigma.flatten()[0].item())
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("exponential", [16.0, 4.0, 1.0, 0.25, 0.0625, 0.0625]), ("linear", [16.0, 12.015625, 8.03125, 4.046875, 0.0625])],
)
def test_kinds(kind, expected):
    layer = SynapticDelays(3, 4, 24)
    schedule = SigmaSchedule(layer, 16, 0.0625, 4, kind)
    assert sigmas(layer, schedule, len(expected)) == pytest.approx(expected)


def test_snn_delays_multiplies_by_the_same_factor_in_a_quarter_of_the_epochs():
    """Their loop: start at s // 2, times (0.23 / start) ** (1 / final) while the epoch is before the final one."""
    layer = SynapticDelays(3, 4, 24)
    theirs, expected = 12.0, []
    for epoch in range(60):
        expected.append(theirs)
        if epoch < 10:
            theirs *= (0.23 / 12) ** (1 / 10)
    assert sigmas(layer, SigmaSchedule.snn_delays(layer, 40), 60) == pytest.approx(expected)


def test_delrec_takes_all_epochs():
    layer = AxonalDelays(3, 4, 24, interpolation="triangle")
    expected = [10 * 0.95 ** (100 * epoch / 30) for epoch in range(31)]
    assert sigmas(layer, SigmaSchedule.delrec(layer, 30), 31) == pytest.approx(expected, rel=1e-5)


def test_layers_of_any_dimension_and_each_axis_its_own_window():
    model = nn.ModuleDict(
        {
            "delays": SynapticDelays(3, 4, 24),
            "images": Dcls2d(4, 4, 3, dilated_kernel_size=(9, 5), groups=4),
            "volumes": DclsTranspose3d(4, 4, 3, dilated_kernel_size=(1, 3, 7), groups=4, learned_dims=(0, 2)),
            "bilinear": Dcls1d(4, 4, 3, dilated_kernel_size=9, interpolation="bilinear"),
        }
    )
    schedule = SigmaSchedule(model, None, 0.23, 3)
    starts = {name: layer.sigma.flatten(1)[:, 0].tolist() for name, layer in model.items() if name != "bilinear"}
    assert starts == {"delays": [12.0], "images": [4.0, 2.0], "volumes": [pytest.approx(0.23), 3.0]}
    for _ in range(3):
        schedule.step()
    assert all((layer.sigma == 0.23).all() for layer in model.values() if layer.sigma is not None)


def test_of_bilinear_layers_alone_it_counts_epochs_and_changes_nothing():
    layer = SynapticDelays(3, 4, 24, interpolation="bilinear")
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    schedule = SigmaSchedule(layer, 12, 0.23, 10)
    schedule.step()
    assert schedule.epoch == 1 and layer.sigma is None and layer.position.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_sigmas_are_not_learned():
    layer = SynapticDelays(3, 4, 24)
    SigmaSchedule(layer, 12, 0.23, 10)
    layer(torch.randn(1, 3, 30)).sum().backward()
    assert layer.sigma.grad is None and layer.position.grad is not None
    trained = [parameter for group in param_groups(layer, 0.1, 0.1) for parameter in group["params"]]
    assert all(parameter is not layer.sigma for parameter in trained)


def test_resumes_exactly():
    layer, other = SynapticDelays(3, 4, 24), SynapticDelays(3, 4, 24)
    schedule = SigmaSchedule(layer, 12, 0.23, 10, "linear")
    for _ in range(4):
        schedule.step()
    resumed = SigmaSchedule(other, 1, 0.5, 3)
    resumed.load_state_dict(torch.load(_saved(schedule.state_dict()), weights_only=True))
    for _ in range(8):
        assert torch.equal(layer.sigma, other.sigma) and schedule.state_dict() == resumed.state_dict()
        schedule.step()
        resumed.step()


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"start": -1}, ValueError, "start: expected a finite number of at least 0, got -1"),
        ({"end": math.nan}, ValueError, "end: expected a finite number of at least 0, got nan"),
        ({"start": 0}, ValueError, "start: expected more than 0 for kind='exponential', got 0.0"),
        ({"end": 0}, ValueError, "end: expected more than 0 for kind='exponential', got 0.0"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1, got 0"),
        ({"kind": "cosine"}, ValueError, "kind: expected one of 'exponential', 'linear', got 'cosine'"),
        ({"end": "narrow"}, TypeError, "end: expected a number, got 'narrow'"),
        ({"model": nn.Linear(2, 2)}, ValueError, "model: expected a model with DCLS layers"),
    ],
)
def test_wrong_arguments(settings, error, said):
    with pytest.raises(error, match=f"^{said}"):
        SigmaSchedule(**{"model": SynapticDelays(2, 2, 3), "start": 2, "end": 0.2, "epochs": 3} | settings)


def test_a_computed_sigma_is_refused_and_nothing_changed():
    model = nn.ModuleList([SynapticDelays(2, 2, 3), SynapticDelays(2, 2, 3)])
    nn.utils.parametrize.register_parametrization(model[1], "sigma", nn.Softplus())
    with pytest.raises(ValueError, match=r"^model: expected sigmas that are parameters"):
        SigmaSchedule(model, 2, 0.2, 3)
    assert (model[0].sigma == 0.23).all() and model[0].sigma.requires_grad


def test_a_wrong_state_is_refused():
    schedule = SigmaSchedule(SynapticDelays(2, 2, 3), 2, 0.2, 3)
    with pytest.raises(ValueError, match=r"^state_dict: expected start, end, epochs, kind, epoch, got none of epoch$"):
        schedule.load_state_dict({"start": 2, "end": 0.2, "epochs": 3, "kind": "linear"})
    with pytest.raises(TypeError, match=r"^state_dict: expected the state of a schedule, got 3$"):
        schedule.load_state_dict(3)
    with pytest.raises(ValueError, match=r"^epoch: expected at least 0, got -1"):
        schedule.load_state_dict(schedule.state_dict() | {"epoch": -1})
