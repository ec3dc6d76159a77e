"""Which method makes which map: the rule, its rates, what it prints, and plans of several methods."""

import functools
import itertools
import json
import math
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from cases import CPU_METHODS, answers, assert_equal_to_rounding, needs_kernels, normal, oracle_convolution
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record import RESULTS
from benchmarks.shapes import Shape, draw_shapes
from benchmarks.tables import newest_result
from torchdcls import explain_method
from torchdcls.ops.conv import METHOD_NAMES, MethodName, api, large_kernel_conv, select
from torchdcls.ops.conv.methods import METHODS, named
from torchdcls.ops.conv.problem import Problem
from torchdcls.ops.conv.rates import FILE
from torchdcls.ops.conv.select import Plan, choose, estimate, maps_of, reason_against

MAPS = ("convolve", "transpose", "correlate")
PARTS = (*MAPS, "gradients")
RATES = json.loads(FILE.read_text(encoding="utf-8"))["nanoseconds"]
PLANS = [Plan(*names) for names in itertools.product(CPU_METHODS[1:], repeat=3)]
LARGE = Problem(2, 4, 4, 4, (56, 56), (31, 31), (1, 1), ((15, 15),) * 2, "cpu", torch.float32)
WANTED = list(itertools.product((True, False), repeat=2))


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
    return [method for method in METHODS if reason_against(method, problem) is None]


def names_of(plan):
    return {plan.convolve, plan.transpose, plan.correlate}


# The rule


def test_what_a_caller_may_say_are_the_names():
    assert get_args(MethodName) == METHOD_NAMES == ("auto", *(method.name for method in METHODS))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_documented(method):
    page = (Path(__file__).parents[3] / "docs" / "guides" / "speed-cpu.md").read_text()
    assert f'"{method.name}"' in large_kernel_conv.__doc__ and f'| `"{method.name}"` |' in page


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    problem=problems(("cpu", "cpu", "cuda", "meta")),
    output=st.sampled_from(["convolve", "transpose"]),
    of=st.tuples(st.booleans(), st.booleans()),
)
def test_no_method_is_taken_that_has_a_reason_against_it(problem, output, of):
    for name in names_of(choose(problem, output, *of)):
        assert reason_against(named(name), problem) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problem=problems())
def test_estimates_are_positive_and_finite(problem):
    for method, part in itertools.product(able(problem), PARTS):
        assert 0 < estimate(method.name, part, problem) < math.inf


@pytest.mark.parametrize("of", WANTED)
def test_what_is_taken_is_the_cheapest_with_its_handicap(of):
    """Direct is left for a clear gain only."""
    taken = set()
    for shape in draw_shapes(60, 2):
        problem, maps = shape.problem_alone(), maps_of("convolve", *of)
        cautious = {}
        for names in itertools.product([method.name for method in able(problem)], repeat=len(maps)):
            plan = Plan(**{**dict.fromkeys(MAPS, names[0]), **dict(zip(maps, names, strict=True))})
            handicap = max(named(name).handicap for name in names)
            time = select.estimate_plan(plan, problem, maps) * handicap
            cautious[plan] = time + 3e4 * len(maps) * (set(names) != {"direct"})
        plan = choose(problem, "convolve", *of)
        assert cautious[plan] == min(cautious.values())
        taken |= names_of(plan)
    assert len(taken) > 1


def test_every_operation_has_a_rate():
    """Of problems like those that the rates are fitted on, drawn anew."""
    for shape in draw_shapes(150, 1):
        problem = shape.problem_alone()
        for method, part in itertools.product(able(problem), PARTS):
            counts = method.operations(problem, part)
            assert counts.keys() <= RATES.keys(), (str(shape), method.name, part)
            assert all(0 <= count < math.inf for count in counts.values())


def test_rates_are_few_and_positive():
    assert len(RATES) <= 40
    assert all(0 <= rate < math.inf for rate in RATES.values())


def test_estimates_are_near_what_was_measured():
    """Of every method and part: an estimate that is far too low would always be taken."""
    ratios = defaultdict(list)
    result = newest_result("rates", RESULTS)
    for entry in result["shapes"]:
        problem = Shape.from_json(entry["shape"]).problem_alone()
        for name, parts in entry["ms"].items():
            if name != "native":  # counted for the instruction set that runs here
                for part, taken in parts.items():
                    ratios[name].append(abs(math.log(estimate(name, part, problem) / 1e6 / taken)))
    assert ratios.keys() >= {"direct", "fft"}
    for name, errors in ratios.items():
        assert statistics.median(errors) < math.log(2), name


def test_one_gradient_takes_no_longer_than_both():
    for shape in draw_shapes(100, 3):
        problem = shape.problem_alone()
        for method in able(problem):
            both = estimate(method.name, "gradients", problem)
            assert max(estimate(method.name, part, problem) for part in ("transpose", "correlate")) <= both


def test_estimates_add_up_to_the_plans():
    """Both gradients by one method share work, by two they do not."""
    one, mixed = Plan.of_one("fft"), Plan("direct", "fft", "direct")
    output, both = estimate("fft", "convolve", LARGE), estimate("fft", "gradients", LARGE)
    assert select.estimate_plan(one, LARGE, maps_of("convolve", True, True)) == output + both
    assert select.estimate_plan(one, LARGE, ("convolve",)) == output
    times = [estimate(getattr(mixed, map), map, LARGE) for map in MAPS]
    assert select.estimate_plan(mixed, LARGE, MAPS) == pytest.approx(sum(times))
    assert select.estimate_plan(mixed, LARGE, MAPS[:2]) == pytest.approx(sum(times[:2]))
    assert select.estimate_plan(mixed, LARGE, ("convolve", "correlate")) == pytest.approx(times[0] + times[2])


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_other_devices_convolve_directly(device):
    assert choose(LARGE, "convolve", True, True) != Plan.of_one("direct")
    assert choose(replace(LARGE, device=device), "convolve", True, True) == Plan.of_one("direct")


def test_exported_programs_convolve_directly(monkeypatch):
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    assert choose(LARGE, "convolve", True, True) == Plan.of_one("direct")


def test_compiled_graphs_are_made_for_the_next_power_of_two(monkeypatch):
    """Any batch up to it has the same plan."""
    asked = []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(select, "_cheapest", lambda fields, _: asked.append(Problem(*fields).batch) or ("direct",) * 3)
    for batch in (0, 1, 2, 3, 4, 5, 64, 65):
        choose(replace(LARGE, batch=batch), "convolve", True, True)
    assert asked == [0, 1, 2, 4, 4, 8, 64, 128]


# Plans of several methods


@pytest.fixture(params=PLANS, ids=lambda plan: f"{plan.convolve}-{plan.transpose}-{plan.correlate}")
def plan(request, monkeypatch):
    """Every plan of these methods in turn, as if it were the cheapest."""
    monkeypatch.setattr(api.select, "choose", lambda *_: request.param)
    return request.param


def every_plan(names, cases):
    """Every case by every plan that can run it. A case's first value are its channels, (in, out, groups)."""
    runs = [
        (plan, *case)
        for plan, case in itertools.product(PLANS, cases)
        if "native" not in names_of(plan) or len(set(case[0])) == 1
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


def test_each_map_is_made_by_its_method(plan, monkeypatch):
    made = []

    def noted(method, map):
        run = getattr(method, map)
        return run and (lambda *tensors: made.append((method.name, map)) or run(*tensors))

    changed = [replace(method, **{part: noted(method, part) for part in PARTS}) for method in METHODS]
    monkeypatch.setattr("torchdcls.ops.conv.methods.METHODS", tuple(changed))
    monkeypatch.setattr(api, "METHODS", tuple(changed))
    monkeypatch.setattr(api.direct, "convolve", changed[0].convolve)
    leaves = leaves_of(1, (2, 2, 2), (5,), (3,))
    output = large_kernel_conv(**leaves, padding=1, groups=2)
    assert made == [(plan.convolve, "convolve")]
    made.clear()
    output.sum().backward()
    if plan == Plan.of_one("direct"):
        assert made == []  # torch's own gradients
    elif plan.transpose == plan.correlate != "native":
        assert made == [(plan.transpose, "gradients")]
    else:
        assert made == [(plan.transpose, "transpose"), (plan.correlate, "correlate")]


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
    assert [line.split()[0] for line in lines] == ["method", *METHOD_NAMES[1:], *autos]
    return lines


SHAPES = (2, 4, 56, 56), (4, 1, 31, 31)


def test_explains_every_method(capsys):
    """In the order of the titles, in milliseconds."""
    lines = explained(capsys, *SHAPES, padding=15, groups=4)
    for part in ("output", "input gradient", "weight gradient", "both gradients"):
        assert part in lines[0]
    assert "leaves direct for a gain of 0.09 ms or more" in lines[-2]
    shown = [line.partition("   (") for line in lines[1:-2] if "not taken" not in line]
    assert [row.split()[0] for row, _, _ in shown] == [method.name for method in able(LARGE)]
    for row, _, caution in shown:
        name, *times = row.split()
        assert bool(caution) == (name in ("fft", "native"))
        assert times == [f"{estimate(name, part, LARGE) / 1e6:.2f}" for part in PARTS]
    plan = choose(LARGE, "convolve", True, True)
    assert lines[-1] == (
        f"auto takes: output by {plan.convolve}, input gradient by {plan.transpose}, "
        f"weight gradient by {plan.correlate}"
    )


def test_explains_the_output_alone(capsys):
    lines = explained(capsys, *SHAPES, padding=15, groups=4, training=False)
    assert "gradient" not in "".join(lines)
    assert len(lines[1].split()) == 2
    assert lines[-1] == f"auto takes: output by {choose(LARGE, 'convolve').convolve}"


def line_of(lines, name):
    return next(line for line in lines if line.startswith(name))


def test_explains_what_cannot_run(capsys):
    lines = explained(capsys, *SHAPES, stride=2, padding=15, groups=4)
    assert "not taken" in line_of(lines, "fft")
    assert "stride (2, 2)" in line_of(lines, "fft")
    assert "fft" not in lines[-1]


@needs_kernels
def test_explains_that_channels_are_mixed(capsys):
    lines = explained(capsys, (2, 4, 9, 9), (6, 2, 5, 5), padding=2, groups=2)
    assert "not taken: it convolves each channel by itself" in line_of(lines, "native")
    assert "channels are 4 and 6 in 2 groups" in line_of(lines, "native")
    assert "native" not in lines[-1]


def test_explains_that_there_are_no_compiled_kernels(capsys, monkeypatch):
    monkeypatch.setattr("torchdcls.ops.conv.native.missing", lambda: "no compiled kernels: it is a test")
    select._known_cheapest.cache_clear()
    lines = explained(capsys, *SHAPES, padding=15, groups=4)
    select._known_cheapest.cache_clear()
    assert "not taken: no compiled kernels: it is a test" in line_of(lines, "native")
    assert "native" not in lines[-1]


def test_explains_float64(capsys):
    """Torch convolves float32 many times faster than other dtypes, and the transforms do not care."""
    single, double = (float(explained(capsys, *SHAPES, dtype=dtype, groups=4)[1].split()[1]) for dtype in DTYPES)
    assert 5 * single < double < 10.1 * single


DTYPES = torch.float32, torch.float16


def test_explains_spectra_that_are_too_large(capsys):
    """5.8 GiB, and as much again for its gradient; direct takes the maps as they are."""
    lines = explained(capsys, (16, 256, 128, 128), (256, 256, 51, 51), padding=25)
    assert "not taken: the kernel's spectrum would take more than 512 MiB" in line_of(lines, "fft")
    assert lines[-1].count("by direct") == 3


def test_explains_no_channels(capsys):
    assert explained(capsys, (4, 0, 8, 8), (4, 0, 3, 3))[-1].count("by direct") == 3


def test_explains_other_devices(capsys):
    lines = explained(capsys, *SHAPES, padding=15, groups=4, device="mps")
    assert "its speed on mps is unknown" in line_of(lines, "fft")
    assert lines[-1].count("by direct") == 3


def test_explains_memory_formats(capsys):
    first = explained(capsys, *SHAPES, padding=15, groups=4)
    last = explained(capsys, *SHAPES, padding=15, groups=4, channels_last=True)
    problem = replace(LARGE, channels_last=True)
    assert last[1].split()[1] == f"{estimate('direct', 'convolve', problem) / 1e6:.2f}"
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
def test_every_kind_of_problem_has_a_rate(layout, channels, taps, side):
    """What costs nothing would always be taken."""
    dims, last = layout
    for across, batch in itertools.product((taps, 3), (1, 64)):
        kernel = (across,) * (dims - 1) + (taps,)
        sizes = (side,) * dims, kernel, (1,) * dims, tuple((size // 2, size // 2) for size in kernel)
        problem = Problem(batch, *channels, *sizes, "cpu", torch.float32, last)
        for method, part in itertools.product(able(problem), PARTS):
            assert method.operations(problem, part).keys() <= RATES.keys()


@needs_kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("map", "kernel"),
    [
        ((3, 1200, 1600), (1001, 1)),
        ((3, 720, 1280), (301, 1)),
        ((3, 720, 1280), (151, 1)),
        ((3, 720, 1280), (151, 5)),
    ],
    ids=str,
)
def test_thin_kernels_are_not_left_to_torch(map, kernel, channels_last):
    # Torch's own takes from 5 to 80 times the best here.
    channels, *sizes = map
    padding = tuple((taps // 2, taps // 2) for taps in kernel)
    stride = (1,) * len(kernel)
    problem = Problem(
        2, channels, channels, channels, tuple(sizes), kernel, stride, padding, "cpu", torch.float32, channels_last
    )
    assert choose(problem, "convolve") == Plan.of_one("native")
    assert choose(problem, "convolve", True, True) == Plan.of_one("native")


def test_an_hour_of_sound_is_planned_at_once():
    """Not in a time that grows with the map."""
    taken = time.process_time()
    explain_method((1, 2, 57_600_000), (2, 1, 31), padding=15, groups=2)
    assert time.process_time() - taken < 5
