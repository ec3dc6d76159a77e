"""Every program that a launch may take compiles for GPUs that need not be here: no spills, tensor cores, memory.

In a process without Triton's interpreter.
"""

import itertools
import os
import random
import re
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from torchdcls.ops.conv.triton import kernels
from torchdcls.ops.conv.triton.configurations import (
    Banded,
    BandedWeightGradient,
    Multiplied,
    Sizes,
    for_output,
    for_weight_gradient,
)
from torchdcls.ops.conv.triton.launch import BAND_BLOCK

# Most shared memory of a program by compute capability. Unit: bytes.
SHARED = {80: 163 * 1024, 90: 227 * 1024}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
FUNCTIONS = {
    Banded: kernels.banded,
    Multiplied: kernels.multiplied,
    BandedWeightGradient: kernels.banded_weight_gradient,
}
POINTERS = ("input", "weight", "bands", "made", "bias", "output", "gradient", "parts")


def chosen(sizes, dtype, last, tight):
    """What a launch may take for the output, and for the gradient of the kernel."""
    return *for_output(sizes, dtype, last, tight), *for_weight_gradient(sizes, dtype, last, tight)


@dataclass(frozen=True)
class Program:
    """What a device function is compiled for. `ragged`: channels and rows that 16 does not divide, of a slice."""

    blocks: object
    dtype: torch.dtype
    last: bool
    far: bool
    capability: int
    ragged: bool = False

    def __str__(self):
        layout = "channels last" if self.last else "contiguous"
        more = f"{', 64 bits' * self.far}{', ragged' * self.ragged}"
        return f"{self.blocks}, {TYPES[self.dtype]}, {layout}, sm_{self.capability}{more}"

    def numbers(self, names):
        """What is known of a launch's numbers: the innermost stride is 1, the others are multiples of 16, or not."""
        innermost = "channel" if self.last else "column"
        strides = {f"{map}_{axis}" for map in ("input", "output", "gradient") for axis in axes}
        ones = [name for name in names if name in strides and name.endswith(innermost)]
        sixteens = [name for name in names if (name in strides or name == "channels") and name not in ones]
        return ones, [] if self.ragged else sixteens

    def compiled(self):
        function = FUNCTIONS[type(self.blocks)]
        names = function.arg_names
        ones, sixteens = self.numbers(names)
        constants = dict.fromkeys(ones, 1) | self.blocks.constants()
        constants |= {"OFFSET": tl.int64 if self.far else tl.int32}
        constants |= {"SUM": tl.float64 if self.dtype == torch.float64 else tl.float32}
        constants |= {"PRECISION": "tf32x3" if self.dtype == torch.float32 else "ieee"}
        constants = {name: value for name, value in constants.items() if name in names}
        pointers = dict.fromkeys(POINTERS, f"*{TYPES[self.dtype]}")
        pointers["parts"] = "*fp64" if self.dtype == torch.float64 else "*fp32"
        signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
        aligned = [*sixteens, *(name for name in names if name in pointers and not self.ragged)]
        source = ASTSource(
            fn=function,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        )
        tight = self.far or (self.last and self.ragged)
        options = self.blocks.options(tight) | {"enable_fp_fusion": True}
        return triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)


axes = ("sample", "channel", "row", "column")


def programs():
    """All of them; that they are all is what `test_no_launch_takes_another` shows."""
    found = {}
    maps = [(56, 56), (14, 14), (7, 7), (1, 4000), (1, 14), (1, 7)]
    kernels = [(23, 23), (3, 3), (1, 3)]
    for map, kernel, samples in itertools.product(maps, kernels, (1, 128)):
        taps = tuple(min(taps, 2 * side - 1) for taps, side in zip(kernel, map, strict=True))
        sizes = Sizes(samples, 96, map, map, tuple(size // 2 for size in taps), taps)
        for dtype, last, tight in itertools.product(TYPES, (False, True), (False, True)):
            for blocks in chosen(sizes, dtype, last, tight):
                found[blocks, dtype, last, tight] = None
    return list(found)


EVERY = programs()


def compilations():
    """Of every program: with offsets of 32 bits and 64, of tensors that are aligned or not, as `_kind` tells them."""
    for blocks, dtype, last, tight in EVERY:
        for capability in SHARED:
            yield Program(blocks, dtype, last, tight, capability)
        # Not for each GPU and dtype: what is read less at a time is the same for all.
        if dtype in (torch.float32, torch.bfloat16):
            if tight and last:
                yield Program(blocks, dtype, last, False, 90, ragged=True)
            if tight or not last:
                yield Program(blocks, dtype, last, tight, 90, ragged=True)


PROGRAMS = list(dict.fromkeys(compilations()))


@dataclass(frozen=True)
class Facts:
    """Of a program: bytes of a thread's stack and of shared memory, instructions that multiply, loads of one number."""

    stack: int
    shared: int
    products: frozenset
    narrow: int


def facts(program):
    """Of a program that is compiled here and now."""
    return measured(program.compiled())


def measured(compiled):
    """Of what a compiler gave."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.cubin"
        file.write_bytes(compiled.asm["cubin"])
        tool = next(Path(triton.__file__).parent.rglob("bin/cuobjdump"))
        text = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    ptx = compiled.asm["ptx"]
    products = frozenset(re.findall(r"(?:mma\.sync|wgmma\.mma_async)\S*", ptx))
    narrow = sum(".v" not in load for load in re.findall(r"ld\.global\S*", ptx))
    return Facts(int(re.search(r"STACK:(\d+)", text).group(1)), compiled.metadata.shared, products, narrow)


@pytest.fixture(scope="module")
def compiled(request):
    """Facts of each program that a test was asked for, compiled on all cores."""
    # Doctests have neither a module nor parameters.
    items = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    items = [item for item in items if hasattr(item, "callspec")]
    asked = {item.callspec.params["program"]: None for item in items if "program" in item.callspec.params}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
        return dict(zip(asked, pool.map(facts, asked), strict=True))


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_compiles_within_the_chip(program, compiled):
    made = compiled[program]
    assert made.shared <= SHARED[program.capability]
    if program.dtype == torch.float64:  # not made for it: GPUs are slow at it anyway
        return
    assert made.stack == 0
    assert bool(made.products) == (not isinstance(program.blocks, Multiplied))
    if program.last and not program.ragged and not isinstance(program.blocks, Multiplied):
        assert made.narrow <= 2  # the bias: neighbouring channels, and cells of banded matrices, are read together
    if program.dtype == torch.float32:
        assert all("tf32" in product for product in made.products)


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_makes_banded_matrices_compiles(dtype, capability):
    names = kernels.bands.arg_names
    for columns in sorted({program[0].columns for program in EVERY if isinstance(program[0], Banded)}):
        constants = {"COLUMNS": columns, "BLOCK": BAND_BLOCK}
        pointers = dict.fromkeys(("weight", "made"), f"*{TYPES[dtype]}")
        source = ASTSource(
            fn=kernels.bands,
            signature={name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
        )
        assert measured(triton.compile(source, target=GPUTarget("cuda", capability, 32))).stack == 0


def test_no_launch_takes_another():
    """Of thousands of random ones."""
    draw = random.Random(0)
    every = set(EVERY)
    for _ in range(4000):
        map = [draw.choice([1, draw.randint(1, 40), draw.randint(1, 3000)]) for _ in range(2)]
        kernel = [draw.randint(1, 63) for _ in range(2)]
        padding = [draw.randint(0, taps) for taps in kernel]
        out = [max(1, side + 2 * pad - taps + 1) for side, pad, taps in zip(map, padding, kernel, strict=True)]
        counts = (draw.choice([1, draw.randint(1, 300)]) for _ in range(2))
        sizes = Sizes(*counts, tuple(map), tuple(out), tuple(padding), tuple(kernel))
        for dtype, last, tight in itertools.product(TYPES, (False, True), (False, True)):
            assert {(blocks, dtype, last, tight) for blocks in chosen(sizes, dtype, last, tight)} <= every


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_candidates_sum_by_one_instruction(dtype, last):
    """Whichever is the fastest for a kernel's gradient, no bit depends on it."""
    sizes = Sizes(128, 96, (56, 56), (56, 56), (11, 11), (23, 23))
    made = [facts(Program(blocks, dtype, last, False, 90)) for blocks in for_weight_gradient(sizes, dtype, last)]
    assert len({re.sub(r"n\d+(?=k)", "", product) for one in made for product in one.products}) == 1
