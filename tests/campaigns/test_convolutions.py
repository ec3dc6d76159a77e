"""The campaign of convolutions finds nothing wrong, and finds what is wrong: numbers, views, and processes that end."""

import dataclasses
import os
import random

import pytest
import torch

from torchdcls.ops.conv import autograd

from . import convolutions


def test_a_few_problems():
    cases = list(convolutions.run(6, 1))
    assert {case.kind.partition(",")[0] for case in cases} >= {"auto", "direct", "matmul"}
    assert [case for case in cases if case.fault is not None] == []


def test_the_same_seed_draws_the_same():
    assert convolutions.draw(random.Random(3)) == convolutions.draw(random.Random(3))


PROBLEM = convolutions.Drawn(
    2, 2, (2, 2, 2), (9, 9), (7, 7), (1, 1), (3, 3), None, True, "plain", "sliced", "float32", 0
)


def fails(monkeypatch, made):
    plain = autograd.OUTPUTS["fft"]
    monkeypatch.setitem(autograd.OUTPUTS, "fft", lambda *arguments: made(plain(*arguments)))
    return {case.kind: case.fault for case in convolutions.in_child([PROBLEM, PROBLEM]) if case.fault}


def test_wrong_numbers_are_found(monkeypatch):
    assert "times what is allowed" in fails(monkeypatch, lambda output: output * (1 + 1e-4))["fft, 2-D"]


def test_views_are_found(monkeypatch):
    monkeypatch.setattr(autograd, "owned", lambda made: made)
    assert "in-place" in fails(monkeypatch, lambda output: output)["fft, 2-D"].replace("inplace", "in-place")


def test_the_end_of_a_process_is_a_fault_of_its_problem(monkeypatch):
    faults = fails(monkeypatch, lambda output: os.abort())
    assert "the process ended with status" in faults["process"]


@pytest.mark.parametrize("layout", ["plain", "last", "sliced", "expanded", "transposed"])
def test_layouts(layout):
    leaves = convolutions.tensors(dataclasses.replace(PROBLEM, maps=layout, weights=layout))
    assert leaves["input"].shape == (2, 2, 9, 9) and leaves["weight"].shape == (2, 1, 7, 7)
    assert leaves["input"].is_contiguous() == (layout == "plain")
    assert isinstance(leaves["bias"], torch.Tensor)
