"""Every configuration that a launch may take compiles for GPUs that need not be here: no spills, tensor cores, memory.

In a process without Triton's interpreter.
"""

import itertools
import os
import re
import subprocess
from dataclasses import dataclass
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
    met_columns,
)
from torchdcls.ops.conv.triton.launch import _numbers, _precision, _sum_type

# Most shared memory of a program by compute capability. Unit: bytes.
SHARED = {80: 163 * 1024, 90: 227 * 1024}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
POINTERS = ("input", "weight", "bias", "output", "gradient", "parts")
# ConvNeXt-T's stages at batch 128, taps that see the map; RepLKNet's example; few taps; most; one axis; one sample.
PROBLEMS = {
    "stage 1": Sizes(128, 96, (56, 56), (56, 56), (11, 11), (23, 23)),
    "stage 3": Sizes(128, 384, (14, 14), (14, 14), (11, 11), (23, 23)),
    "stage 4": Sizes(128, 768, (7, 7), (7, 7), (6, 6), (13, 13)),
    "31x31": Sizes(64, 384, (32, 32), (32, 32), (15, 15), (31, 31)),
    "5x5": Sizes(128, 96, (56, 56), (56, 56), (2, 2), (5, 5)),
    "63x63": Sizes(1, 64, (512, 512), (512, 512), (31, 31), (63, 63)),
    "one axis": Sizes(4, 256, (1, 4000), (1, 4000), (0, 31), (1, 63)),
    "one pixel": Sizes(1, 8, (1, 1), (1, 1), (0, 0), (1, 1)),
}


@dataclass(frozen=True)
class Launch:
    """What a device function is compiled for."""

    blocks: object
    sizes: Sizes
    dtype: torch.dtype
    channels_last: bool
    offset: tl.dtype = tl.int32
    bias: bool = True

    def __str__(self):
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{self.blocks}, {self.dtype}, {layout}, {self.offset}{', no bias' * (not self.bias)}"

    @property
    def function(self):
        if isinstance(self.blocks, Banded):
            return kernels.banded
        return kernels.multiplied if isinstance(self.blocks, Multiplied) else kernels.banded_weight_gradient

    @property
    def multiplies_matrices(self):
        return not isinstance(self.blocks, Multiplied)

    def numbers(self):
        """What a launch passes after the pointers, by name."""
        sizes = self.sizes
        maps = [
            torch.empty(sizes.samples, sizes.channels, *map, device="meta") for map in (sizes.map_in, sizes.map_out)
        ]
        if self.channels_last:
            maps = [map.to(memory_format=torch.channels_last) for map in maps]
        given = list(_numbers(sizes, *maps))
        if isinstance(self.blocks, BandedWeightGradient):
            first, _ = met_columns(sizes, self.blocks.columns)
            given += [first, self.blocks.chunks(sizes), self.blocks.splits(sizes)]
        names = [name for name in self.function.arg_names if name not in POINTERS and name == name.lower()]
        return dict(zip(names, given, strict=True))

    def source(self):
        """With the specialisation of a launch: numbers that are 1 are constants, multiples of 16 are known as such."""
        names, numbers = self.function.arg_names, self.numbers()
        constants = {name: 1 for name, number in numbers.items() if number == 1}
        constants |= {"KERNEL_ROWS": self.sizes.kernel[0], "KERNEL_COLUMNS": self.sizes.kernel[1]}
        constants |= {"HAS_BIAS": self.bias, "PRECISION": _precision(self.dtype)}
        constants |= {"OFFSET": self.offset, "SUM": _sum_type(self.dtype), **self.blocks.constants()}
        constants = {name: value for name, value in constants.items() if name in names}
        pointers = dict.fromkeys(POINTERS, f"*{TYPES[self.dtype]}")
        pointers["parts"] = "*fp64" if self.dtype == torch.float64 else "*fp32"
        signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
        aligned = [name for name in names if name in pointers or (name not in constants and numbers[name] % 16 == 0)]
        return ASTSource(
            fn=self.function,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        )

    def compiled(self, capability):
        options = {"num_warps": self.blocks.warps, "num_stages": self.blocks.stages, "enable_fp_fusion": True}
        return triton.compile(self.source(), target=GPUTarget("cuda", capability, 32), options=options)


def launches():
    """Each once, though several problems may lead to it, at the first one's kernel; large tensors at the first ones."""
    found = {}
    for (name, sizes), dtype, last in itertools.product(PROBLEMS.items(), TYPES, (False, True)):
        if dtype == torch.float64 and name != "stage 1":
            continue
        offsets = (tl.int32, tl.int64) if name == "stage 1" else (tl.int32,)
        for offset in offsets:
            for blocks in for_weight_gradient(sizes, dtype, last):
                found.setdefault((blocks, dtype, last, offset), Launch(blocks, sizes, dtype, last, offset))
            for blocks in for_output(sizes, dtype, last, far=offset == tl.int64):
                for bias in (False, True):
                    launch = Launch(blocks, sizes, dtype, last, offset, bias)
                    found.setdefault((blocks, dtype, last, offset, bias), launch)
    return list(found.values())


def resources(compiled, folder):
    """Registers and bytes of the stack a thread."""
    program = folder / "program.cubin"
    program.write_bytes(compiled.asm["cubin"])
    tool = next(Path(triton.__file__).parent.rglob("bin/cuobjdump"))
    text = subprocess.run([tool, "-res-usage", program], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return int(registers), int(stack)


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("launch", launches(), ids=str)
def test_compiles_within_the_chip(launch, capability, tmp_path):
    compiled = launch.compiled(capability)
    _, stack = resources(compiled, tmp_path)
    if launch.dtype != torch.float64:  # not made for it: GPUs are slow at it anyway
        assert stack == 0
    assert compiled.metadata.shared <= SHARED[capability]
    products = re.findall(r"(?:mma\.sync|wgmma\.mma_async)\S*", compiled.asm["ptx"])
    if launch.dtype != torch.float64:
        assert bool(products) == launch.multiplies_matrices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_neighbouring_channels_are_read_together(dtype):
    """16 bytes at a time, where channels are last."""
    sizes = PROBLEMS["stage 1"]
    for blocks in (for_output(sizes, dtype, True)[0], for_weight_gradient(sizes, dtype, True)[0]):
        ptx = Launch(blocks, sizes, dtype, True).compiled(90).asm["ptx"]
        assert re.search(r"ld\.global\.v4\.b32", ptx)
