"""One more method is one record: it is named, chosen, explained and differentiated as the others are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import answers, assert_equal_to_rounding, normal, oracle_convolution

from torchdcls import Dcls2d, clear_caches, explain_method
from torchdcls.nn import layer
from torchdcls.ops.conv import api, large_kernel_conv, large_kernel_conv_transpose, methods, select
from torchdcls.ops.conv.method import Method


def by_taps(input, weight, bias, problem):
    """A shifted map for each tap."""
    padded = F.pad(input, [cells for pair in reversed(problem.padding) for cells in pair])
    output = 0
    for y in range(problem.kernel[0]):
        for x in range(problem.kernel[1]):
            rows, columns = problem.outputs
            output = output + padded[..., y : y + rows, x : x + columns] * weight[:, 0, y, x, None, None]
    return output if bias is None else output + bias[:, None, None]


def back(gradient, weight, problem):
    input = gradient.new_zeros(problem.batch, problem.in_channels, *problem.map)
    return torch.func.vjp(lambda input: by_taps(input, weight, None, problem), input)[1](gradient)[0]


def of_weight(input, gradient, problem):
    weight = gradient.new_zeros(problem.out_channels, 1, *problem.kernel)
    return torch.func.vjp(lambda weight: by_taps(input, weight, None, problem), weight)[1](gradient)[0]


def unsupported(problem):
    able = problem.depthwise and len(problem.kernel) == 2 and problem.stride == (1, 1)
    return None if able else "it is a toy"


SOURCE = Path(__file__).parents[3] / "src"
TOY = Method(
    name="toy",
    convolve=by_taps,
    transpose=back,
    correlate=of_weight,
    unsupported=unsupported,
    operations=lambda problem, part: {"direct call": 1e-6},
    caution="is a toy",
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The record in the tuple that lists them; what a caller may say follows from it, as when it is imported."""
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, TOY))
    for module in (api, select):
        monkeypatch.setattr(module, "METHODS", methods.METHODS)
    for module in (api, layer):
        monkeypatch.setattr(module, "METHOD_NAMES", ("auto", *(method.name for method in methods.METHODS)))
    clear_caches()
    yield
    clear_caches()


def leaves_of(map, kernel):
    return {
        "input": normal(2, 3, *map, seed=1),
        "weight": normal(3, 1, *kernel, seed=2),
        "bias": normal(3, seed=3),
    }


@pytest.mark.parametrize("method", ["toy", "auto"])
def test_output_and_every_gradient_are_the_oracles(method):
    leaves = leaves_of((40, 41), (5, 4))
    options = {"padding": "same", "groups": 3}
    made = answers(lambda: large_kernel_conv(**leaves, **options, method=method), leaves)
    assert_equal_to_rounding(made, answers(lambda: oracle_convolution(**leaves, **options), leaves))


def test_transposed_and_twice_differentiated():
    leaves = tuple(leaves_of((3, 4), (3, 2)).values())
    for convolve in (large_kernel_conv, large_kernel_conv_transpose):
        run = lambda *tensors, by=convolve: by(*tensors, padding=1, groups=3, method="toy")  # noqa: E731
        assert torch.autograd.gradcheck(run, leaves)
        assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def test_auto_takes_it_where_nothing_is_cheaper_and_says_so(capsys):
    explain_method((64, 96, 56, 56), (96, 1, 23, 23), padding=11, groups=96)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("toy") and line.endswith("(is a toy)") for line in lines)
    assert lines[-1] == "auto takes: output by toy, input gradient by toy, weight gradient by toy"
    explain_method((64, 96, 56, 56), (96, 1, 23, 23), stride=2, padding=11, groups=96)
    assert "toy        not taken: it is a toy" in capsys.readouterr().out


def test_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="method: 'toy' cannot run this call: it is a toy"):
        large_kernel_conv(torch.ones(1, 2, 9), torch.ones(2, 1, 3), groups=2, method="toy")
    with pytest.raises(ValueError, match=r"method: expected one of .*'toy', got 'joy'"):
        large_kernel_conv(torch.ones(1, 2, 9), torch.ones(2, 1, 3), groups=2, method="joy")


def test_a_layer_by_it():
    made = Dcls2d(3, 3, 4, dilated_kernel_size=7, padding="same", groups=3, method="toy")
    input = torch.randn(1, 3, 9, 9)
    expected = F.conv2d(input, made.kernel(), made.bias, padding=3, groups=3)
    torch.testing.assert_close(made(input), expected, rtol=1e-4, atol=1e-5)


def test_a_file_and_its_name_in_methods_are_all(tmp_path):
    """The package with one file more, and its record and its name in `methods.py`; all other files as they are."""
    changed = Path("torchdcls", "ops", "conv")
    for folder in (*reversed(changed.parents[:-1]), changed):
        (tmp_path / folder).mkdir()
        for path in (SOURCE / folder).iterdir():
            if path.name not in (*changed.parts, "methods.py", "__pycache__"):
                (tmp_path / folder / path.name).symlink_to(path)
    text = (SOURCE / changed / "methods.py").read_text()
    for before, after in (
        ("from .triton import TRITON\n", "from .toy import TOY\nfrom .triton import TRITON\n"),
        (", TRITON)", ", TRITON, TOY)"),
        (', "triton"]', ', "triton", "toy"]'),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / changed / "methods.py").write_text(text)
    (tmp_path / changed / "toy.py").write_text(
        "from dataclasses import replace\nfrom .direct import DIRECT\n"
        "TOY = replace(DIRECT, name='toy', operations=lambda problem, part: {'direct call': 1e-6})\n"
    )
    program = """
import inspect, torch, torchdcls
from torchdcls.nn import Dcls2d
from benchmarks.fit import METHODS
assert [method.name for method in METHODS][-1] == "toy"
for function in (torchdcls.large_kernel_conv, torchdcls.dcls_conv, Dcls2d):
    assert "'toy'" in str(inspect.signature(function).parameters["method"])
weight = torch.ones(2, 1, 3, 3, requires_grad=True)
torchdcls.large_kernel_conv(torch.ones(1, 2, 9, 9), weight, groups=2, method="toy").sum().backward()
assert weight.grad.unique().tolist() == [49.0]
torchdcls.explain_method((64, 96, 56, 56), (96, 1, 23, 23), padding=11, groups=96)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, SOURCE, SOURCE.parent)))}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("auto takes: output by toy, input gradient by toy, weight gradient by toy\n")
