"""The kernel that a layer keeps while it is evaluated."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from cases import normal

import torchdcls.nn.layer
from torchdcls import Dcls1d, Dcls2d, Dcls3d
from torchdcls.ops.caches import LastResult
from torchdcls.profiles import PROFILES

INPUT = normal(2, 2, 6, 7).detach()


def make_layer(interpolation="gaussian", seed=0, **changed):
    torch.manual_seed(seed)
    options = {"dilated_kernel_size": (4, 5), "padding": 2, "groups": 2, "dtype": torch.float64, **changed}
    return Dcls2d(2, 2, 3, interpolation=interpolation, **options).eval()


@pytest.fixture
def made(monkeypatch):
    """The kernels that layers have made."""
    kernels = []
    construct = torchdcls.nn.layer.construct_kernel

    def counted(*args, **kwargs):
        kernels.append(construct(*args, **kwargs))
        return kernels[-1]

    monkeypatch.setattr(torchdcls.nn.layer, "construct_kernel", counted)
    return kernels


def expected(layer, input=INPUT):
    """The output of a layer with the same numbers that has kept nothing."""
    fresh = make_layer(layer.interpolation, seed=9)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            getattr(fresh, name).copy_(parameter)
    return fresh(input).detach()


@pytest.mark.parametrize("interpolation", ["bilinear", "triangle", "gaussian"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_one_kernel_serves_all_calls(made, mode, interpolation):
    layer = make_layer(interpolation)
    with mode():
        outputs = [layer(INPUT), layer(INPUT), layer(2 * INPUT), layer(INPUT[0])]
    assert len(made) == 1
    wanted = expected(layer)
    for output, right in zip(outputs, [wanted, wanted, expected(layer, 2 * INPUT), wanted[0]], strict=True):
        torch.testing.assert_close(output, right)


@pytest.mark.parametrize(
    ("layer", "input"),
    [
        (lambda: Dcls1d(2, 3, 2, dilated_kernel_size=5), torch.ones(1, 2, 9)),
        (lambda: Dcls2d(2, 3, 2, dilated_kernel_size=5, padding=2, padding_mode="circular"), torch.ones(1, 2, 6, 6)),
        (lambda: Dcls3d(2, 3, 2, dilated_kernel_size=3, learned_dims=(1,)), torch.ones(1, 2, 4, 4, 4)),
    ],
    ids=["1-D", "circular", "dense axes"],
)
def test_every_layer_keeps_its_kernel(made, layer, input):
    layer = layer().eval()
    with torch.no_grad():
        assert torch.equal(layer(input), layer(input))
    assert len(made) == 1


def in_place(layer, name):
    getattr(layer, name).add_(0.25)


def one_number(layer, name):
    getattr(layer, name).view(-1)[-1] += 0.25


def by_data(layer, name):
    getattr(layer, name).data.add_(0.25)


def new_data(layer, name):
    parameter = getattr(layer, name)
    parameter.data = parameter.data + 0.25


def new_parameter(layer, name):
    setattr(layer, name, torch.nn.Parameter(getattr(layer, name) + 0.25))


def through_numpy(layer, name):
    """No version counter notices."""
    getattr(layer, name).detach().numpy()[...] += 0.25


def loaded(layer, name):
    state = layer.state_dict()
    layer.load_state_dict({**state, name: state[name] + 0.25})


def assigned(layer, name):
    state = layer.state_dict()
    layer.load_state_dict({**state, name: state[name] + 0.25}, assign=True)


@pytest.mark.parametrize("name", ["weight", "position", "sigma"])
@pytest.mark.parametrize(
    "change", [in_place, one_number, by_data, new_data, new_parameter, through_numpy, loaded, assigned]
)
def test_a_changed_element_is_noticed(made, change, name):
    layer = make_layer()
    with torch.no_grad():
        before = layer(INPUT)
        change(layer, name)
        after = layer(INPUT)
        assert len(made) == 2
        layer(INPUT)
    assert len(made) == 2
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected(layer))


def test_the_bias_is_not_kept(made):
    layer = make_layer()
    with torch.no_grad():
        before = layer(INPUT)
        layer.bias += 1
        torch.testing.assert_close(layer(INPUT), before + 1)
    assert len(made) == 1


def test_an_optimizer_step_is_noticed():
    layer = make_layer()
    with torch.no_grad():
        layer(INPUT)
    layer(INPUT).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1e-3).step()
    with torch.no_grad():
        torch.testing.assert_close(layer(INPUT), expected(layer))


def test_nothing_is_kept_in_training(made):
    layer = make_layer().train()
    with torch.no_grad():
        layer(INPUT)
        layer(INPUT)
    assert len(made) == 2
    assert layer._cache._kept is None


def test_training_forgets_the_kernel(made):
    layer = make_layer()
    with torch.no_grad():
        layer(INPUT)
        layer.train()
        assert layer._cache._kept is None
        assert layer._cache._kept is None
        layer.eval()(INPUT)
    assert len(made) == 2


def test_nothing_is_kept_with_gradients_on(made):
    """A kernel that was kept without gradients does not cut them off."""
    layer = make_layer()
    with torch.no_grad():
        layer(INPUT)
    for _ in range(2):
        layer(INPUT).sum().backward()
    assert len(made) == 3
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_a_kernel_kept_in_inference_mode_does_no_harm():
    layer = make_layer()
    with torch.inference_mode():
        layer(INPUT)
    with torch.no_grad():
        torch.testing.assert_close(layer(INPUT), expected(layer))
    layer(INPUT).sum().backward()
    assert layer.weight.grad is not None


def test_functional_transforms_do_not_keep_theirs(made):
    """A kernel batched by vmap would be wrong anywhere else."""
    layer = make_layer()
    leaves = {name: torch.stack([leaf.detach(), leaf.detach() + 0.25]) for name, leaf in layer.named_parameters()}
    with torch.no_grad():
        output = torch.vmap(lambda leaves: torch.func.functional_call(layer, leaves, (INPUT,)))(leaves)
        torch.testing.assert_close(output[0], layer(INPUT))
    torch.testing.assert_close(output[0], expected(layer))


def test_parameters_put_in_for_a_call_are_noticed():
    layer = make_layer()
    other = make_layer(seed=1)
    with torch.no_grad():
        layer(INPUT)
        output = torch.func.functional_call(layer, dict(other.named_parameters()), (INPUT,))
        torch.testing.assert_close(output, expected(other))
        torch.testing.assert_close(layer(INPUT), expected(layer))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"]
)
def test_copies_keep_nothing_and_work(copied):
    layer = make_layer()
    with torch.no_grad():
        before = layer(INPUT)
        other = copied(layer)
        assert other._cache is not layer._cache
        assert other._cache._kept is None
        assert other._cache._kept is None
        torch.testing.assert_close(other(INPUT), before)
        other.weight.mul_(2)
        torch.testing.assert_close(other(INPUT), expected(other))
        torch.testing.assert_close(layer(INPUT), before)


def test_pickles_do_not_grow():
    layer = make_layer()
    size = len(pickle.dumps(layer))
    with torch.no_grad():
        layer(INPUT)
    assert len(pickle.dumps(layer)) == size


def test_the_state_holds_no_kernel():
    layer = make_layer()
    with torch.no_grad():
        layer(INPUT)
    assert set(layer.state_dict()) == {"weight", "position", "sigma", "bias"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_another_dtype_is_noticed(made, dtype):
    """Even where the numbers stay the same, as they do here."""
    layer = make_layer()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((parameter * 16).round() / 16)
        layer(INPUT)
        layer.to(dtype)
        output = layer(INPUT.to(dtype))
        assert output.dtype == dtype
        assert len(made) == 2
        assert made[-1].dtype == dtype
        layer.double()
        assert torch.equal(layer(INPUT), expected(layer))


def test_elements_that_are_not_numbers_are_not_hidden():
    """NaN equals nothing: the kernel is made each time."""
    layer = make_layer()
    with torch.no_grad():
        layer(INPUT)
        layer.weight.fill_(torch.nan)
        assert layer(INPUT).isnan().all()
        layer.weight.fill_(1)
        torch.testing.assert_close(layer(INPUT), expected(layer))


def test_a_cache_by_itself():
    cache, one, two = LastResult(), torch.ones(2), torch.zeros(2)
    assert cache.get([one, None], (), lambda: one) is one
    assert cache.get([one.clone(), None], (), lambda: two) is one
    assert cache.get([one, one], (), lambda: two) is two
    assert cache.get([one], (), lambda: one) is one
    assert cache.get([torch.ones(2, 1)], (), lambda: two) is two
    cache.clear()
    assert cache.get([torch.ones(2, 1)], (), lambda: one) is one
    assert cache.get([torch.ones(2, 1)], (5,), lambda: two) is two


def test_a_changed_setting_makes_a_new_kernel(made):
    layer, input = Dcls2d(2, 2, 3, dilated_kernel_size=5, groups=2).eval(), torch.randn(1, 2, 9, 9)
    with torch.no_grad():
        layer(input)
        layer.interpolation = PROFILES["triangle"]
        torch.testing.assert_close(layer(input), F.conv2d(input, layer.kernel(), layer.bias, groups=2))
