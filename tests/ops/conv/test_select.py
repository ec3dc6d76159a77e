"""Which method makes which part: the rule, its costs, what it prints, and plans of several methods."""

import functools
import itertools
import math
import statistics
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from cases import answers, assert_equal_to_rounding, normal, oracle_convolution
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import RESULTS
from benchmarks.shapes import Shape, draw_shapes
from benchmarks.tables import newest_result
from torchdcls import explain_method
from torchdcls.ops.conv import METHODS, api, autograd, large_kernel_conv, select
from torchdcls.ops.conv.costs import NANOSECONDS
from torchdcls.ops.conv.problem import Problem
from torchdcls.ops.conv.select import OPERATIONS, Plan, choose, estimate, undesired_reason, unsupported_reason

PARTS = ("output", "input gradient", "weight gradient", "gradients")
MIXED = [Plan(*parts) for parts in itertools.product(("direct", "depthwise", "fft"), repeat=3)]
LARGE = Problem(2, 4, 4, 4, (56, 56), (31, 31), (1, 1), ((15, 15),) * 2, "cpu", torch.float32)


@st.composite
def problems(draw, devices=("cpu",)):
    """Any problem: strided, padded unevenly and beyond the kernel, empty, of integers."""
    dims = draw(st.integers(1, 3))
    largest = {1: 3000, 2: 100, 3: 20}[dims]
    maps, kernel, padding = [], [], []
    for _ in range(dims):
        taps = draw(st.integers(1, largest // 2))
        pads = draw(st.integers(0, taps)), draw(st.integers(0, taps))
        if draw(st.booleans()):
            pads = tuple(min(pad, taps - 1) for pad in pads)
        maps.append(draw(st.integers(max(1, taps - sum(pads)), largest)))
        kernel.append(taps)
        padding.append(pads)
    groups = draw(st.integers(1, 300))
    inside, outside = (groups * draw(st.one_of(st.just(1), st.integers(1, 30))) for _ in range(2))
    stride = draw(st.one_of(st.just((1,) * dims), st.tuples(*[st.integers(1, 3)] * dims)))
    batch, dtype = draw(st.integers(0, 64)), draw(st.sampled_from([*[torch.float32] * 9, torch.int64]))
    last = dims > 1 and draw(st.booleans())
    sizes = tuple(maps), tuple(kernel), stride, tuple(padding)
    return Problem(batch, inside, outside, groups, *sizes, draw(st.sampled_from(devices)), dtype, last)


def able(problem):
    return [method for method in OPERATIONS if select.reason_against(method, problem) is None]


def methods_of(plan):
    return {plan.output, plan.input_gradient, plan.weight_gradient}


# The rule


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problem=problems(("cpu", "cpu", "cuda", "meta")), of=st.tuples(st.booleans(), st.booleans()))
def test_no_method_is_taken_that_has_a_reason_against_it(problem, of):
    plan = choose(problem, *of)
    parts = methods_of(plan)
    for method in parts:
        assert unsupported_reason(method, problem) is None
        assert undesired_reason(method, problem) is None
    assert parts <= {"direct", "depthwise", "fft"} or parts in ({"matmul"}, {"triton"})
    assert "auto" not in parts


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problem=problems())
def test_estimates_are_positive_and_finite(problem):
    for method in able(problem):
        for part in PARTS:
            assert 0 < estimate(method, part, problem) < math.inf


@pytest.mark.parametrize("of", list(itertools.product((True, False), repeat=2)))
def test_what_is_taken_is_the_cheapest_with_its_handicap(of):
    """The handicaps decide now and then, and direct is left for a clear gain only."""
    decided = 0
    for shape in draw_shapes(60, 2):
        problem = shape.problem_alone()
        plans = [plan for plan in (Plan.of_one("matmul"), *MIXED) if methods_of(plan) <= {"direct", *able(problem)}]
        times = {plan: select.estimate_plan(plan, problem, *of) for plan in plans}
        handicapped = {}
        for plan, time in times.items():
            factor = max(
                {"direct": 1, "depthwise": 1.05, "fft": 1.25, "matmul": 1.25}[part] for part in methods_of(plan)
            )
            handicapped[plan] = time * factor + 1e5 * (methods_of(plan) != {"direct"})
        plan = choose(problem, *of)
        assert handicapped[plan] == min(handicapped.values())
        decided += times[plan] > min(times.values())
    assert 0 < decided < 30


def test_every_operation_has_a_cost():
    """Of problems like those that the costs are fitted on, drawn anew."""
    for shape in draw_shapes(150, 1):
        problem = shape.problem_alone()
        for method, part in itertools.product(able(problem), PARTS):
            counts = OPERATIONS[method](problem, part)
            assert counts.keys() <= NANOSECONDS.keys(), (str(shape), method, part)
            assert all(0 < count < math.inf for count in counts.values())


def test_costs_are_positive_and_finite():
    assert all(0 < cost < math.inf for cost in NANOSECONDS.values())


def test_estimates_are_near_what_was_measured():
    """Of every method and part: an estimate that is far too low would always be taken."""
    ratios = defaultdict(list)
    result = newest_result("costs", RESULTS)
    for entry in result["shapes"]:
        problem = Shape.from_json(entry["shape"]).problem_alone()
        for method, parts in entry["ms"].items():
            for part, taken in parts.items():
                ratios[method, part].append(estimate(method, part, problem) / (taken * 1e6))
    assert len(ratios) == len(OPERATIONS) * len(PARTS)
    for kind, found in ratios.items():
        assert 1 / 1.25 < statistics.median(found) < 1.25, kind
        assert min(found) > 1 / 7, kind


def test_one_gradient_takes_no_longer_than_both():
    for shape in draw_shapes(100, 3):
        problem = shape.problem_alone()
        for method in able(problem):
            both = estimate(method, "gradients", problem)
            assert max(estimate(method, f"{leaf} gradient", problem) for leaf in ("input", "weight")) <= both


def test_estimates_add_up_to_the_plans():
    """Both gradients by one method share work, by two they do not."""
    direct, mixed = Plan.of_one("fft"), Plan("direct", "fft", "direct")
    output, both = estimate("fft", "output", LARGE), estimate("fft", "gradients", LARGE)
    assert select.estimate_plan(direct, LARGE, True, True) == output + both
    assert select.estimate_plan(direct, LARGE, False, False) == output
    parts = (("direct", "output"), ("fft", "input gradient"), ("direct", "weight gradient"))
    times = [estimate(method, part, LARGE) for method, part in parts]
    assert select.estimate_plan(mixed, LARGE, True, True) == pytest.approx(sum(times))
    assert select.estimate_plan(mixed, LARGE, True, False) == pytest.approx(sum(times[:2]))
    assert select.estimate_plan(mixed, LARGE, False, True) == pytest.approx(times[0] + times[2])


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_other_devices_convolve_directly(device):
    assert choose(LARGE, True, True) != Plan.of_one("direct")
    assert choose(replace(LARGE, device=device), True, True) == Plan.of_one("direct")


def test_exported_programs_convolve_directly(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert choose(LARGE, True, True) == Plan.of_one("direct")


def test_compiled_graphs_are_made_for_the_next_power_of_two(monkeypatch):
    """Any batch up to it has the same plan."""
    asked = []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(select, "_cheapest", lambda fields, *_: asked.append(Problem(*fields).batch) or ("direct",) * 3)
    for batch in (0, 1, 2, 3, 4, 5, 64, 65):
        choose(replace(LARGE, batch=batch), True, True)
    assert asked == [0, 1, 2, 4, 4, 8, 64, 128]


# Plans of several methods


@pytest.fixture(params=MIXED, ids=lambda plan: f"{plan.output}-{plan.input_gradient}-{plan.weight_gradient}")
def plan(request, monkeypatch):
    """Every plan of these methods in turn, as if it were the cheapest."""
    monkeypatch.setattr(api.select, "choose", lambda *_: request.param)
    return request.param


def every_plan(names, cases):
    """Every case by every plan that can run it. A case's first value are its channels, (in, out, groups)."""
    runs = [
        (plan, *case)
        for plan, case in itertools.product(MIXED, cases)
        if "depthwise" not in methods_of(plan) or len(set(case[0])) == 1
    ]
    return pytest.mark.parametrize(("plan", *names), runs, indirect=["plan"], ids=str)


def leaves_of(batch, channels, map, kernel):
    inside, outside, groups = channels
    return {
        "input": normal(batch, inside, *map, seed=1),
        "weight": normal(outside, inside // groups, *kernel, seed=2),
        "bias": normal(outside, seed=3),
    }


@functools.cache  # all plans share it
def oracle(channels, map, kernel, padding):
    """The oracle's answers to the leaves as they are drawn."""
    leaves = leaves_of(2, channels, map, kernel)
    return answers(lambda: oracle_convolution(**leaves, padding=padding, groups=channels[2]), leaves)


@every_plan(
    ("channels", "map", "kernel", "padding"),
    [
        (channels, *size)
        for channels in ((3, 3, 3), (2, 4, 2), (3, 2, 1))
        for size in (
            ((9,), (5,), 2),
            ((7, 8), (4, 3), "same"),
            ((16, 15), (15, 15), "same"),
            ((3, 4, 3), (3, 2, 2), 1),
        )
    ],
)
def test_mixed_plans_are_the_oracles(plan, map, kernel, padding, channels):
    leaves = leaves_of(2, channels, map, kernel)
    options = {"padding": padding, "groups": channels[2]}
    actual = answers(lambda: large_kernel_conv(**leaves, **options), leaves)
    assert_equal_to_rounding(actual, oracle(channels, map, kernel, padding))


def test_each_part_is_made_by_its_method(plan, monkeypatch):
    made = []

    def noted(method, make, parts):
        def run(*args):
            made.extend((method, part) for part in parts or args[-2:])
            return make(*args)

        return run

    for table, parts in ((autograd.OUTPUTS, ("output",)), (autograd.GRADIENTS, None)):
        for method, make in table.items():
            monkeypatch.setitem(table, method, noted(method, make, parts))
    monkeypatch.setattr(api, "convolve_direct", noted("direct", api.convolve_direct, ("output",)))
    leaves = leaves_of(1, (2, 2, 2), (5,), (3,))
    output = large_kernel_conv(**leaves, padding=1, groups=2)
    assert made == [(plan.output, "output")]
    made.clear()
    output.sum().backward()
    if plan == Plan.of_one("direct"):
        assert made == []  # torch's own gradients
    elif plan.input_gradient == plan.weight_gradient:
        assert made == [(plan.input_gradient, True)] * 2
    else:
        parts = [(plan.input_gradient, (True, False)), (plan.weight_gradient, (False, True))]
        assert made == [(method, asked) for method, pair in parts for asked in pair]


@pytest.mark.parametrize("wanted", ["input", "weight", "bias"])
def test_mixed_plans_make_one_gradient_alone(plan, wanted):
    leaves = {name: leaf.requires_grad_(name == wanted) for name, leaf in leaves_of(2, (2, 2, 2), (5,), (3,)).items()}
    only, options = {wanted: leaves[wanted]}, {"padding": 1, "groups": 2}
    expected = answers(lambda: oracle_convolution(**leaves, **options), only)
    assert_equal_to_rounding(answers(lambda: large_kernel_conv(**leaves, **options), only), expected)


@every_plan(
    ("channels", "map", "kernel"),
    [((2, 2, 2), (4,), (4,)), ((2, 1, 1), (2, 3), (3, 2)), ((1, 1, 1), (2, 2), (3, 3))],
)
def test_gradcheck_and_gradgradcheck(plan, channels, map, kernel):
    leaves = tuple(leaves_of(1, channels, map, kernel).values())

    def run(*tensors):
        return large_kernel_conv(*tensors, padding="same", groups=channels[2])

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("wanted", ["input", "weight"])
def test_second_derivatives_of_one_leaf(plan, wanted):
    leaves = leaves_of(1, (2, 2, 2), (3, 2), (2, 3))

    def run(leaf):
        return large_kernel_conv(**{**{n: t.detach() for n, t in leaves.items()}, wanted: leaf}, padding=1, groups=2)

    assert torch.autograd.gradgradcheck(lambda leaf: run(leaf).square(), (leaves[wanted],))


# The explanation


def explained(capsys, *shapes, **options):
    explain_method(*shapes, **options)
    lines = capsys.readouterr().out.splitlines()
    autos = ["auto", "auto"] if options.get("device", "cpu") == "cpu" else ["auto"]
    assert [line.split()[0] for line in lines] == ["method", *METHODS[1:], *autos]
    return lines


SHAPES = (2, 4, 56, 56), (4, 1, 31, 31)


def test_explains_every_method(capsys):
    """In the order of the titles, in milliseconds."""
    lines = explained(capsys, *SHAPES, padding=15, groups=4)
    for part in ("output", "input gradient", "weight gradient", "both gradients"):
        assert part in lines[0]
    assert "leaves direct for a gain of 0.1 ms or more" in lines[6]
    for line in lines[1:5]:
        row, _, caution = line.partition("   (")
        method, *times = row.split()
        assert bool(caution) == (method in ("fft", "matmul"))
        expected = [f"{estimate(method, part, LARGE) / 1e6:.2f}" for part in PARTS]
        assert times == expected
    plan = choose(LARGE, True, True)
    assert lines[-1] == (
        f"auto takes: output by {plan.output}, input gradient by {plan.input_gradient}, "
        f"weight gradient by {plan.weight_gradient}"
    )


def test_explains_the_output_alone(capsys):
    lines = explained(capsys, *SHAPES, padding=15, groups=4, training=False)
    assert "gradient" not in "".join(lines)
    assert len(lines[1].split()) == 2
    assert lines[-1] == f"auto takes: output by {choose(LARGE).output}"


def test_explains_what_cannot_run(capsys):
    lines = explained(capsys, *SHAPES, stride=2, padding=15, groups=4)
    assert "not taken" in lines[3]
    assert "stride (2, 2)" in lines[3]
    assert "fft" not in lines[-1]


def test_explains_that_channels_are_mixed(capsys):
    lines = explained(capsys, (2, 4, 9, 9), (6, 2, 5, 5), padding=2, groups=2)
    assert "not taken: it convolves each channel by itself" in lines[2]
    assert "channels are 4 to 6 in 2 groups" in lines[2]
    assert "depthwise" not in lines[-1]


def test_explains_that_onednn_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(select, "HAS_ONEDNN", False)
    select._known_cheapest.cache_clear()
    lines = explained(capsys, *SHAPES, padding=15, groups=4)
    select._known_cheapest.cache_clear()
    assert "not taken: this torch has no oneDNN" in lines[2]
    assert "depthwise" not in lines[-1]


def test_explains_float64(capsys):
    """Torch convolves float32 many times faster than other dtypes, and the transforms do not care."""
    lines = explained(capsys, *SHAPES, padding=15, groups=4, dtype=torch.float64)
    assert "not taken: oneDNN, whose convolution it lives on, knows no float64" in lines[2]
    assert lines[-1].count("by fft") == 3
    single, double = (float(explained(capsys, *SHAPES, dtype=dtype, groups=4)[1].split()[1]) for dtype in DTYPES)
    assert double == pytest.approx(10 * single, rel=0.1)


DTYPES = torch.float32, torch.float16


def test_explains_matrices_that_are_too_large(capsys):
    lines = explained(capsys, (1, 64, 128, 128), (64, 1, 5, 5), padding=2, groups=64)
    assert "not taken: its matrices would take more than 256 MiB" in lines[4]


def test_explains_spectra_that_are_too_large(capsys):
    """5.8 GiB, and as much again for its gradient; direct takes the maps as they are."""
    lines = explained(capsys, (16, 256, 128, 128), (256, 256, 51, 51), padding=25)
    assert "not taken: the kernel's spectrum would take more than 512 MiB" in lines[3]
    assert lines[-1].count("by direct") == 3


def test_explains_no_channels(capsys):
    assert explained(capsys, (4, 0, 8, 8), (4, 0, 3, 3))[-1].count("by direct") == 3


def test_spectra_of_many_channels_are_made_in_parts(capsys):
    """6 GiB at once."""
    shapes = (1, 512, 512, 512), (512, 1, 201, 201)
    assert explained(capsys, *shapes, padding=100, groups=512)[-1].count("by fft") == 3


def test_explains_other_devices(capsys):
    lines = explained(capsys, *SHAPES, padding=15, groups=4, device="mps")
    assert "nothing is known of its speed on mps" in lines[3]
    assert lines[-1].count("by direct") == 3


def test_explains_memory_formats(capsys):
    first = explained(capsys, *SHAPES, padding=15, groups=4)
    last = explained(capsys, *SHAPES, padding=15, groups=4, channels_last=True)
    problem = replace(LARGE, channels_last=True)
    assert last[1].split()[1] == f"{estimate('direct', 'output', problem) / 1e6:.2f}"
    assert last[1:] != first[1:]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_shape": (2, 3, 8, 6)}, r"input: expected 4 channels, got shape \(2, 3, 8, 6\)"),
        ({"input_shape": (8, 6)}, r"input: expected 4 axes"),
        ({"input_shape": (2, -4, 8, 6)}, r"input_shape\[1\]: expected at least 0, got -4"),
        ({"weight_shape": (4, 1, -3, 3)}, r"weight_shape\[2\]: expected at least 0, got -3"),
        ({"input_shape": (2, 4, 2, 6)}, r"input: expected a map of at least 3 along axis 0"),
        ({"weight_shape": (4, 1)}, r"weight: expected .* with 1 to 3 axes"),
        ({"weight_shape": (6, 1, 3, 3)}, r"weight: expected a multiple of groups=4"),
        ({"groups": 0}, r"groups: expected at least 1"),
        ({"stride": 0}, r"stride: expected at least 1"),
        ({"padding": -1}, r"padding: expected at least 0"),
        ({"padding": "same", "stride": 2}, r"padding: expected numbers with stride"),
    ],
    ids=str,
)
def test_refuses_to_explain(changed, message):
    good = {"input_shape": (2, 4, 8, 6), "weight_shape": (4, 1, 3, 3), "groups": 4}
    explain_method(**good)
    with pytest.raises(ValueError, match=message):
        explain_method(**{**good, **changed})


KINDS = [
    *itertools.product(
        ((1, False), (2, False), (2, True), (3, False), (3, True)),
        ((32, 32, 32), (32, 64, 4), (8, 16, 1), (1, 1, 1), (4, 8, 4)),
        (1, 3, 5, 11, 13, 15, 129),
        (1, 3, 8, 13, 60),
    )
]


@pytest.mark.parametrize(("layout", "channels", "taps", "side"), KINDS)
def test_every_kind_of_problem_has_a_cost(layout, channels, taps, side):
    """What costs nothing would always be taken."""
    dims, last = layout
    for across, batch in itertools.product((taps, 3), (1, 64)):
        kernel = (across,) * (dims - 1) + (taps,)
        sizes = (side,) * dims, kernel, (1,) * dims, tuple((size // 2, size // 2) for size in kernel)
        problem = Problem(batch, *channels, *sizes, "cpu", torch.float32, last)
        for method, part in itertools.product(able(problem), PARTS):
            assert OPERATIONS[method](problem, part).keys() <= NANOSECONDS.keys()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("map", "kernel", "methods"),
    [
        ((3, 1200, 1600), (1001, 1), {"fft"}),
        ((3, 720, 1280), (301, 1), {"fft"}),
        ((3, 720, 1280), (151, 1), {"fft", "depthwise"}),
        ((3, 720, 1280), (151, 5), {"fft"}),
        ((8, 32, 64, 64), (31, 1, 1), {"fft", "depthwise"}),
    ],
    ids=str,
)
def test_thin_kernels_are_not_taken_for_free(map, kernel, methods, channels_last):
    # Torch's own takes from 2 to 80 times the best here, and its estimate was next to nothing.
    channels, *sizes = map
    padding = tuple((taps // 2, taps // 2) for taps in kernel)
    stride = (1,) * len(kernel)
    problem = Problem(
        2, channels, channels, channels, tuple(sizes), kernel, stride, padding, "cpu", torch.float32, channels_last
    )
    assert choose(problem).output in methods
    assert methods_of(choose(problem, True, True)) <= methods
    # Small kernels of many channels stay torch's.
    small = replace(problem, in_channels=96, out_channels=96, groups=96, map=(56,) * len(kernel))
    small = small.with_kernel((3,) * len(kernel), ((1, 1),) * len(kernel))
    assert choose(small).output in ("direct", "depthwise")


def test_the_least_time_of_a_thin_kernel_is_below_what_was_measured():
    # Milliseconds of two cores, measured with few channels and many.
    for channels, size, kernel, taken in [
        (3, (480, 640), (151, 1), 31),
        (64, (56, 56), (51, 1), 0.8),
        (20, (112, 112), (31, 3), 2),
    ]:
        padding = tuple((taps // 2, taps // 2) for taps in kernel)
        problem = Problem(1, channels, channels, channels, size, kernel, (1, 1), padding, "cpu", torch.float32)
        assert select.least_time(problem, "output") / 1e6 < taken
