"""Kernels and gradients by the compiled library, for each instruction set that runs here."""

import gc
import threading
from contextlib import nullcontext

import pytest
import torch
from cases import (
    SPECIAL_VALUES,
    SPECIAL_WEIGHTS,
    answers,
    assert_as_exact_as,
    assert_equal_to_rounding,
    make_elements,
    needs_kernels,
    normal,
    special_fault,
    with_special,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from torchdcls import Dcls2d, Profile, construct_kernel
from torchdcls.ops import fused, kernel
from torchdcls.ops.native.library import library
from torchdcls.profiles import PROFILES

pytestmark = needs_kernels
every_spread = pytest.mark.parametrize("spread", PROFILES)
# Around the lanes of any vector, and more cells and rows than are summed at once.
SIZES = [
    *[(1,), (2,), (7,), (8,), (9,), (16,), (17,), (33,), (150,)],
    *[(1, 1), (3, 3), (23, 5), (5, 23), (16, 17), (1, 9), (9, 1), (40, 2)],
    *[(3, 4, 5), (2, 17, 3), (17, 2, 2), (5, 1, 4), (1, 1, 9), (9, 2, 1)],
]


@pytest.fixture(params=("avx512", "avx2", "sse2", "neon"))
def variant(request):
    kernels, names = library(), []
    while (name := kernels.td_variant(len(names))) is not None:
        names.append(name.decode())
    if request.param not in names or not kernels.td_variant_runs(names.index(request.param)):
        pytest.skip(f"this processor does not run {request.param}")
    kernels.td_choose(names.index(request.param))
    yield request.param
    kernels.td_choose(min(index for index in range(len(names)) if kernels.td_variant_runs(index)))


@pytest.fixture
def by_torch(monkeypatch):
    """Computes answers by the operators of torch."""

    def compute(elements):
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "can_fuse", lambda *elements: False)
            return answers(elements.kernel, elements.leaves())

    return compute


@pytest.fixture
def calls(monkeypatch):
    """The names of the library's functions that are called."""
    names, call = [], fused._call
    monkeypatch.setattr(fused, "_call", lambda name, *rest: names.append(name) or call(name, *rest))
    return names


def own(elements):
    return answers(elements.kernel, elements.leaves())


def oracle(elements):
    return answers(elements.oracle, elements.leaves())


# Numbers


@every_spread
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_and_every_gradient_are_the_oracles(variant, spread, size, calls):
    elements = make_elements(spread, size, channels=(3, 1))
    assert_equal_to_rounding(own(elements), oracle(elements))
    assert calls == ["td_construct", "td_construct_gradients"]


@every_spread
@pytest.mark.parametrize("size", [(23,), (17, 23), (9, 7, 6)], ids=str)
def test_float32_is_as_exact_as_torchs_operators(variant, spread, size, by_torch):
    """Of one draw, which computation comes out worse is chance."""
    draws = [make_elements(spread, size, channels=(4, 2), count=9, dtype=torch.float32, seed=seed) for seed in range(6)]
    exact = [by_torch(elements.to(torch.float64)) for elements in draws]
    together = [
        {name: torch.stack([answer[name] for answer in several]) for name in several[0]}
        for several in (list(map(own, draws)), list(map(by_torch, draws)), exact)
    ]
    assert_as_exact_as(*together)


@every_spread
@pytest.mark.parametrize(("channels", "count"), [((70, 1), 1), ((1, 1), 70), ((2, 3), 129), ((9, 5), 17), ((0, 1), 3)])
def test_any_number_of_kernels_and_elements(variant, spread, channels, count, by_torch):
    """Several kernels' elements at once, or a part of one's, up to 64."""
    elements = make_elements(spread, (4, 5), channels=channels, count=count)
    assert_equal_to_rounding(own(elements), by_torch(elements))


@every_spread
def test_long_axes(variant, spread, by_torch):
    """Factors of fewer elements at once, and a kernel of which most cells are met by no element."""
    elements = make_elements(spread, (5000,), channels=(3, 1), count=20)
    assert_equal_to_rounding(own(elements), by_torch(elements))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_exponential_is_exact_to_rounding(variant, dtype):
    """Of a scale of 1 and positions in sixteenths the squares are exact. A factor, a sum, a quotient: some units."""
    position = torch.arange(-64, 65, dtype=dtype).view(1, 1, -1, 1) / 16
    profile = Profile(PROFILES["gaussian"].function, 0.25, 0.0, "wide", device_form="gaussian")
    made = construct_kernel(torch.ones_like(position[0]), position, torch.full_like(position, 0.75), 9, profile)
    distance = torch.arange(-4, 5) - position[0].double()
    factor = (-distance.square() / 2).exp()
    expected = factor / (factor.sum(-1, keepdim=True) + 1e-7)
    near = distance.abs() < 9.34
    assert ((made.double() - expected) / expected)[near].abs().max() <= 3 * torch.finfo(dtype).eps


@every_spread
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("what", ["weight", "position", "sigma", "both"])
def test_special_values_have_the_gradients_of_the_formula(variant, spread, dtype, what):
    elements = make_elements(spread, (3, 2), channels=(1, 1)).to(dtype)
    if what in ("weight", "position") or elements.sigma is not None:
        for name, value in (SPECIAL_WEIGHTS if what == "weight" else SPECIAL_VALUES).items():
            special = with_special(elements, ("position", "sigma") if what == "both" else (what,), value)
            assert special_fault(special)[0] is None, name


@every_spread
def test_what_is_not_a_number_stays_so(variant, spread):
    """One element makes its kernel NaN and no other; so do infinite weights where the kernel has no cell of them."""
    elements = make_elements(spread, (5, 20), channels=(3, 1), dtype=torch.float32)
    for name in elements.leaves():
        for value in (float("nan"), float("inf")):
            broken = {key: leaf.detach().clone() for key, leaf in elements.leaves().items()}
            broken[name][..., 1, 0, 2] = value
            made = elements.with_leaves(**broken).kernel()
            assert not made[0].isnan().any() and not made[2].isnan().any()
            if name == "weight" or value != float("inf"):
                assert made[1].isnan().all(), (name, value)


# Threads


@every_spread
def test_results_do_not_depend_on_the_number_of_threads(variant, spread):
    elements = make_elements(spread, (23, 21), channels=(70, 1), count=9, dtype=torch.float32)
    one = own(elements)
    torch.set_num_threads(2)
    two = own(elements)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_threads_of_python_have_memory_of_their_own():
    draws = [make_elements("gaussian", (9, 8 + seed), channels=(5, 1), count=7, seed=seed) for seed in range(4)]
    expected, found = list(map(own, draws)), {}

    def work(number):
        found[number] = [own(draws[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answered in found.items():
        for answer in answered:
            assert all(torch.equal(answer[name], expected[number][name]) for name in answer)


# Where it serves


@every_spread
def test_a_second_derivative_goes_through_torchs_operators(spread, calls, by_torch):
    elements = make_elements(spread, (3, 4))
    leaves = list(elements.leaves().values())
    (slope,) = torch.autograd.grad(elements.kernel().square().sum(), leaves[1], create_graph=True)
    second = torch.autograd.grad(slope.square().sum(), leaves)
    assert calls == ["td_construct", "td_construct_gradients"]  # the latter of the kernel in the slope
    made = elements.to(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "can_fuse", lambda *elements: False)
        (slope,) = torch.autograd.grad(made.kernel().square().sum(), made.position, create_graph=True)
        expected = torch.autograd.grad(slope.square().sum(), list(made.leaves().values()))
    for one, other in zip(second, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@every_spread
@pytest.mark.parametrize("wanted", ["weight", "position", "sigma"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_one_gradient_alone(spread, wanted, create_graph):
    elements = make_elements(spread, (3, 4))
    leaves = {name: leaf.requires_grad_(name == wanted) for name, leaf in elements.leaves().items()}
    if wanted in leaves:
        (made,) = torch.autograd.grad(elements.kernel().square().sum(), leaves[wanted], create_graph=create_graph)
        (expected,) = torch.autograd.grad(elements.oracle().square().sum(), leaves[wanted])
        assert_equal_to_rounding({"output": made}, {"output": expected})


def test_what_it_does_not_serve(calls):
    """Profiles of one's own, functional transforms, tensors without memory, programs that leave this package."""
    own_profile = Profile(lambda u: 1 / (1 + u * u), 0.3, 0.2)
    elements = make_elements("gaussian", (3, 4))
    tensors = [tensor.detach() for tensor in elements.leaves().values()]
    construct_kernel(*tensors, (3, 4), own_profile)
    first = (tensors[0],)
    torch.func.jvp(lambda weight: construct_kernel(weight, *tensors[1:], (3, 4)), first, first)
    torch.func.vmap(lambda weight: construct_kernel(weight, *tensors[1:], (3, 4)))(torch.stack(tensors[:1]))
    assert construct_kernel(*(tensor.to("meta") for tensor in tensors), (3, 4)).is_meta
    torch.jit.trace(lambda weight: construct_kernel(weight, *tensors[1:], (3, 4)), tensors[0], check_trace=False)
    torch.export.export(Dcls2d(2, 2, 3, dilated_kernel_size=5), (torch.randn(1, 2, 7, 7),))
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_are_computed_in_float32(dtype, calls):
    elements = make_elements("gaussian", (5, 4), dtype=torch.float32)
    half = elements.with_leaves(weight=elements.weight.detach().to(dtype))
    same = elements.with_leaves(weight=half.weight.float())
    assert torch.equal(half.kernel(), same.kernel().to(dtype))
    assert calls == ["td_construct"] * 2


def test_without_the_library_torchs_operators_serve(monkeypatch, calls):
    elements = make_elements("triangle", (3, 4))
    expected = own(elements)
    monkeypatch.setattr(fused, "missing", lambda: "no compiled kernels: it is a test")
    calls.clear()
    assert_equal_to_rounding(own(elements), expected)
    assert calls == []


def test_nothing_is_kept_but_the_elements():
    """Forward and backward, of many elements: beside results no tensor is made."""
    elements = make_elements("gaussian", (9, 9), channels=(3, 1), count=50, dtype=torch.float32)
    own(elements)
    gc.collect()
    made = []

    class Made(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            made.extend(one.shape for one in (result if isinstance(result, list | tuple) else [result]))
            return result

    with Made():
        made_kernel = kernel.learned_kernel(*elements.leaves().values(), (9, 9), PROFILES["gaussian"])
        torch.autograd.grad(made_kernel, list(elements.leaves().values()), torch.ones(3, 1, 9, 9))
    assert {tuple(shape) for shape in made} <= {(3, 1, 9, 9), (3, 1, 50), (2, 3, 1, 50)}


# Torch's compiler


@pytest.mark.compiles
@every_spread
def test_compiles_whole(spread, calls):
    elements = make_elements(spread, (5, 4), dtype=torch.float32)
    expected = own(elements)
    names = list(elements.leaves())

    def call(*tensors):
        return elements.with_leaves(**dict(zip(names, tensors, strict=True))).kernel()

    compiled = torch.compile(call, fullgraph=True)
    calls.clear()
    found = answers(lambda: compiled(*elements.leaves().values()), elements.leaves())
    assert calls == ["td_construct", "td_construct_gradients"]
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.compiles
def test_compiles_functional_transforms():
    elements = make_elements("gaussian", (5, 4))
    position = elements.position.detach()

    def loss(position):
        return elements.with_leaves(position=position).kernel().square().sum()

    both = torch.stack([position, position + 0.125])
    compiled = torch.compile(torch.func.vmap(torch.func.grad(loss)), fullgraph=True)(both)
    expected = torch.stack([torch.autograd.grad(loss(one), one)[0] for one in both.clone().requires_grad_().unbind()])
    torch.testing.assert_close(compiled, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("form", "sigma"), [("gaussian", True), ("triangle", True), ("triangle", False)])
def test_operators_pass_torchs_checks(form, sigma):
    draw = [normal(4, 1, 3).detach(), normal(2, 4, 1, 3).detach(), normal(2, 4, 1, 3).detach() if sigma else None]
    settings = [5, 4], form, 0.5
    opcheck(torch.ops.torchdcls.construct_kernel, (*draw, *settings))
    opcheck(torch.ops.torchdcls.construct_kernel_gradients, (*draw, normal(4, 1, 5, 4).detach(), *settings))


ARGUMENTS = {
    "weight": torch.zeros(4, 1, 3),
    "position": torch.zeros(2, 4, 1, 3),
    "sigma": torch.zeros(2, 4, 1, 3),
    "gradient": torch.zeros(4, 1, 5, 6),
    "sizes": [5, 6],
    "form": "gaussian",
    "smallest_scale": 0.27,
}


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.zeros(200000, 1, 3)}, r"position: expected shape \(2, 200000, 1, 3\), .*got \(2, 4, 1, 3\)"),
        ({"weight": torch.zeros(4, 1, 3).half()}, r"weight: expected torch.float32 or .*64, got torch.float16"),
        ({"weight": torch.zeros(4, 1, 3).double()}, r"position: expected .*torch.float64 on cpu, got .*torch.float32"),
        ({"weight": torch.tensor(0.0)}, r"weight: expected shape \(\.\.\., n\) of at least one element, got \(\)"),
        ({"weight": torch.zeros(4, 1, 0)}, r"weight: expected shape .*at least one element, got \(4, 1, 0\)"),
        ({"position": torch.zeros(1)}, r"position: expected shape \(2, 4, 1, 3\), .*got \(1,\)"),
        ({"position": torch.zeros(3, 4, 1, 3)}, r"position: expected shape \(2, 4, 1, 3\), .*got \(3, 4, 1, 3\)"),
        ({"position": torch.zeros(2, 4, 1, 3).double()}, r"position: expected .*torch.float32 on cpu, .*torch.float64"),
        ({"position": torch.zeros(2, 4, 1, 3, device="meta")}, r"position: expected .* on cpu, got .* on meta"),
        ({"sigma": torch.zeros(2, 4, 1, 1)}, r"sigma: expected shape \(2, 4, 1, 3\), .*got \(2, 4, 1, 1\)"),
        ({"sigma": torch.zeros(2, 4, 1, 3).half()}, r"sigma: expected .*torch.float32 on cpu, got .*torch.float16"),
        ({"sizes": []}, r"sizes: expected 1 to 3 integers of at least 1, got \(\)"),
        ({"sizes": [2, 2, 2, 2]}, r"sizes: expected 1 to 3 integers of at least 1, got \(2, 2, 2, 2\)"),
        ({"sizes": [5, 0]}, r"sizes: expected 1 to 3 integers of at least 1, got \(5, 0\)"),
        ({"sizes": [5]}, r"position: expected shape \(1, 4, 1, 3\), .*got \(2, 4, 1, 3\)"),
        ({"form": "square"}, r"form: expected 'triangle' or 'gaussian', got 'square'"),
        ({"gradient": torch.zeros(1)}, r"gradient: expected shape \(4, 1, 5, 6\), .*got \(1,\)"),
        ({"gradient": torch.zeros(4, 1, 5, 6).half()}, r"gradient: expected .*torch.float32 on cpu, .*torch.float16"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_operators_refuse(changed, message, fake):
    """What would be read or written outside of a tensor."""
    arguments = {**ARGUMENTS, **changed}
    without = {name: value for name, value in arguments.items() if name != "gradient"}
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext():
        with pytest.raises(ValueError, match=f"^{message}"):
            torch.ops.torchdcls.construct_kernel_gradients(**arguments)
        if "gradient" not in changed:
            with pytest.raises(ValueError, match=f"^{message}"):
                torch.ops.torchdcls.construct_kernel(**without)
