"""The cost rule's fit, on times made of known rates, and the shapes that it is measured on."""

import json
import math
import random

import pytest
import torch

import benchmarks.shapes
from benchmarks import fit
from benchmarks.record import RESULTS
from benchmarks.shapes import MOST_CELLS, MOST_TAPS, MOST_WEIGHTS, Shape, draw_shapes
from benchmarks.tables import newest_result
from torchdcls.ops.conv.methods import named
from torchdcls.ops.conv.problem import Problem
from torchdcls.ops.conv.rates import FILE

SHAPES = draw_shapes(150, 5)


def result_of(methods, rates, shapes, noise=0.0):
    """A measurement whose times are counts of operations times rates, which are noted as they come up."""
    draw, entries = random.Random(0), []
    for shape in shapes:
        problem, times = shape.problem_alone(), {}
        for method in methods:
            times[method] = {}
            for part in fit.PARTS:
                counts = named(method).operations(problem, part)
                for name in counts:
                    rates.setdefault(name, math.exp(draw.uniform(-1, 1)) * (1e5 if name.endswith("call") else 1e-1))
                taken = sum(count * rates[name] for name, count in counts.items())
                times[method][part] = taken / 1e6 * math.exp(draw.gauss(0, noise))
        entries.append({"shape": shape.to_json(), "ms": times})
    return {"shapes": entries}


def test_known_rates_are_found():
    shapes = [shape for shape in SHAPES if len(shape.map) == 2 and shape.in_channels == shape.groups]
    rates = {}
    found, errors = fit.fit(result_of(["fft"], rates, shapes))
    assert found.keys() == rates.keys()
    assert errors.keys() == {f"fft, {part}" for part in fit.PARTS}
    for ratios in errors.values():
        assert len(ratios) == len(shapes)
        assert ratios == pytest.approx([1] * len(shapes), rel=0.02)
    for name in ("fft matrix flop", "fft spectrum cell", "fft block"):
        assert found[name] == pytest.approx(rates[name], rel=0.1), name


def test_errors_are_estimates_over_times():
    """Every sixth output takes five times what its operations cost: the fit leaves these aside."""
    shapes = [shape for shape in SHAPES if len(shape.map) == 2 and shape.in_channels == shape.groups]
    result = result_of(["fft"], {}, shapes)
    for entry in result["shapes"][::6]:
        entry["ms"]["fft"]["convolve"] *= 5
    _, errors = fit.fit(result)
    slow = errors["fft, convolve"][::6]
    right = sorted(ratio for ratio in errors["fft, convolve"] if ratio not in slow)
    assert slow == pytest.approx([1 / 5] * len(slow), rel=0.1)
    assert right[len(right) // 2] == pytest.approx(1, rel=0.03)


def test_rates_are_above_zero_whatever_was_measured():
    draw = random.Random(1)
    result = result_of(["fft"], {}, [shape for shape in SHAPES if len(shape.map) == 1])
    for entry in result["shapes"]:
        entry["ms"]["fft"] = {part: draw.uniform(0.1, 100) for part in fit.PARTS}
    rates, errors = fit.fit(result)
    assert all(0 < cost < math.inf for cost in rates.values())
    assert all(0 < ratio < math.inf for ratios in errors.values() for ratio in ratios)


def test_the_rates_are_those_of_the_newest_measurement():
    """The file is written by `python -m benchmarks.fit` and by nothing else; how it rounds depends on the machine."""
    result, written = newest_result("rates", RESULTS), FILE.read_text(encoding="utf-8")
    for entry in result["shapes"]:
        # Compiled kernels are counted for the instruction set that runs here; they serve "fft" in one dimension.
        entry["ms"].pop("native", None)
        shape = Shape.from_json(entry["shape"])
        if len(shape.map) == 1 and not shape.problem_alone().depthwise:
            entry["ms"].pop("fft", None)
    kept = json.loads(written)["nanoseconds"]
    rates, _ = fit.fit(result)
    assert rates == pytest.approx({name: kept[name] for name in rates}, rel=0.05, abs=1e-6)
    assert fit.source(kept, result) == written


# What is measured


def test_every_part_is_measured_by_every_method(monkeypatch):
    shape = Shape(2, 2, 2, 2, (6, 5), (3, 3), True)
    monkeypatch.setattr(fit, "milliseconds", lambda run: float(run() is not None))
    entry = fit.measure(shape)
    assert Shape.from_json(entry["shape"]) == shape
    assert entry["ms"].pop("native", None) in (None, dict.fromkeys(fit.PARTS[:3], 1.0))
    assert entry["ms"] == {method: dict.fromkeys(fit.PARTS, 1.0) for method in ("direct", "fft")}


def test_runs_make_the_same_numbers():
    shape = Shape(2, 3, 2, 1, (6, 5), (3, 5), False)
    for part in fit.PARTS:
        torch.manual_seed(0)
        runs, made = fit._runs(shape, part), {}
        for method, run in runs.items():
            with torch.no_grad():
                made[method] = list(run()) if part == "gradients" else [run()]
        assert made.keys() == {"direct", "fft"}
        sizes = {"convolve": [2, 2, 6, 5], "transpose": [2, 3, 6, 5], "correlate": [2, 3, 3, 5]}
        wanted = [sizes[part]] if part in sizes else [sizes["transpose"], sizes["correlate"]]
        assert [list(tensor.shape) for tensor in made["direct"]] == wanted
        torch.testing.assert_close(made["fft"], made["direct"], rtol=1e-4, atol=1e-4)


def test_a_part_that_takes_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(fit, "LONGEST", 0.0)
    assert fit.milliseconds(lambda: None) is None
    monkeypatch.setattr(fit, "LONGEST", 1.0)
    assert 0 <= fit.milliseconds(lambda: None) < 100


# Shapes


def test_shapes_come_back_from_json():
    for shape in SHAPES:
        again = Shape.from_json(json.loads(json.dumps(shape.to_json())))
        assert again == shape
        assert hash(again) == hash(shape)


def test_shapes_are_drawn_again_from_a_seed():
    assert draw_shapes(20, 5) == SHAPES[:20]
    assert draw_shapes(20, 6) != SHAPES[:20]


def test_shapes_keep_their_bounds():
    for shape in SHAPES:
        maps = shape.batch * math.prod(shape.map)
        weights = shape.out_channels * shape.in_channels // shape.groups * math.prod(shape.kernel)
        assert maps * weights <= MOST_TAPS
        assert maps * max(shape.in_channels, shape.out_channels) <= MOST_CELLS
        assert weights <= MOST_WEIGHTS
        assert shape.in_channels % shape.groups == shape.out_channels % shape.groups == 0
        assert 1 <= shape.batch <= 64
        assert len(shape.map) == len(shape.kernel) in (1, 2, 3)
        assert all(taps % 2 == 1 for taps in shape.kernel)
        assert max(shape.kernel) >= 3
        assert not (shape.channels_last and len(shape.map) == 1)
    assert {len(shape.map) for shape in SHAPES} == {1, 2, 3}
    assert {shape.channels_last for shape in SHAPES} == {True, False}
    assert any(shape.groups == 1 for shape in SHAPES)
    assert any(1 < shape.groups < shape.in_channels for shape in SHAPES)
    assert any(max(shape.kernel) > min(shape.map) for shape in SHAPES)


@pytest.mark.parametrize(("bound", "most"), [("MOST_TAPS", 10**6), ("MOST_CELLS", 10**4), ("MOST_WEIGHTS", 500)])
def test_every_bound_holds(monkeypatch, bound, most):
    monkeypatch.setattr(benchmarks.shapes, bound, most)
    for shape in draw_shapes(20, 5):
        maps = shape.batch * math.prod(shape.map)
        weights = shape.out_channels * shape.in_channels // shape.groups * math.prod(shape.kernel)
        cells = maps * max(shape.in_channels, shape.out_channels)
        assert {"MOST_TAPS": maps * weights, "MOST_CELLS": cells, "MOST_WEIGHTS": weights}[bound] <= most


@pytest.mark.parametrize(
    ("map", "kernel", "channels_last"),
    [
        ((9,), (5,), False),
        *[((6, 5), (3, 3), last) for last in (False, True)],
        *[((3, 4), (9, 9), last) for last in (False, True)],
        *[((4, 3, 5), (3, 3, 3), last) for last in (False, True)],
    ],
    ids=str,
)
def test_a_shape_alone_is_the_problem_of_its_tensors(map, kernel, channels_last):
    shape = Shape(2, 4, 6, 2, map, kernel, channels_last)
    problem, input, weight, gradient = shape.problem()
    assert isinstance(problem, Problem)
    assert problem == shape.problem_alone()
    assert problem.channels_last == channels_last
    assert problem.outputs == map == tuple(input.shape[2:]) == tuple(gradient.shape[2:])
    assert tuple(weight.shape[2:]) == problem.kernel
