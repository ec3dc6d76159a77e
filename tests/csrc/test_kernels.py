"""The compiled kernels against torch in float64: every map, algorithm and instruction set that runs here."""

import ctypes
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
LENGTH = ctypes.c_int64
MAPS = {"convolve": 0, "transpose": 1, "correlate": 2}
ALGORITHMS = {"direct": 0, "fft": 1}
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
VARIANTS = ("avx512", "avx2", "sse2", "neon")


class Problem(ctypes.Structure):
    _fields_ = (
        ("batch", LENGTH),
        ("channels", LENGTH),
        *((name, LENGTH * 3) for name in ("map", "outputs", "kernel", "stride", "before")),
    )


class Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("stride", LENGTH * 5), ("dtype", LENGTH))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    file = tmp_path_factory.mktemp("csrc") / "kernels.so"
    flags = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run([sys.executable, str(ROOT / "csrc" / "build.py"), str(file), *flags], check=True)
    loaded = ctypes.CDLL(str(file))
    loaded.td_variant.restype = ctypes.c_char_p
    loaded.td_set_parallel.argtypes = [ctypes.c_void_p]
    torch_itself = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    loaded.td_set_parallel(ctypes.cast(torch_itself.torch_parallel_for, ctypes.c_void_p))
    return loaded


@pytest.fixture(params=VARIANTS)
def variant(request, library):
    names = {}
    while (name := library.td_variant(len(names))) is not None:
        names[name.decode()] = len(names)
    if request.param not in names or not library.td_variant_runs(names[request.param]):
        pytest.skip(f"this processor does not run {request.param}")
    library.td_choose(names[request.param])


def described(tensor):
    strides = tensor.stride()
    axes = (*strides[:2], *([0] * (5 - len(strides))), *strides[2:])
    return ctypes.byref(Tensor(tensor.data_ptr(), (LENGTH * 5)(*axes), DTYPES[tensor.dtype]))


def three(sizes, missing):
    return (LENGTH * 3)(*([missing] * (3 - len(sizes))), *sizes)


def drawn(rng, *, strides):
    """Sizes of a problem: (batch, channels, map, kernel, stride, padding pairs)."""
    dims = rng.choice((1, 2, 2, 3))
    most = {1: 60, 2: 22, 3: 9}[dims]
    map, kernel = ([rng.randint(1, most) for _ in range(dims)] for _ in range(2))
    stride = [rng.randint(1, 3) if strides else 1 for _ in range(dims)]
    pads = [(rng.randint(0, taps - 1), rng.randint(0, taps - 1)) for taps in kernel]
    rows = zip(pads, map, kernel, strict=True)
    pads = [pair if size + sum(pair) >= taps else (taps - 1, taps - 1) for pair, size, taps in rows]
    return rng.randint(1, 3), rng.choice((1, 3, 7, 8, 9, 15, 17, 33)), map, kernel, stride, pads


def tensors(sizes, dtype, last):
    batch, channels, map, kernel, stride, pads = sizes
    rows = zip(map, kernel, stride, pads, strict=True)
    outputs = [(size + sum(pair) - taps) // step + 1 for size, taps, step, pair in rows]
    made = [
        torch.randn(batch, channels, *map),
        torch.randn(channels, 1, *kernel),
        torch.randn(batch, channels, *outputs),
    ]
    made = [tensor.to(dtype) for tensor in made]
    if last:
        made[0], made[2] = (tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in (made[0], made[2]))
    return made


def run(library, algorithm, sizes, input, weight, gradient):
    """Output and both gradients; memory that is not written stays NaN."""
    batch, channels, map, kernel, stride, pads = sizes
    before = three([pair[0] for pair in pads], 0)
    shapes = three(map, 1), three(gradient.shape[2:], 1), three(kernel, 1), three(stride, 1)
    problem = Problem(batch, channels, *shapes, before)
    made = [torch.full_like(tensor, float("nan")) for tensor in (gradient, input, weight)]
    calls = [(input, weight, made[0]), (made[1], weight, gradient), (input, made[2], gradient)]
    for number, call in zip(MAPS.values(), calls, strict=True):
        arguments = ctypes.byref(problem), *map_described(call)
        assert library.td_run(input.dtype == torch.float64, ALGORITHMS[algorithm], number, *arguments) == 0
    return made


def map_described(call):
    return [described(tensor) for tensor in call]


def expected(sizes, input, weight, gradient):
    _, channels, _, _, stride, pads = sizes
    input, weight = (tensor.detach().double().requires_grad_() for tensor in (input, weight))
    padded = F.pad(input, [cells for pair in reversed(pads) for cells in pair])
    output = CONVOLUTIONS[input.dim() - 2](padded, weight, None, stride, 0, 1, channels)
    return [output.detach(), *torch.autograd.grad(output, (input, weight), gradient.double())]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 5e-7), (torch.float64, 1e-15), (torch.bfloat16, 4e-3), (torch.float16, 6e-4)],
    ids=str,
)
def test_any_sizes(library, variant, algorithm, dtype, bound):
    """The bound is four rounding units of float32 or float64, and one of half precision, in the norm."""
    rng = random.Random(0)
    for _ in range(60 if dtype == torch.float32 else 20):
        sizes = drawn(rng, strides=algorithm == "direct")
        made = tensors(sizes, dtype, rng.random() < 0.5)
        for name, one, other in zip(MAPS, run(library, algorithm, sizes, *made), expected(sizes, *made), strict=True):
            error = (one.double() - other).norm() / other.norm().clamp_min(1e-30)
            assert error <= bound or other.norm() == 0, (name, sizes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_results_do_not_depend_on_the_number_of_threads(library, variant, algorithm):
    sizes = (3, 40, [20, 18], [9, 11], [1, 1], [(4, 4), (5, 5)])
    made = tensors(sizes, torch.float32, True)
    one = run(library, algorithm, sizes, *made)
    torch.set_num_threads(2)
    try:
        two = run(library, algorithm, sizes, *made)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_maps_that_are_cut_into_tiles(library, variant, algorithm):
    for sizes in (
        (1, 2, [5000], [301], [1], [(150, 150)]),
        (1, 3, [260, 230], [31, 21], [1, 1], [(15, 15), (10, 10)]),
        (2, 2, [400, 9], [91, 1], [1, 1], [(45, 45), (0, 0)]),
    ):
        made = tensors(sizes, torch.float32, False)
        for one, other in zip(run(library, algorithm, sizes, *made), expected(sizes, *made), strict=True):
            assert (one - other).norm() <= 1e-6 * other.norm()


def test_strides_are_not_transformed(library, variant):
    sizes = (1, 1, [9], [3], [2], [(1, 1)])
    input, weight, gradient = tensors(sizes, torch.float32, False)
    problem = Problem(1, 1, three([9], 1), three(gradient.shape[2:], 1), three([3], 1), three([2], 1), three([1], 0))
    call = map_described((input, weight, gradient))
    assert library.td_run(0, ALGORITHMS["fft"], MAPS["convolve"], ctypes.byref(problem), *call) == 2
