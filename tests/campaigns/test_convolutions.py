"""The campaign of convolutions finds nothing wrong, and finds what is wrong: numbers, views, and processes that end."""

import dataclasses
import os
import random

import pytest
import torch

from torchdcls.ops.conv import autograd, methods

from . import convolutions


def test_a_few_problems():
    # In this process: after some tests torch refuses to differentiate in a forked one.
    drawn = random.Random(1)
    cases = [case for _ in range(6) for case in convolutions.attempt(convolutions.draw(drawn))]
    assert {case.kind.partition(",")[0] for case in cases} >= {"auto", "direct", "fft"}
    assert [case for case in cases if case.fault is not None] == []


def test_the_same_seed_draws_the_same():
    assert convolutions.draw(random.Random(3)) == convolutions.draw(random.Random(3))


PROBLEM = convolutions.Drawn(
    2, 2, (2, 2, 2), (9, 9), (7, 7), (1, 1), (3, 3), None, True, "plain", "sliced", "float32", 0
)


def spectra(monkeypatch, convolve):
    """Has "fft" convolve so."""
    changed = [
        dataclasses.replace(method, convolve=convolve) if method.name == "fft" else method for method in methods.METHODS
    ]
    monkeypatch.setattr(methods, "METHODS", tuple(changed))


def faults(cases):
    return {case.kind: case.fault for case in cases if case.fault}


def test_wrong_numbers_are_found(monkeypatch):
    plain = methods.named("fft").convolve
    spectra(monkeypatch, lambda *arguments: plain(*arguments) * (1 + 1e-4))
    assert "times what is allowed" in faults(convolutions.attempt(PROBLEM))["fft, 2-D"]


def test_views_are_found(monkeypatch):
    monkeypatch.setattr(autograd, "owned", lambda made: made)
    last = dataclasses.replace(PROBLEM, maps="last")
    assert "modified inplace" in faults(convolutions.attempt(last))["fft, 2-D"]


def test_the_end_of_a_process_is_a_fault_of_its_problem(monkeypatch):
    spectra(monkeypatch, lambda *arguments: os.abort())
    cases = list(convolutions.in_child([PROBLEM, PROBLEM]))
    assert [case.kind for case in cases] == ["process", "process"]
    assert cases[0].name == str(PROBLEM) and "ended with status" in cases[0].fault


@pytest.mark.parametrize("layout", ["plain", "last", "sliced", "expanded", "transposed"])
def test_layouts(layout):
    leaves = convolutions.tensors(dataclasses.replace(PROBLEM, maps=layout, weights=layout))
    assert leaves["input"].shape == (2, 2, 9, 9) and leaves["weight"].shape == (2, 1, 7, 7)
    assert leaves["input"].is_contiguous() == (layout == "plain")
    assert isinstance(leaves["bias"], torch.Tensor)
