"""What is kept from call to call, and that one call frees all of it."""

import ast
import functools
import gc
import pickle
import threading
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest
import torch
from cases import CPU_METHODS

import torchdcls
from torchdcls import Dcls2d, clear_caches, large_kernel_conv2d, large_kernel_conv_transpose2d
from torchdcls.ops import gpu
from torchdcls.ops.caches import LastResult, cached
from torchdcls.ops.conv.triton import configurations, tuning
from torchdcls.ops.native import missing

SOURCE = Path(torchdcls.__file__).parent


def functions_with_caches():
    """Every function of the package that keeps its results, by name."""
    for path in sorted((SOURCE / "ops").rglob("*.py")):
        if path.parts[-2:] != ("triton", "kernels.py") and path.parts[-2:] != ("triton", "launch.py"):  # need Triton
            import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    wrappers = [found for found in gc.get_objects() if type(found) is functools._lru_cache_wrapper]
    return {f"{one.__module__}.{one.__name__}": one for one in wrappers if one.__module__.startswith("torchdcls.")}


def fill():
    """Calls of everything that is kept; returns the layer whose kernel is among it."""
    layer = Dcls2d(4, 4, 3, padding="same", dilated_kernel_size=9, groups=4).eval()
    input, weight = torch.randn(2, 4, 12, 12), torch.randn(4, 1, 9, 9)
    for method in ("auto", *CPU_METHODS):
        large_kernel_conv2d(input, weight, padding=4, groups=4, method=method)
    large_kernel_conv_transpose2d(input, weight, padding=4, groups=4)
    with torch.no_grad():
        layer(input)
    gpu.missing("cuda")
    gpu._installed(), gpu._too_old()
    sizes = configurations.Sizes(8, 96, (56, 56), (56, 56), (11, 11), (23, 23))
    for channels_last in (False, True):
        for blocks in configurations.for_output(sizes, torch.bfloat16, channels_last):
            if isinstance(blocks, configurations.Banded):
                configurations.patches_of(blocks, sizes)
        configurations.for_weight_gradient(sizes, torch.bfloat16, channels_last)
    tuning._measured["output", "key"] = "fastest"
    return layer


def test_every_cache_is_filled_and_freed():
    functions = functions_with_caches()
    clear_caches()
    layer = fill()
    empty = [name for name, function in functions.items() if not function.cache_info().currsize]
    assert [name for name in empty if missing() is None or ".conv.native." not in name] == []
    assert layer._cache._kept is not None
    assert tuning._measured
    clear_caches()
    assert [name for name, function in functions.items() if function.cache_info().currsize] == []
    assert layer._cache._kept is None
    assert not tuning._measured


def test_results_are_the_same_afterwards():
    layer, input = fill(), torch.randn(2, 4, 12, 12)
    with torch.no_grad():
        before = layer(input)
        clear_caches()
        assert torch.equal(layer(input), before)


def test_what_other_threads_made_last_is_freed_too():
    made, cleared, found = threading.Event(), threading.Event(), []

    def work():
        layer = Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4).eval()
        with torch.no_grad():
            layer(torch.zeros(1, 4, 7, 7))
        found.append(layer._cache._kept)
        made.set()
        cleared.wait()
        found.append(layer._cache._kept)

    thread = threading.Thread(target=work)
    thread.start()
    made.wait()
    clear_caches()
    cleared.set()
    thread.join()
    assert found[0] is not None and found[1] is None


def not_enlisted(text):
    """Lines of a program that keep results of functions by Python's own means."""
    own = ("lru_cache", "cache", "cached_property")
    for node in ast.walk(ast.parse(text)):
        imported = isinstance(node, ast.ImportFrom) and node.module == "functools"
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "functools"
        if (imported and {alias.name for alias in node.names} & {*own}) or (named and node.attr in own):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_keep_results_by_enlisted_caches_alone(path):
    assert path.name == "caches.py" or not list(not_enlisted(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "from functools import lru_cache",
        "from functools import cache as kept, wraps",
        "import functools\n@functools.lru_cache(maxsize=3)\ndef f(): ...",
        "import functools\nf = functools.cache(g)",
    ],
)
def test_caches_that_are_not_enlisted_are_seen(text):
    assert list(not_enlisted(text))


def test_a_cached_function_is_called_once_until_caches_are_cleared():
    calls = []
    double = cached(maxsize=2)(lambda number: calls.append(number) or 2 * number)
    assert [double(3), double(3)] == [6, 6] and calls == [3]
    clear_caches()
    assert double(3) == 6 and calls == [3, 3]


def test_copies_of_a_last_result_are_empty_and_cleared_too():
    last = LastResult()
    assert last.get([torch.ones(2), None], (), lambda: "made") == "made"
    for other in (deepcopy(last), pickle.loads(pickle.dumps(last))):
        assert other._kept is None
        other.get([], (), lambda: "other")
        clear_caches()
        assert other._kept is None
