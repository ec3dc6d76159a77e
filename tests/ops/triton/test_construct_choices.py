"""Which kernels Triton makes, and that its programs compile for GPUs that need not be here."""

import os
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch

from torchdcls import Profile, profiles
from torchdcls.ops import gpu
from torchdcls.ops.triton import support
from torchdcls.ops.triton.support import can_construct
from torchdcls.profiles import PROFILES

GAUSSIAN = PROFILES["gaussian"]
GPU = torch.device("cuda")


@dataclass
class OnGpu:
    """What is asked of a weight."""

    shape: tuple[int, ...] = (96, 1, 26)
    dtype: torch.dtype = torch.float32
    device: torch.device = GPU


@pytest.mark.parametrize(
    ("weight", "sizes", "profile", "wanted"),
    [
        (OnGpu(), (23, 23), GAUSSIAN, True),
        (OnGpu(), (31,), PROFILES["bilinear"], True),
        (OnGpu((4, 32)), (64, 1), PROFILES["triangle"], True),
        (OnGpu((4, 33)), (64, 1), PROFILES["triangle"], False),
        (OnGpu((4, 128)), (5, 16), GAUSSIAN, True),
        (OnGpu((4, 129)), (5, 16), GAUSSIAN, False),
        (OnGpu(), (33, 32), GAUSSIAN, False),
        (OnGpu(), (5, 5, 5), GAUSSIAN, False),
        (OnGpu(dtype=torch.float64), (5, 5), GAUSSIAN, False),
        (OnGpu(device=torch.device("cpu")), (5, 5), GAUSSIAN, False),
        (OnGpu(), (5, 5), Profile(torch.exp, 0.3, 0.2, "own"), False),
        (OnGpu(), (5, 5), replace(GAUSSIAN, smallest_scale=0.5, name="own"), True),
    ],
)
def test_choices(weight, sizes, profile, wanted, monkeypatch):
    monkeypatch.setattr(support, "missing", lambda device: None)
    assert can_construct(weight, sizes, profile) is wanted


def test_not_of_a_form_without_code(monkeypatch):
    monkeypatch.setattr(support, "missing", lambda device: None)
    monkeypatch.setattr(profiles, "DeviceForm", Literal["triangle", "gaussian", "square"])
    assert not can_construct(OnGpu(), (5, 5), replace(GAUSSIAN, device_form="square"))


def test_not_without_triton(monkeypatch):
    monkeypatch.setattr(gpu, "_installed", lambda: False)
    assert not can_construct(OnGpu(), (5, 5), GAUSSIAN)


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("scales", [True, False], ids=["scales", "smallest scale"])
@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (26, (23, 23)),
        (34, (17, 17)),
        (13, (9, 9)),
        (40, (31,)),
        (32, (9, 64)),
        (64, (32, 32)),
        (128, (9, 16)),
        (32, (64,)),
        (16, (101,)),
    ],
)
@pytest.mark.parametrize("name", ["construct", "construct_gradients"])
def test_programs_compile_without_spills(name, count, sizes, scales, capability):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tests.ops.conv.triton.test_ahead_of_time import SHARED, measured
    from torchdcls.ops.triton import kernels, launch

    function = getattr(kernels, name)
    constants = launch.constants(count, sizes, GAUSSIAN, scales)
    names = function.arg_names
    pointers = ("weight", "position", "sigma", "kernel", "gradient", "to_weight", "to_position", "to_sigma")
    signature = {name: "constexpr" if name in constants else "*fp32" if name in pointers else "i32" for name in names}
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in names if name in pointers},
    )
    options = {"num_warps": launch.WARPS, "enable_fp_fusion": True}
    made = measured(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options))
    assert made.stack == 0
    assert made.shared <= SHARED[capability]
